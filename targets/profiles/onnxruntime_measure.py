"""Per-op times of ONNX Runtime, additive over operations and free of the profiler's own cost.

Three things are interleaved in short bursts, so that drift and other load meet all alike: the model
without profiling, the model with it, and two small calibration models with and without it. The
calibration gives what profiling adds to a node's time (a few microseconds, which on a network of
small operations is a tenth of the total); it is taken off each operation before the sum is compared
with the unprofiled inference.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from targets.errors import UnknownLayout
from targets.profiles.assemble import Row, finished
from targets.profiles.calibration import CHAIN, chain_model
from targets.profiles.join import ModuleIndex
from targets.profiles.onnxruntime import OrtRun, parse_ort_profile
from targets.profiles.onnxruntime_join import OptimizedNode, join_events, placement, read_optimized
from targets.profiles.timing import Pace, TimedRuns, busy_note
from targets.records import Artifact, OpProfile, RunSettings, TensorSpec
from targets.runtimes.onnxruntime import OnnxLoaded, bound, open_session, session_options

BURST_SECONDS = 0.02
FEWEST_RUNS = 8
WARMUP_RUNS = 3
PATIENCE = 3  # times the budget, while other load leaves too few runs undisturbed
MOST_EVENTS = 60_000  # about 40 MB of trace; the profiler itself stops at a million
_BRANCHES = 6


@dataclass(frozen=True)
class ProfiledPair:
    """What one model gave without and with profiling, wherever it ran.

    Attributes:
        plain: Runs without.
        profiled: Runs with.
        runs: What the profiler said of the latter.
    """

    plain: TimedRuns
    profiled: TimedRuns
    runs: tuple[OrtRun, ...]

    @classmethod
    def of(cls, plain: TimedRuns, profiled: TimedRuns, trace: str) -> ProfiledPair:
        """Read the profiler's trace, leave out warm-up, and check it against the wall clock.

        Raises:
            UnknownLayout: If the trace is not as known, or says something else than the clock.
        """
        runs = parse_ort_profile(trace)[WARMUP_RUNS:]
        if len(runs) != len(profiled.wall_us):
            raise UnknownLayout(f"onnxruntime profiled {len(runs)} runs of {len(profiled.wall_us)}")
        _check_unit([run.total_us for run in runs], profiled.wall_us)
        return cls(plain, profiled, runs)

    def chosen(self) -> list[OrtRun]:
        """The fast ones of the undisturbed runs."""
        return [self.runs[i] for i in self.profiled.fast([run.total_us for run in self.runs])]


class _Pair:
    """One model loaded twice, without and with profiling."""

    def __init__(
        self,
        model: Path | bytes,
        artifact: Artifact,
        settings: RunSettings,
        folder: Path,
        tag: str,
        pace: Pace | None = None,
    ) -> None:
        profiled = session_options(settings)
        profiled.enable_profiling = True
        profiled.profile_file_prefix = str(folder / tag)
        self.optimized = folder / f"{tag}-optimized.onnx"
        profiled.optimized_model_filepath = str(self.optimized)
        self._session: Any = open_session(model, profiled)
        plain: OnnxLoaded = bound(open_session(model, session_options(settings)), artifact)
        self._profiled: OnnxLoaded = bound(self._session, artifact)
        for _ in range(WARMUP_RUNS):
            plain.run()
            self._profiled.run()
        self.plain = TimedRuns(plain.run, pace)
        self.profiled = TimedRuns(self._profiled.run, pace)

    def burst(self, runs: int) -> None:
        self.plain.burst(runs)
        self.profiled.burst(runs)

    def closed(self) -> ProfiledPair:
        """End profiling."""
        path = Path(self._session.end_profiling())
        return ProfiledPair.of(self.plain, self.profiled, path.read_text(encoding="utf-8", errors="replace"))


def _check_unit(totals_us: Sequence[int], wall_us: Sequence[float]) -> None:
    """Refuse a profile whose microseconds are not those of the clock around the same runs."""
    stated, real = float(np.median(totals_us)), float(np.median(wall_us))
    if stated > real + 1 or real > 2 * stated + 200:
        raise UnknownLayout(
            f"onnxruntime's profile says a run takes {stated:.0f} us where the clock says {real:.0f} us"
        )


def profile_onnxruntime(
    path: Path, artifact: Artifact, settings: RunSettings, *, seconds: float, pace: Pace | None = None
) -> OpProfile:
    """Measure per-op times of an ONNX file and join them to modules.

    Args:
        path: The file to profile.
        artifact: Its description.
        settings: As for the timed sessions.
        seconds: Time budget of the interleaved part.
        pace: A reference model that takes turns, where there is one.

    Raises:
        InvalidModel: If a file is refused.
        UsageError: If a setting is not possible.
        UnknownLayout: If the profile has a layout the parser does not know.
    """
    index = ModuleIndex.from_onnx(path)
    with tempfile.TemporaryDirectory(prefix="inas-profile-") as name:
        folder = Path(name)
        model = _Pair(path, artifact, settings, folder, "model", pace)
        sizes = _typical_sizes(path, artifact, settings, folder)
        short, long = (_calibration(length, sizes, settings, folder) for length in (1, CHAIN))
        _interleave(model, (short, long), seconds, _node_count(model))
        pair, chains = model.closed(), (short.closed(), long.closed())
        nodes = read_optimized(model.optimized)
    return assembled(index, nodes, pair, chains, len(sizes), None if pace is None else pace.typical_us)


def assembled(
    index: ModuleIndex,
    nodes: Sequence[OptimizedNode],
    model: ProfiledPair,
    chains: tuple[ProfiledPair, ProfiledPair],
    branches: int,
    reference_us: float | None = None,
) -> OpProfile:
    """Put a profile together from what was measured, here or on a device.

    Args:
        index: The source model.
        nodes: The optimised graph's nodes; may be empty.
        model: The model's runs.
        chains: Those of the short and of the long calibration model.
        branches: Branches of the calibration models.
        reference_us: p10 of the reference model that took turns, where one did.
    """
    cost_us = _cost_us(*chains, branches)
    events = model.runs[0].events
    joined, kernels = join_events(events, nodes, index)
    durations = model.profiled.op_times_us(
        np.array([[event.duration_us for event in run.events] for run in model.runs], np.float64)
    )
    rows = [
        Row(event.name, event.op_type, kernel, float(duration) - cost_us, join)
        for event, kernel, duration, join in zip(events, kernels, durations, joined, strict=True)
    ]
    return finished(
        "onnxruntime",
        rows,
        runs=len(model.runs),
        unprofiled_us=model.plain.fast_us,
        profiled_us=model.profiled.fast_us,
        notes=[*index.notes(), *_notes(cost_us, model.profiled, placement(events))],
        reference_us=reference_us,
    )


def _node_count(model: _Pair) -> int:
    return max(1, len(read_optimized(model.optimized)))


def typical_sizes(trace: str) -> list[int]:
    """Elements of a model's own output tensors at even quantiles, from the trace of one profiled run."""
    elements = [event.output_bytes // 4 for event in parse_ort_profile(trace)[0].events]
    levels = np.linspace(0.1, 0.9, _BRANCHES)
    return [max(1, int(size)) for size in np.quantile(elements, levels)]


def _typical_sizes(path: Path, artifact: Artifact, settings: RunSettings, folder: Path) -> list[int]:
    options = session_options(settings)
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "sizes")
    session = open_session(path, options)
    bound(session, artifact).run()
    return typical_sizes(Path(session.end_profiling()).read_text(encoding="utf-8", errors="replace"))


