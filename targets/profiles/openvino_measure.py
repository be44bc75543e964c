"""Per-op times of OpenVINO, additive over operations.

The counters are running averages that cannot be reset, so the model is compiled anew for every
chunk, with and without counters, and both are run in alternating short bursts. What warm-up added
is taken out of the average again. An average holds what other load added, too: each chunk's times
are multiplied by its fast runs' share of its mean run, both from the wall clock of the same runs,
and only the faster half of the chunks counts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from targets.errors import UnknownLayout
from targets.profiles.assemble import Row, finished
from targets.profiles.join import ModuleIndex
from targets.profiles.openvino import Counter, ExecutedNode, graph_rows, read_counters, read_graph, rows_of
from targets.profiles.openvino_join import join_counters, read_model_aliases
from targets.profiles.timing import Pace, TimedRuns, busy_note
from targets.records import Artifact, OpProfile, RunSettings
from targets.runtimes.openvino import OpenVINOLoaded, bound, compiled, module, properties, read

WARMUP_RUNS = 3
FEWEST_RUNS = 12
ENOUGH_RUNS = 30  # the fast tenth of a chunk is three of them
PATIENCE = 3  # times the budget, while other load leaves too few runs undisturbed
BURST_SECONDS = 0.02
CHUNKS = 6
_CUT_US = 0.5  # an average cut to whole microseconds is half of one too small, on average


@dataclass(frozen=True)
class Chunk:
    """One compiled pair's figures: counters without warm-up, and the wall time of every run."""

    counters: tuple[Counter, ...]
    op_us: tuple[float, ...]
    plain: TimedRuns
    profiled: TimedRuns

    @classmethod
    def of(cls, before: Sequence[Counter], after: Sequence[Counter], plain: TimedRuns, profiled: TimedRuns) -> Chunk:
        """Take what warm-up added out of the counters, and check them against the wall clock.

        Raises:
            UnknownLayout: If they do not fit each other or the clock.
        """
        op_us = _without_warmup(before, after, len(profiled.wall_us))
        _check_unit(op_us, profiled.wall_us)
        return cls(tuple(after), op_us, plain, profiled)

    @property
    def fast_us(self) -> float:
        """Fast runs, without and with counters."""
        return self.plain.fast_us + self.profiled.fast_us

    @property
    def disturbance(self) -> float:
        """Mean profiled run over the fast ones: 1.0 where nothing else ran."""
        return float(np.mean(self.profiled.wall_us)) / self.profiled.fast_us


class _Bench:
    """Everything that makes compiled pairs of one model."""

    def __init__(self, path: Path, artifact: Artifact, settings: RunSettings) -> None:
        self._openvino = module()
        self._core = self._openvino.Core()
        self._path = path
        self._artifact = artifact
        self._config = properties(settings, self._core)
        self.model: Any = read(self._core, path)

    def loaded(self, counting: bool) -> tuple[Any, OpenVINOLoaded]:
        config = {**self._config, "PERF_COUNT": "YES" if counting else "NO"}
        compiled_model = compiled(self._core, self.model, self._path, config)
        return compiled_model, bound(self._openvino, self._core, compiled_model, self._artifact)


def profile_openvino(
    path: Path, artifact: Artifact, settings: RunSettings, *, seconds: float, pace: Pace | None = None
) -> OpProfile:
    """Measure per-op times of an ONNX file and join them to modules.

    Args:
        path: The file to profile.
        artifact: Its description.
        settings: As for the timed sessions.
        seconds: Time budget of the interleaved part, compiling included.
        pace: A reference model that takes turns, where there is one.

    Raises:
        InvalidModel: If a file is refused.
        UsageError: If a setting is not possible.
        UnknownLayout: If the counters have a layout the reader does not know.
    """
    index = ModuleIndex.from_onnx(path)
    bench = _Bench(path, artifact, settings)
    aliases = read_model_aliases(bench.model, index)
    chunks, graph = _chunks(bench, seconds, pace)
    return assembled(chunks, graph, index, aliases, None if pace is None else pace.typical_us)


