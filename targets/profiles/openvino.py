"""Read OpenVINO's performance counters and its executed graph, strictly.

Counters are plain rows, so that they can be recorded and checked without OpenVINO: name, node type,
kernel, status and time. The time is a running average over all inferences of one compiled model,
warm-up included, cut to whole microseconds; it cannot be reset. What averages below one microsecond
is told as not run, like what was fused away. ``rows_of`` takes rows from an
infer request, ``parse_openvino_counters`` checks rows from anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

from targets.errors import UnknownLayout

_STATUSES = {"EXECUTED", "NOT_RUN", "OPTIMIZED_OUT"}
_KEYS = {"name", "node_type", "kernel", "status", "average_us"}
_GRAPH_KEYS = {"name", "layer_type", "precision", "originals", "inputs"}
_FIX = "The counters are damaged or of another OpenVINO; no time is read from them."
_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Counter:
    """One node's counter.

    Attributes:
        name: Node name.
        node_type: Operation type.
        kernel: Implementation, for example ``brgconv_avx2_f32``.
        average_us: Average over the inferences so far, whole microseconds, cut.
        executed: Whether it ran for at least a microsecond.
    """

    name: str
    node_type: str
    kernel: str
    average_us: int
    executed: bool


@dataclass(frozen=True, slots=True)
class ExecutedNode:
    """One node of the executed graph.

    Attributes:
        name: Node name, as in the counters.
        layer_type: The plugin's type, ``Reorder`` for a change of layout.
        precision: Type it computes in.
        originals: Names of the nodes it executes, as the plugin tells them.
        inputs: Names of the nodes whose values it reads.
    """

    name: str
    layer_type: str
    precision: str
    originals: tuple[str, ...]
    inputs: tuple[str, ...]


def rows_of(infos: Sequence[Any]) -> list[dict[str, object]]:
    """Counters of an infer request as plain rows.

    Args:
        infos: ``request.get_profiling_info()``.

    Raises:
        UnknownLayout: If a field is missing or a time is no whole number of microseconds.
    """
    try:
        return [
            {
                "name": info.node_name,
                "node_type": info.node_type,
                "kernel": info.exec_type,
                "status": info.status.name,
                "average_us": _whole_us(info.real_time),
            }
            for info in infos
        ]
    except AttributeError as error:
        raise UnknownLayout(f"an OpenVINO performance counter has no {error.name!r}", _FIX) from error


def _whole_us(time: object) -> int:
    if not isinstance(time, timedelta):
        _refuse("a time is no duration", time)
    return time // timedelta(microseconds=1)


def parse_openvino_counters(text: str) -> tuple[Counter, ...]:
    """Read recorded counters.

    Args:
        text: JSON list of the rows that :func:`rows_of` gives.

    Returns:
        One counter a node in order, at least one of them executed.

    Raises:
        UnknownLayout: If a row is not as described above, quoting it.
    """
    rows = _json_list(text)
    return read_counters(rows)


def read_counters(rows: Sequence[object]) -> tuple[Counter, ...]:
    """Check rows (errors as above)."""
    counters = tuple(map(_checked_row, rows))
    if not counters:
        _refuse("there are none", [])
    names = [counter.name for counter in counters]
    if len(set(names)) < len(names):
        _refuse("two nodes share a name", sorted(name for name in names if names.count(name) > 1))
    return counters


def _checked_row(row: object) -> Counter:
    if not isinstance(row, dict) or row.keys() != _KEYS:
        _refuse("a row has other keys", row)
    name, node_type, kernel, status = (row[key] for key in ("name", "node_type", "kernel", "status"))
    if not all(isinstance(value, str) for value in (name, node_type, kernel)) or not name:
        _refuse("a row has no name or type", row)
    if status not in _STATUSES:
        _refuse(f"unknown status {status!r}", row)
    average_us = row["average_us"]
    if type(average_us) is not int or not 0 <= average_us < _DAY_US:
        _refuse("average_us is no count of microseconds", row)
    if status != "EXECUTED" and average_us:
        _refuse("a node that did not run has a time", row)
    return Counter(name, node_type, kernel, average_us, status == "EXECUTED")


def graph_rows(compiled_model: Any) -> list[dict[str, object]]:
    """The executed graph as plain rows.

    Args:
        compiled_model: OpenVINO ``CompiledModel``.

    Raises:
        UnknownLayout: If a node lacks its description.
    """
    rows: list[dict[str, object]] = []
    for node in compiled_model.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        for key in ("layerType", "originalLayersNames", "runtimePrecision"):
            if key not in info:
                _refuse(f"a node of the executed graph has no {key}", node.get_friendly_name())
        rows.append(
            {
                "name": node.get_friendly_name(),
                "layer_type": str(info["layerType"].astype(str)),
                "precision": str(info["runtimePrecision"].astype(str)),
                "originals": str(info["originalLayersNames"].astype(str)),
                "inputs": [port.get_node().get_friendly_name() for port in node.input_values()],
            }
        )
    return rows


def parse_executed_graph(text: str) -> tuple[ExecutedNode, ...]:
    """Read a recorded executed graph.

    Args:
        text: JSON list of the rows that :func:`graph_rows` gives.

    Raises:
        UnknownLayout: If a row is not as described above, quoting it.
    """
    return read_graph(_json_list(text))


def read_graph(rows: Sequence[object]) -> tuple[ExecutedNode, ...]:
    """Check rows of an executed graph (arguments and errors as above)."""
    return tuple(_checked_node(row) for row in rows)


def _checked_node(row: object) -> ExecutedNode:
    if not isinstance(row, dict) or row.keys() != _GRAPH_KEYS:
        _refuse("a node of the executed graph has other keys", row)
    texts = [row[key] for key in ("name", "layer_type", "precision", "originals")]
    inputs = row["inputs"]
    if not all(isinstance(text, str) for text in texts) or not isinstance(inputs, list):
        _refuse("a node of the executed graph has other types", row)
    if not all(isinstance(name, str) for name in inputs):
        _refuse("a node of the executed graph reads something without a name", row)
    originals = tuple(part.strip() for part in row["originals"].split(",") if part.strip())
    return ExecutedNode(row["name"], row["layer_type"], row["precision"], originals, tuple(inputs))


def _json_list(text: str) -> list[object]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnknownLayout(f"recorded OpenVINO counters are a JSON list, not {text[:200]!r}", _FIX) from error
    if not isinstance(rows, list):
        _refuse("it is no list", rows)
    return rows


def _refuse(why: str, part: object) -> NoReturn:
    quoted = json.dumps(part, default=str)[:200]
    raise UnknownLayout(f"OpenVINO's counters are not as known: {why}: {quoted!r}", _FIX)
