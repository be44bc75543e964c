"""Read what ONNX Runtime's profiler writes (a Chrome trace), strictly.

Known layout, ONNX Runtime 1.20 to 1.31: a JSON list of complete events (``ph`` ``X``), durations in
whole microseconds; for every run the events of its nodes in the order they ended, then
``SequentialExecutor::Execute`` and ``model_run``. Anything else is refused with the event quoted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from targets.errors import UnknownLayout

_KEYS = {"cat", "pid", "tid", "dur", "ts", "ph", "name", "args"}
_SESSION_EVENTS = {
    "model_loading_uri",
    "model_loading_array",
    "model_loading_proto",
    "model_loading_istream",
    "model_loading_from_saved_proto",
    "session_initialization",
    "SequentialExecutor::Execute",
    "model_run",
}
_SUFFIX = "_kernel_time"
_CONTROL_FLOW = {"If", "Loop", "Scan"}


@dataclass(frozen=True, slots=True)
class OrtEvent:
    """One execution of one node.

    Attributes:
        name: Node name in the optimised graph.
        op_type: Operator.
        node_index: The runtime's number of the node.
        start_us: Start since the profiler's start, whole microseconds.
        duration_us: Time from start to end, whole microseconds, the profiler's own work included.
        provider: Execution provider that ran it.
        output_bytes: Size of its outputs.
    """

    name: str
    op_type: str
    node_index: int
    start_us: int
    duration_us: int
    provider: str
    output_bytes: int


@dataclass(frozen=True, slots=True)
class OrtRun:
    """One inference.

    Attributes:
        total_us: Duration of ``model_run``, whole microseconds.
        events: Its nodes in execution order; nodes inside control flow are part of the node that holds them.
    """

    total_us: int
    events: tuple[OrtEvent, ...]


def parse_ort_profile(text: str) -> tuple[OrtRun, ...]:
    """Read a profile.

    Args:
        text: Content of the file that ``InferenceSession.end_profiling`` names.

    Returns:
        The inferences in order; all executed the same nodes in the same order.

    Raises:
        UnknownLayout: If any part of it is not as described above, quoting the part.
    """
    try:
        trace = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise UnknownLayout(f"an onnxruntime profile is a JSON list, not {_quote(text)} ({error})", _FIX) from error
    if not isinstance(trace, list) or not trace:
        _refuse("it is no list of events", trace)
    runs: list[OrtRun] = []
    pending: list[OrtEvent] = []
    for raw in trace:
        category, name, start_us, duration_us, args = _checked(raw)
        if category == "Node":
            pending.append(_node_event(raw, name, start_us, duration_us, args))
        elif name == "model_run":
            runs.append(_closed_run(raw, pending, start_us, duration_us))
            pending = []
    if pending or not runs:
        _refuse("its last run is not complete" if pending else "it holds no model_run", trace[-1])
    _check_same_nodes(runs)
    return tuple(runs)


_FIX = "The profile is damaged or of another ONNX Runtime; no time is read from it."


def _refuse(why: str, part: object) -> NoReturn:
    raise UnknownLayout(f"an onnxruntime profile is not as known: {why}: {_quote(part)}", _FIX)


def _quote(part: object) -> str:
    if isinstance(part, dict):  # an event's arguments are long and say least
        part = dict(sorted(part.items(), key=lambda item: (item[0] == "args", item[0] != "name")))
    text = part if isinstance(part, str) else json.dumps(part, default=str)
    return repr(text[:200])


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no duration")


def _checked(raw: object) -> tuple[str, str, int, int, Mapping[str, Any]]:
    """Category, name, start, duration and arguments of an event of known form."""
    if not isinstance(raw, dict) or raw.keys() != _KEYS:
        _refuse("an event has other keys", raw)
    category, name, args = raw["cat"], raw["name"], raw["args"]
    if raw["ph"] != "X" or not isinstance(name, str) or not isinstance(args, dict):
        _refuse("an event is no complete event", raw)
    for key in ("dur", "ts"):
        if type(raw[key]) is not int or raw[key] < 0:
            _refuse(f"{key} is no count of microseconds", raw)
    if category == "Session" and name not in _SESSION_EVENTS:
        _refuse(f"unknown session event {name!r}", raw)
    if category not in ("Session", "Node"):
        _refuse(f"unknown category {category!r}", raw)
    return category, name, raw["ts"], raw["dur"], args


def _node_event(raw: object, name: str, start_us: int, duration_us: int, args: Mapping[str, Any]) -> OrtEvent:
    op_type, provider = args.get("op_name"), args.get("provider")
    if not name.endswith(_SUFFIX) or not isinstance(op_type, str) or not isinstance(provider, str):
        _refuse("a node event has another name, no op_name or no provider", raw)
    return OrtEvent(
        name=name.removesuffix(_SUFFIX),
        op_type=op_type,
        node_index=_number(raw, args, "node_index"),
        start_us=start_us,
        duration_us=duration_us,
        provider=provider,
        output_bytes=_number(raw, args, "output_size"),
    )


def _number(raw: object, args: Mapping[str, Any], key: str) -> int:
    """A number that the profiler writes as a string of digits."""
    value = args.get(key)
    if not isinstance(value, str) or not value.isascii() or not value.isdigit() or len(value) > 18:
        _refuse(f"{key} is no number", raw)
    return int(value)


def _closed_run(raw: object, pending: list[OrtEvent], start_us: int, duration_us: int) -> OrtRun:
    """Check that the nodes lie in their run one after the other, and leave out those inside control flow."""
    end_us = start_us + duration_us
    kept: list[OrtEvent] = []
    for event in pending:
        while kept and event.op_type in _CONTROL_FLOW and _inside(kept[-1], event):
            kept.pop()
        if kept and event.start_us < kept[-1].start_us + kept[-1].duration_us:
            _refuse(f"node {event.name!r} overlaps the one before it", raw)
        kept.append(event)
    if not kept or kept[0].start_us < start_us or kept[-1].start_us + kept[-1].duration_us > end_us:
        _refuse("a run holds no nodes, or nodes outside its time", raw)
    return OrtRun(duration_us, tuple(kept))


def _inside(inner: OrtEvent, outer: OrtEvent) -> bool:
    inner_end_us, outer_end_us = inner.start_us + inner.duration_us, outer.start_us + outer.duration_us
    return inner.start_us >= outer.start_us and inner_end_us <= outer_end_us


def _check_same_nodes(runs: list[OrtRun]) -> None:
    expected = [(event.node_index, event.name) for event in runs[0].events]
    for number, run in enumerate(runs):
        found = [(event.node_index, event.name) for event in run.events]
        if found != expected:
            _refuse(f"run {number} executed other nodes than run 0", sorted(set(found) ^ set(expected))[:4])