def assembled(
    chunks: Sequence[Chunk],
    graph: Sequence[ExecutedNode],
    index: ModuleIndex,
    aliases: Mapping[str, str],
    reference_us: float | None = None,
) -> OpProfile:
    """Put a profile together from what was measured, here or on a device.

    Args:
        chunks: One or more compilations.
        graph: The executed graph of the first.
        index: The source model.
        aliases: From :func:`targets.profiles.openvino_join.read_model_aliases`.
        reference_us: p10 of the reference model that took turns, where one did; then all chunks count, and of each
            operation their median.
    """
    faster = sorted(chunks, key=lambda chunk: chunk.fast_us)[: (len(chunks) + 1) // 2]
    chosen, middle = (faster, np.mean) if reference_us is None else (list(chunks), np.median)
    named = _same_operations(chunks)
    op_us = middle([np.asarray(chunk.op_us) / chunk.disturbance for chunk in chosen], axis=0)
    joined = join_counters(named, graph, index, aliases)
    rows = [
        Row(counter.name, counter.node_type, counter.kernel, float(value), join)
        for counter, value, join in zip(named, op_us, joined, strict=True)
        if value > 0
    ]
    runs = sum(len(chunk.profiled.wall_us) for chunk in chosen)
    return finished(
        "openvino",
        rows,
        runs=runs,
        unprofiled_us=float(np.mean([chunk.plain.fast_us for chunk in chosen])),
        profiled_us=float(np.mean([chunk.profiled.fast_us for chunk in chosen])),
        reference_us=reference_us,
        notes=[
            *index.notes(),
            f"Averages of {len(chosen)} of {len(chunks)} compilations"
            f"{', the fastest' if len(chosen) < len(chunks) else ''}, scaled to their fast runs.",
            f"OpenVINO cuts a counter to whole microseconds; {_CUT_US} us is added to each for that, "
            "and what takes less than 1 us is missing.",
            *busy_note(sum(len(chunk.profiled.undisturbed) for chunk in chosen), runs),
        ],
    )


def _same_operations(chunks: Sequence[Chunk]) -> tuple[Counter, ...]:
    """The first compilation's counters, which the executed graph is of, once all are seen to agree.

    Names that OpenVINO makes up differ from compilation to compilation while order and types do not.
    """
    first = chunks[0].counters
    for chunk in chunks[1:]:
        for mine, other in zip(first, chunk.counters, strict=False):
            if (mine.node_type, mine.kernel) != (other.node_type, other.kernel):
                raise UnknownLayout(f"OpenVINO compiled {mine.name!r} differently a second time: {other.kernel!r}")
        if len(first) != len(chunk.counters):
            raise UnknownLayout(f"OpenVINO made {len(first)} operations once and {len(chunk.counters)} again")
    return first


def _chunks(bench: _Bench, seconds: float, pace: Pace | None) -> tuple[list[Chunk], tuple[ExecutedNode, ...]]:
    """Compile and run until the budget is spent; the executed graph is the first compilation's."""
    start = time.perf_counter()
    chunks: list[Chunk] = []
    graph: tuple[ExecutedNode, ...] = ()
    while not chunks or time.perf_counter() - start < seconds * (1 if any(map(_quiet, chunks)) else PATIENCE):
        begin = time.perf_counter()
        _, plain = bench.loaded(counting=False)
        compiled_model, counting = bench.loaded(counting=True)
        graph = graph or read_graph(graph_rows(compiled_model))
        compile_s = time.perf_counter() - begin
        budget_s = max(compile_s, seconds / CHUNKS - compile_s)
        chunks.append(_chunk(plain, counting, budget_s, most_s=seconds, pace=pace))
    return chunks, graph


def _quiet(chunk: Chunk) -> bool:
    return chunk.plain.enough and chunk.profiled.enough


def _chunk(plain: OpenVINOLoaded, counting: OpenVINOLoaded, budget_s: float, most_s: float, pace: Pace | None) -> Chunk:
    for _ in range(WARMUP_RUNS):
        plain.run()
        counting.run()
    before = read_counters(rows_of(counting.request.get_profiling_info()))
    timed = TimedRuns(plain.run, pace), TimedRuns(counting.run, pace)
    start = time.perf_counter()
    for runs in timed:
        runs.burst(1)
    single_us = timed[0].wall_us[0]
    burst = max(1, min(10, int(BURST_SECONDS * 1e6 / single_us)))
    enough_s = max(budget_s, ENOUGH_RUNS * 2 * single_us / 1e6)
    while len(timed[1].wall_us) < FEWEST_RUNS or time.perf_counter() - start < min(enough_s, most_s):
        for runs in timed:
            runs.burst(burst)
    after = read_counters(rows_of(counting.request.get_profiling_info()))
    return Chunk.of(before, after, *timed)


def _check_unit(op_us: Sequence[float], wall_us: Sequence[float]) -> None:
    """Refuse counters whose microseconds are not those of the clock around the same inferences.

    They are averages, so their sum stays below the mean inference; its median, which a few disturbed
    inferences do not move, leaves room for what is not an operation. Each operation adds what its
    cut to whole microseconds can hide.

    Args:
        op_us: Average time of each operation.
        wall_us: Wall time of each inference with counters.
    """
    stated, slack = sum(op_us), 1.0 * len(op_us)
    mean, median = float(np.mean(wall_us)), float(np.median(wall_us))
    if stated > 1.1 * mean + slack or median > 2 * stated + 200 + slack:
        raise UnknownLayout(
            f"OpenVINO's counters say an inference takes {stated:.0f} us where the clock says {median:.0f} us",
            "The counters have another unit, or not every operation has one; --no-per-op measures without them.",
        )


def _without_warmup(before: Sequence[Counter], after: Sequence[Counter], runs: int) -> tuple[float, ...]:
    """Average over the timed runs alone, from two running averages; 0 for what did not run."""
    if [counter.name for counter in before] != [counter.name for counter in after]:
        raise UnknownLayout("OpenVINO has other operations in warm-up than after it")

    def total(counter: Counter, inferences: int) -> float:
        return (counter.average_us + _CUT_US) * inferences if counter.executed else 0.0

    return tuple(
        max(0.0, (total(late, runs + WARMUP_RUNS) - total(early, WARMUP_RUNS)) / runs) if late.executed else 0.0
        for early, late in zip(before, after, strict=True)
    )
