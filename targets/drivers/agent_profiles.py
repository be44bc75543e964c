"""From what the agent measured to a profile: the same joins as on this host."""

from __future__ import annotations

import tempfile
from pathlib import Path

from targets.drivers.agent_answer import OnnxRuntimeProfile, OpenVINOProfile, PairResult, Runs, Unpacker
from targets.profiles import onnxruntime_measure, openvino_measure
from targets.profiles.join import ModuleIndex
from targets.profiles.onnxruntime import parse_ort_profile
from targets.profiles.onnxruntime_join import OptimizedNode, read_optimized
from targets.profiles.openvino import read_counters, read_graph
from targets.profiles.openvino_join import ReadNode, aliases_of
from targets.profiles.timing import TimedRuns
from targets.records import OpProfile


def sizes_of(result: OnnxRuntimeProfile, *, where: str) -> tuple[list[int], int]:
    """Typical tensor sizes, and the number of events of one inference, out of a first short profile.

    Raises:
        UnknownLayout: If the trace is not as known.
    """
    trace = Unpacker(where).text(result.pairs[0].trace)
    return onnxruntime_measure.typical_sizes(trace), len(parse_ort_profile(trace)[0].events)


def onnxruntime_profile(path: Path, result: OnnxRuntimeProfile, branches: int, *, where: str) -> OpProfile:
    """Put an ONNX Runtime profile together.

    Args:
        path: The model on this host.
        result: Model, short and long calibration model.
        branches: Branches of the calibration models.
        where: Device name.

    Raises:
        UnknownLayout: If a trace is not as known.
        SessionFailed: If a part is damaged.
    """
    unpacker = Unpacker(where)
    model, short, long = (_pair(part, unpacker) for part in result.pairs)
    nodes = _optimized(result.pairs[0], unpacker)
    return onnxruntime_measure.assembled(ModuleIndex.from_onnx(path), nodes, model, (short, long), branches)


def openvino_profile(path: Path, result: OpenVINOProfile) -> OpProfile:
    """Put an OpenVINO profile together (arguments and errors as above)."""
    index = ModuleIndex.from_onnx(path)
    rows = [ReadNode(row.name, row.type, row.readers) for row in result.source]
    last = len(rows)
    inside = [ReadNode(row.name, row.type, tuple(at for at in row.readers if at < last)) for row in rows]
    chunks = [
        openvino_measure.Chunk.of(
            read_counters(chunk.before), read_counters(chunk.after), _runs(chunk.plain), _runs(chunk.profiled)
        )
        for chunk in result.chunks
    ]
    return openvino_measure.assembled(chunks, read_graph(result.graph), index, aliases_of(inside, index))


def _pair(part: PairResult, unpacker: Unpacker) -> onnxruntime_measure.ProfiledPair:
    trace = unpacker.text(part.trace)
    return onnxruntime_measure.ProfiledPair.of(_runs(part.plain), _runs(part.profiled), trace)


def _runs(told: Runs) -> TimedRuns:
    count = len(told.wall_us)
    return TimedRuns.recorded(told.wall_us, [place for place in told.undisturbed if place < count])


def _optimized(part: PairResult, unpacker: Unpacker) -> tuple[OptimizedNode, ...]:
    if not part.optimized:
        return ()
    with tempfile.TemporaryDirectory(prefix="inas-optimized-") as folder:
        file = Path(folder, "optimized.onnx")
        file.write_bytes(unpacker.data(part.optimized))
        return read_optimized(file)