def _calibration(length: int, sizes: Sequence[int], settings: RunSettings, folder: Path) -> _Pair:
    described = Artifact(path="", format="onnx", sha256="", source_sha256="", inputs=calibration_inputs(sizes))
    return _Pair(chain_model(length, sizes), described, unfused(settings), folder, f"chain{length}")


def calibration_inputs(sizes: Sequence[int]) -> tuple[TensorSpec, ...]:
    """Inputs of :func:`targets.profiles.calibration.chain_model`."""
    return tuple(TensorSpec(name=f"x{i}", shape=(1, 1, 1, size)) for i, size in enumerate(sizes))


def unfused(settings: RunSettings) -> RunSettings:
    """Settings under which the calibration models keep their nodes."""
    return settings.model_copy(update={"options": {**settings.options, "graph_optimization": "disabled"}})


def _interleave(model: _Pair, chains: tuple[_Pair, _Pair], seconds: float, nodes: int) -> None:
    start = time.perf_counter()
    model.burst(1)
    typical_s = model.plain.wall_us[0] / 1e6
    burst = max(1, min(10, int(BURST_SECONDS / typical_s)))
    most_runs = max(FEWEST_RUNS, MOST_EVENTS // nodes)
    while len(model.profiled.wall_us) < most_runs:
        elapsed_s = time.perf_counter() - start
        enough = model.plain.enough and model.profiled.enough
        if elapsed_s >= seconds * (1 if enough else PATIENCE) and len(model.profiled.wall_us) >= FEWEST_RUNS:
            return
        model.burst(burst)
        for chain in chains:
            chain.burst(3)


def _cost_us(short: ProfiledPair, long: ProfiledPair, branches: int) -> float:
    """What profiling adds to the time it states for a node: stated minus unprofiled, as a slope over nodes."""
    stated, real = [], []
    for pair in (short, long):
        chosen = pair.chosen()
        stated.append(float(np.mean([sum(event.duration_us for event in run.events) for run in chosen])))
        real.append(pair.plain.fast_us)
    added = branches * (CHAIN - 1)
    return ((stated[1] - stated[0]) - (real[1] - real[0])) / added


def _notes(cost_us: float, runs: TimedRuns, providers: Mapping[str, int]) -> list[str]:
    placed = ", ".join(f"{count} on {name}" for name, count in providers.items())
    paced = "middle half, relative to the reference, of", "middle half"
    which, share = paced if runs.paced else ("fastest tenth of", "faster half")
    return [
        f"Profiling adds {cost_us:.2f} us to each operation, measured beside the model and taken off.",
        f"The sum is that of the {which} {len(runs.undisturbed)} undisturbed of {len(runs.wall_us)} profiled runs, the "
        f"shares are those of each operation's {share}; the profiler counts whole microseconds.",
        f"Operations: {placed}.",
        *busy_note(len(runs.undisturbed), len(runs.wall_us)),
    ]
