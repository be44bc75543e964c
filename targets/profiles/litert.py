"""Per-op times of a TFLite model on the CPU, from LiteRT's profiler."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from targets.errors import UnknownLayout
from targets.profiles.assemble import Joined, Row, finished
from targets.profiles.litert_align import Aligned, align, split_tag
from targets.profiles.litert_api import LiteRtModel, Port
from targets.profiles.litert_events import BUILTIN_OP, DELEGATE_OP, Event
from targets.profiles.tflite_modules import module_of
from targets.profiles.timing import Pace, TimedRuns, busy_note
from targets.records import Artifact, OpProfile, RunSettings, TensorSpec
from targets.runtimes.base import seeded_inputs
from targets.runtimes.tflite import TFLiteModel, checked_delegate, delegated_ops
from targets.tflite_files import TfliteFile
from targets.tflite_schema import LAYOUT_OPERATORS

_BLOCK = 4
_MIN_BLOCKS = 3
_MAX_BLOCKS = 2000
# XNNPACK cuts each duration to whole microseconds: half of one is missing on average.
_CUT_US = 0.5


@dataclass(frozen=True)
class _Timing:
    """Means over the fast runs."""

    events: tuple[Event, ...]
    elapsed_us: NDArray[np.float64]
    profiled_us: float
    unprofiled_us: float
    runs: int
    undisturbed: int
    profiled_runs: int
    reference_us: float | None = None


def profile_tflite(
    model: TFLiteModel, artifact: Artifact, settings: RunSettings, *, seconds: float, pace: Pace | None = None
) -> OpProfile:
    """Time each operator, interleaved with unprofiled inferences of the very interpreter that sessions time.

    Profiled inferences run on a second copy of the model (LiteRT's compiled model, same threads, same kernels).
    Blocks of both alternate; the first inference of a block only warms the cache. Op times are means over the
    fast profiled inferences (:meth:`targets.profiles.timing.TimedRuns.fast`), so that they add up.

    Args:
        model: The loaded model; its inferences are the unprofiled ones.
        artifact: The file.
        settings: The settings of the timed sessions.
        seconds: Time budget of the timed part.
        pace: A reference model that takes turns, where there is one; blocks are single inferences then.

    Returns:
        The profile; operators in execution order.

    Raises:
        UnknownLayout: If the installed LiteRT is another version, or its events do not make sense.
        UsageError: If a setting is not possible.
    """
    delegate = checked_delegate(settings)
    inputs, outputs = graph_ports(model.file)
    with LiteRtModel(
        Path(artifact.path),
        inputs,
        outputs,
        threads=settings.threads,
        kernel_mode="delegate" if delegate == "xnnpack" else "builtin",
    ) as compiled:
        tensors = seeded_inputs(artifact.model_copy(update={"inputs": model.file.inputs}))
        model.feed(tensors)
        compiled.feed(tensors)
        timing = _time(model.run, compiled.profiled_run, seconds, pace)
        _same_outputs(model, compiled)
    aligned = _join(timing.events, model)
    return _report(timing, aligned, model.file)


def graph_ports(file: TfliteFile) -> tuple[list[Port], list[Port]]:
    """Inputs and outputs of a graph with the names that a signature may call them."""

    def ports(specs: Sequence[TensorSpec], tensors: tuple[int, ...], signature: dict[str, int]) -> list[Port]:
        found = []
        for spec, tensor in zip(specs, tensors, strict=True):
            aliases = [name for name, index in signature.items() if index == tensor]
            record = file.tensors[tensor]
            found.append(Port((*aliases, record.name, spec.name), record.shape, record.dtype))
        return found

    return (
        ports(file.inputs, file.input_tensors, file.signature_inputs),
        ports(file.outputs, file.output_tensors, file.signature_outputs),
    )


def _time(
    plain: Callable[[], None],
    profiled: Callable[[], tuple[float, tuple[Event, ...]]],
    seconds: float,
    pace: Pace | None = None,
) -> _Timing:
    recorded: list[tuple[float, tuple[Event, ...]]] = []

    def record() -> None:
        recorded.append(profiled())

    with_events, without = TimedRuns(record, pace), TimedRuns(plain, pace)
    walls: list[float] = []
    elapsed: list[list[int]] = []
    first: tuple[Event, ...] = ()
    deadline = time.perf_counter() + seconds
    blocks = 0
    warming, timed, fewest = (1, _BLOCK, _MIN_BLOCKS) if pace is None else (0, 1, _MIN_BLOCKS * _BLOCK)
    while blocks < fewest or (time.perf_counter() < deadline and blocks < _MAX_BLOCKS):
        for _ in range(warming):  # the cache, as the lone plain inference below does
            record()
        with_events.burst(timed)
        for position, (wall_us, events) in enumerate(recorded):
            events = tuple(event for event in events if event.kind in {BUILTIN_OP, DELEGATE_OP})
            first = first or events
            _same_events(first, events)
            if position >= warming:
                walls.append(wall_us)
                elapsed.append([event.elapsed_us for event in events])
        recorded.clear()
        for _ in range(warming):
            plain()
        without.burst(timed)
        blocks += 1
    return _Timing(
        events=first,
        elapsed_us=with_events.op_times_us(np.asarray(elapsed, np.float64)),
        profiled_us=with_events.mean_us(walls),
        unprofiled_us=without.fast_us,
        runs=len(walls),
        undisturbed=len(with_events.undisturbed),
        profiled_runs=len(walls),
        reference_us=None if pace is None else pace.typical_us,
    )


def _same_events(first: tuple[Event, ...], events: tuple[Event, ...]) -> None:
    if not first:
        raise UnknownLayout("LiteRT recorded no operator in this model", "Profile a model with operators in it.")
    keys, now = ([(event.tag, event.kind, event.node) for event in run] for run in (first, events))
    if keys != now:
        odd = next((pair for pair in zip(keys, now, strict=False) if pair[0] != pair[1]), (len(keys), len(now)))
        raise UnknownLayout(f"two inferences recorded different LiteRT events: {odd[0]} and {odd[1]}", "Profile again.")


def _same_outputs(model: TFLiteModel, compiled: LiteRtModel) -> None:
    profiled = compiled.outputs()
    for spec, plain in zip(model.file.outputs, model.outputs(), strict=True):
        other = profiled[spec.name]
        if not np.allclose(plain, other, rtol=1e-3, atol=1e-4, equal_nan=True):
            raise UnknownLayout(
                f"output {spec.name!r} of the profiled copy differs from the timed model's",
                "The two do not run the same kernels, so no share is told; --no-per-op measures without a profile.",
            )


def _join(events: tuple[Event, ...], model: TFLiteModel) -> list[Aligned]:
    """The TFLite operators behind each event."""
    file = model.file
    partitions = delegated_ops(model.interpreter, file)
    runs = _partitions(events)
    builtin = {event.node for event in events if event.kind == BUILTIN_OP}
    for event in events:
        if event.kind == BUILTIN_OP and (event.node >= len(file.ops) or file.ops[event.node].op_type != event.tag):
            raise UnknownLayout(
                f"LiteRT event {event} does not fit the graph's operator {event.node}", "Report the model."
            )
    taken = [index for partition in partitions or () for index in partition]
    whole = partitions is not None and len(runs) == len(partitions) and not builtin.intersection(taken)
    aligned = [Aligned(file.ops[event.node]) if event.kind == BUILTIN_OP else Aligned(None) for event in events]
    if partitions is None or not whole:
        return aligned
    for positions, partition in zip(runs, partitions, strict=True):
        joined = align([file.ops[index] for index in partition], [events[at].tag for at in positions], file)
        for at, entry in zip(positions, joined, strict=True):
            aligned[at] = entry
    return aligned


def _partitions(events: tuple[Event, ...]) -> list[list[int]]:
    """Positions of each delegate partition's events: numbers restart at 0 and go up by 1."""
    runs: list[list[int]] = []
    for position, event in enumerate(events):
        if event.kind != DELEGATE_OP:
            continue
        if event.node == 0:
            runs.append([])
        if not runs or event.node != len(runs[-1]):
            raise UnknownLayout(
                f"LiteRT event {position} {event} is out of order in its partition", "Report the model."
            )
        runs[-1].append(position)
    return runs


def _report(timing: _Timing, aligned: list[Aligned], file: TfliteFile) -> OpProfile:
    cut = np.array([_CUT_US if event.kind == DELEGATE_OP else 0.0 for event in timing.events])
    elapsed = timing.elapsed_us + np.where(timing.elapsed_us >= _CUT_US, cut, 0.0)
    rows = [
        joined_row(event, entry, float(spent), file)
        for event, entry, spent in zip(timing.events, aligned, elapsed, strict=True)
    ]
    return finished(
        "tflite",
        rows,
        runs=timing.runs,
        unprofiled_us=timing.unprofiled_us,
        profiled_us=timing.profiled_us,
        reference_us=timing.reference_us,
        notes=_notes(timing, [row.joined for row in rows], file),
    )


def joined_row(event: Event, entry: Aligned, spent_us: float, file: TfliteFile) -> Row:
    """One executed operator with the operators and the module behind it.

    Args:
        event: Its tag, kind and position.
        entry: The operators of the file that it executes.
        spent_us: Its time, microseconds.
        file: The graph.
    """
    delegated = event.kind == DELEGATE_OP
    op_type, kernel = split_tag(event.tag) if delegated else (event.tag, "builtin")
    op = entry.op
    layout = op is not None and op.op_type in LAYOUT_OPERATORS and _at_boundary(op.inputs, op.outputs, file)
    sources = sorted(((op,) if op else ()) + entry.absorbed, key=lambda source: source.index)
    joined = Joined(
        source_nodes=tuple(f"{source.op_type}:{source.index}" for source in sources),
        module=_module(entry, file),
        kind="layout" if layout else "compute",
    )
    return Row(f"{'xnnpack' if delegated else 'node'}:{event.node}:{event.tag}", op_type, kernel, spent_us, joined)


def _module(entry: Aligned, file: TfliteFile) -> str | None:
    """The module of the operator, or the one that all its candidates come from."""
    found = {module_of(op, file) for op in ((entry.op,) if entry.op else entry.candidates)}
    return found.pop() if len(found) == 1 else None


def _at_boundary(inputs: tuple[int, ...], outputs: tuple[int, ...], file: TfliteFile) -> bool:
    return inputs[0] in file.input_tensors or bool(set(outputs) & set(file.output_tensors))


def _notes(timing: _Timing, ops: Sequence[Joined], file: TfliteFile) -> list[str]:
    notes = [
        "Unprofiled inferences ran on the plain interpreter, which is what sessions time; profiled ones on a second "
        "copy of the model.",
        "XNNPACK tells whole microseconds, rounded down: half of one is added where at least half of one was read.",
    ]
    below = sum(1 for spent in timing.elapsed_us if spent < _CUT_US)
    if below:
        notes.append(f"{below} of {len(ops)} operators take less than a microsecond and read as about 0.")
    unplaced = sum(1 for op in ops if not op.source_nodes)
    if unplaced:
        notes.append(f"{unplaced} of {len(ops)} operators could not be traced to operators of the file.")
    if any(op.module is not None for op in ops):
        notes.append("Module paths come from the tensor names, which leave out containers (blocks.0 reads 0).")
    if file.output_tensors and any(op.module == "" for op in ops):
        notes.append("Operators that write an output carry the output's name and count for the top module.")
    return [*notes, *busy_note(timing.undisturbed, timing.profiled_runs)]
