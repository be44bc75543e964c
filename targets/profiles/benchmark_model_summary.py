"""What ``benchmark_model`` prints of a run besides its op tables: timings, memory, and the flags it understood.

Known are the layouts of TensorFlow 1.15 to 2.2 (``Average inference timings``), of 2.3 on (``Inference timings``), of
LiteRT with ``p5``, ``median`` and ``p95``, each with or without ``INFO: `` before a line. The tool tells most figures
twice; where the two differ, or a figure cannot be what the others say, the output is refused and the line quoted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from targets.errors import UnknownLayout, printable
from targets.records import SampleSummary

_FIX = "Report the line: this version of benchmark_model prints a layout that the kit does not know."
_PREFIX = re.compile(r"^(?:INFO|WARN|WARNING|ERROR|VERBOSE): ")
_REAL = r"[0-9]{1,15}(?:\.[0-9]{1,9})?(?:e[+-][0-9]{2})?"
_WHOLE = r"[0-9]{1,15}"
_PLAN = re.compile(
    rf"Running benchmark for at least ({_WHOLE}) iterations and at least (-?{_REAL}) seconds "
    rf"but terminate if exceeding ({_REAL}) seconds\."
)
_STATS = re.compile(
    rf"count=(?P<count>{_WHOLE})"
    rf"(?: curr=(?P<only>{_WHOLE})(?P<same>\(all same\))?"
    rf"| first=(?P<first>{_WHOLE}) curr=(?P<curr>{_WHOLE}) min=(?P<min>{_WHOLE}) max=(?P<max>{_WHOLE})"
    rf" avg=(?P<avg>{_REAL}) std=(?P<std>{_WHOLE}))"
    rf"(?: p5=(?P<p5>{_WHOLE}) median=(?P<p50>{_WHOLE}) p95=(?P<p95>{_WHOLE}))?"
)
_READY = re.compile(rf"Initialized session in ({_REAL})ms\.")
_TIMINGS = re.compile(
    rf"Inference timings in us: Init: (?P<init>{_WHOLE}), First inference: (?P<first>{_WHOLE}), "
    rf"Warmup \(avg\): (?P<warmup>{_REAL}), Inference \(avg\): (?P<regular>{_REAL})"
)
_OLD_TIMINGS = re.compile(
    rf"Average inference timings in us: Warmup: (?P<warmup>{_REAL}), Init: (?P<init>{_WHOLE}), "
    rf"(?:no stats|Inference): (?P<regular>{_REAL})"
)
_MEMORY = re.compile(
    rf"(?:Memory footprint delta from the start of the tool|Peak memory footprint) \(MB\): "
    rf"init=(-?{_REAL}) overall=(-?{_REAL})"
)
_PARAMETER = re.compile(r"(?P<name>[A-Za-z#][^:\[\]]{0,60}?) ?: \[(?P<value>[^\]]*)\]")
_UNCONSUMED = "Unconsumed cmdline flags: "


@dataclass(frozen=True)
class RunStats:
    """One ``count=`` line; microseconds.

    Attributes:
        count: Inferences.
        first_us: The first.
        min_us: The fastest.
        max_us: The slowest.
        avg_us: Their mean, as printed (six digits).
        std_us: Their standard deviation, cut to whole microseconds.
        p5_us: 5th percentile, where the tool tells it.
        p50_us: Median.
        p95_us: 95th percentile.
    """

    count: int
    first_us: int
    min_us: int
    max_us: int
    avg_us: float
    std_us: int
    p5_us: int | None = None
    p50_us: int | None = None
    p95_us: int | None = None


@dataclass(frozen=True)
class ToolSummary:
    """One run of the tool.

    Attributes:
        init_us: Loading, delegating and allocating, microseconds.
        warmup: Warm-up inferences; their first is the cold one.
        regular: Timed inferences.
        parameters: What the tool says it was told, by its own words for it: ``{"Num threads": "1"}``.
        unconsumed: Arguments it did not know.
        memory_mb: Growth of its memory, at the end, where told.
    """

    init_us: int
    warmup: RunStats
    regular: RunStats
    parameters: dict[str, str] = field(default_factory=dict)
    unconsumed: tuple[str, ...] = ()
    memory_mb: float | None = None

    def samples(self) -> SampleSummary:
        """The timed inferences as a record holds them, milliseconds.

        Raises:
            UnknownLayout: If one took no measurable time: the tool's clock counts whole microseconds.
        """
        stats = self.regular
        if stats.min_us == 0:
            raise UnknownLayout("an inference took less than a microsecond, the tool's clock", "Take a larger model.")
        return SampleSummary(
            count=stats.count,
            mean_ms=stats.avg_us / 1e3,
            min_ms=stats.min_us / 1e3,
            max_ms=stats.max_us / 1e3,
            std_ms=stats.std_us / 1e3,
            p5_ms=None if stats.p5_us is None else stats.p5_us / 1e3,
            p50_ms=None if stats.p50_us is None else stats.p50_us / 1e3,
            p95_ms=None if stats.p95_us is None else stats.p95_us / 1e3,
        )


def log_lines(text: str) -> list[str]:
    """The lines of an output without carriage returns and without the log level before them."""
    return [_PREFIX.sub("", line.rstrip("\r")).rstrip() for line in text.split("\n")]


def parse_summary(text: str) -> ToolSummary:
    """Read the timings of one run.

    Args:
        text: All the tool printed, standard output first.

    Raises:
        UnknownLayout: If a line is missing, doubled, unknown, or contradicts another; the line is quoted.
    """
    lines = log_lines(text)
    ready_at, ready = _only(lines, "Initialized session in", _READY)
    plans = _all(lines, "Running benchmark for", _PLAN)
    # Op tables end with a `count=` of their own, behind "Timings (microseconds): ".
    stats = _all(lines, "count=", _STATS)
    if len(plans) != 2 or len(stats) != 2:
        raise UnknownLayout(
            f"the output announces {len(plans)} runs and tells {len(stats)}, where warm-up and timed runs make 2 "
            f"each; its last line is {_last(lines)}",
            _FIX,
        )
    ends_at, ends = _timings(lines)
    order = [ready_at, plans[0][0], stats[0][0], plans[1][0], stats[1][0], ends_at]
    if order != sorted(order):
        raise UnknownLayout(f"the timings stand in an unknown order, in lines {[at + 1 for at in order]}", _FIX)
    warmup, regular = (
        _stats(lines[at], at + 1, found, plan) for (at, found), (_, plan) in zip(stats, plans, strict=True)
    )
    _check_ends(ends, lines[ends_at], ends_at + 1, warmup, regular)
    init_us = int(ends["init"])
    if ready[1] != f"{init_us / 1e3:g}":
        raise _contradiction(lines[ready_at], ready_at + 1, f"an initialisation of {init_us} us")
    memory = _all(lines, ("Memory footprint delta", "Peak memory footprint"), _MEMORY)
    return ToolSummary(
        init_us,
        warmup,
        regular,
        parameters={found["name"]: found["value"] for found in map(_PARAMETER.fullmatch, lines[:ready_at]) if found},
        unconsumed=tuple(
            word for line in lines if line.startswith(_UNCONSUMED) for word in line.removeprefix(_UNCONSUMED).split()
        ),
        memory_mb=float(memory[0][1][2]) if memory else None,
    )


def _last(lines: Sequence[str]) -> str:
    return repr(printable(next((line for line in reversed(lines) if line.strip()), "")))


def _all(
    lines: Sequence[str], start: str | tuple[str, ...], pattern: re.Pattern[str]
) -> list[tuple[int, re.Match[str]]]:
    """Lines that begin so, each of which must fit as a whole."""
    found = []
    for at, line in enumerate(lines):
        if line.startswith(start):
            match = pattern.fullmatch(line)
            if match is None:
                raise UnknownLayout(f"line {at + 1} has an unknown layout: {printable(line)!r}", _FIX)
            found.append((at, match))
    return found


def _only(lines: Sequence[str], start: str, pattern: re.Pattern[str]) -> tuple[int, re.Match[str]]:
    found = _all(lines, start, pattern)
    if len(found) != 1:
        raise UnknownLayout(
            f"{len(found)} lines begin with {start!r} where one should; the last line is {_last(lines)}", _FIX
        )
    return found[0]


def _timings(lines: Sequence[str]) -> tuple[int, re.Match[str]]:
    old = any(line.startswith("Average inference timings") for line in lines)
    if old:
        return _only(lines, "Average inference timings", _OLD_TIMINGS)
    return _only(lines, "Inference timings in us", _TIMINGS)


def _contradiction(line: str, number: int, other: str) -> UnknownLayout:
    return UnknownLayout(f"line {number} contradicts {other}: {printable(line, 200)!r}", _FIX)


def _stats(line: str, number: int, found: re.Match[str], plan: re.Match[str]) -> RunStats:
    """One ``count=`` line, checked against itself and against what was announced."""
    if found["only"] is not None:
        only = int(found["only"])
        stats = RunStats(int(found["count"]), only, only, only, float(only), 0)
        fits = (stats.count == 1) == (found["same"] is None)
        current = only
    else:
        count, first, least, most = (int(found[name]) for name in ("count", "first", "min", "max"))
        stats = RunStats(count, first, least, most, float(found["avg"]), int(found["std"]))
        current = int(found["curr"])
        fits = stats.count > 1 and stats.min_us < stats.max_us
    p5, p50, p95 = (int(found[name]) if found[name] is not None else None for name in ("p5", "p50", "p95"))
    stats = replace(stats, p5_us=p5, p50_us=p50, p95_us=p95)
    if not (fits and _consistent(stats, current)):
        raise _contradiction(line, number, "itself")
    _check_plan(stats, line, number, plan)
    return stats


def _consistent(stats: RunStats, current: int) -> bool:
    percentiles = [p for p in (stats.p5_us, stats.p50_us, stats.p95_us) if p is not None]
    rising = [stats.min_us, *percentiles, stats.max_us]
    low, high = stats.min_us, stats.max_us
    cut = 1e-5 * stats.avg_us  # six digits are printed
    # Bhatia and Davis (2000): no sample between these ends has a larger deviation.
    largest = math.sqrt(max(0.0, high - stats.avg_us + cut) * max(0.0, stats.avg_us - low + cut))
    return (
        rising == sorted(rising)
        and low <= stats.first_us <= high
        and low <= current <= high
        and low - cut <= stats.avg_us <= high + cut
        and stats.std_us <= largest + 1
        and _mean_fits(stats)
    )


def _mean_fits(stats: RunStats) -> bool:
    """Whether percentiles bound the mean as they must, with ``values[n * q / 100]`` as percentile q."""
    if stats.p5_us is None or stats.p50_us is None or stats.p95_us is None:
        return True
    n = stats.count
    cuts = [0, n * 5 // 100, n * 50 // 100, n * 95 // 100, n]
    values = [stats.min_us, stats.p5_us, stats.p50_us, stats.p95_us, stats.max_us]
    parts = [(cuts[i + 1] - cuts[i], values[i], values[i + 1]) for i in range(4)]
    least = sum(width * low for width, low, _ in parts)
    most = sum(width * high for width, _, high in parts)
    slack = 1e-5 * stats.avg_us + 1
    return least / n - slack <= stats.avg_us <= most / n + slack


def _check_plan(stats: RunStats, line: str, number: int, plan: re.Match[str]) -> None:
    """The tool goes on while it has too few runs or too little time, and stops at the longest time."""
    runs, least_us, most_us = int(plan[1]), float(plan[2]) * 1e6, float(plan[3]) * 1e6
    total_us = stats.count * stats.avg_us
    slack_us = 1e-4 * total_us + 1000
    before_last_us = total_us - stats.max_us - slack_us
    too_many = stats.count > max(runs, 1) and before_last_us > max(least_us, 0.0)
    # Fewer runs than asked for need the longest time; what the tool does between runs takes part of it.
    too_few = stats.count < runs and total_us < 0.5 * most_us
    if too_many or too_few or before_last_us > most_us:
        raise _contradiction(line, number, f"{plan[0]!r}")


def _check_ends(found: re.Match[str], line: str, number: int, warmup: RunStats, regular: RunStats) -> None:
    first = found.groupdict().get("first")
    if first is not None and int(first) != warmup.first_us:
        raise _contradiction(line, number, f"a first inference of {warmup.first_us} us")
    for name, stats in (("warmup", warmup), ("regular", regular)):
        if found[name] != f"{stats.avg_us:g}":
            raise _contradiction(line, number, f"a mean of {stats.avg_us:g} us")
