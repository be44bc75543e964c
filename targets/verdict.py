"""How far to trust a measurement, in sentences; a weak figure is never silently good."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from targets.heat import heat_findings
from targets.records import LatencyStats, SessionRecord, Verdict
from targets.statistics import inferences, session_headline_ms, session_percentile_ms

MIN_SESSIONS = 3
MIN_SAMPLES = 10
MAX_OTHER_CPU = 0.10
MAX_STEAL = 0.02
MAX_SPREAD = 0.03
MAX_DRIFT = 0.03
MAX_CLOCK_CHANGE = 0.05
MAX_MODE_RATIO = 1.3
MIN_CPU_PER_WALL = 0.9

_Finding = tuple[str, str]


def _median(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.median(known)) if known else None


def _sample_size(sessions: Sequence[SessionRecord]) -> list[_Finding]:
    found: list[_Finding] = []
    if len(sessions) < MIN_SESSIONS and sessions[0].settings.mode != "sustained":  # one long session is the point
        text = f"too few sessions: {len(sessions)}, so the spread between processes is not known"
        found.append((text, f"measure at least {MIN_SESSIONS} sessions (--sessions)"))
    fewest = min(inferences(s) for s in sessions)
    if fewest < MIN_SAMPLES:
        text = f"too few inferences: a session holds only {fewest}, too few for a percentile"
        found.append((text, "measure longer (--seconds)"))
    return found


def _host(sessions: Sequence[SessionRecord]) -> list[_Finding]:
    found: list[_Finding] = []
    other = _median([s.host.other_cpu_share for s in sessions])
    if other is not None and other > MAX_OTHER_CPU:
        text = f"host contention: other processes used {other:.0%} of a core while this was timed"
        found.append((text, "stop other work on this machine, or read p10, which load lifts least"))
    steal = _median([s.host.steal_share for s in sessions])
    if steal is not None and steal > MAX_STEAL:
        text = f"host contention: the hypervisor took {steal:.1%} of a core away (steal)"
        found.append((text, "measure on a machine that is not shared"))
    own = _median([s.cpu_per_wall for s in sessions])
    if own is not None and sessions[0].settings.threads == 1 and own < MIN_CPU_PER_WALL:
        text = f"host contention: the session had a core for only {own:.0%} of the time"
        found.append((text, "stop other work on this machine, or lift the CPU quota it runs under"))
    for session in sessions:
        before, after = session.host.clock_mhz_before, session.host.clock_mhz_after
        if before and after and abs(after / before - 1) > MAX_CLOCK_CHANGE:
            text = f"clock ramp: the core went from {before:.0f} to {after:.0f} MHz in session {session.index}"
            found.append((text, "fix the clock (performance governor), or measure longer"))
            break
    return found


def _stability(sessions: Sequence[SessionRecord], stats: LatencyStats) -> list[_Finding]:
    found: list[_Finding] = []
    unsettled = [s.index for s in sessions if s.steady is False]
    if unsettled:
        text = f"not steady: {len(unsettled)} of {len(sessions)} sessions had not settled when warm-up ended"
        found.append((text, "measure longer (--seconds), on a quieter machine"))
    if stats.headline_spread > MAX_SPREAD:
        text = f"spread: {stats.headline} differs by {stats.headline_spread:.1%} (standard deviation) between sessions"
        one_thread = " or use one thread (--threads 1)" if sessions[0].settings.threads > 1 else ""
        found.append((text, f"take more sessions (--sessions){one_thread}"))
    if len(sessions) >= 4:
        values = [session_headline_ms(s, stats.headline) for s in sorted(sessions, key=lambda s: s.index)]
        half = len(values) // 2
        change = float(np.median(values[-half:]) / np.median(values[:half]) - 1)
        if abs(change) > MAX_DRIFT:
            text = (
                f"drift: {stats.headline} of the later half of the sessions is {change:+.1%} against the earlier half"
            )
            found.append((text, "let the machine settle (heat, clocks, other load) and measure again"))
    medians = [m for m in (session_percentile_ms(s, 50) for s in sessions) if m is not None]
    threads = sessions[0].settings.threads
    if threads > 1 and medians and stats.p50_ms is not None:
        ratio = max(max(medians) / min(medians), stats.p50_ms / stats.headline_ms)
        low, high = min(*medians, stats.headline_ms), max(medians)
        if ratio > MAX_MODE_RATIO:
            text = f"two modes: with {threads} threads inferences take from {low:.3g} to {high:.3g} ms (p50)"
            found.append((text, "measure with one thread (--threads 1), the repeatable figure on a shared host"))
    return found


def judge(sessions: Sequence[SessionRecord], stats: LatencyStats, *, planned: int = 0) -> Verdict:
    """Verdict on the sessions of one variant.

    Args:
        sessions: The raw sessions, at least one.
        stats: Their statistics.
        planned: Sessions that were to be measured; fewer make it weak.

    Returns:
        ``valid``, or ``weak`` with a reason and an advice for each thing found.
    """
    found = []
    if len(sessions) < planned:
        text = f"unfinished: {len(sessions)} of {planned} planned sessions are there"
        found.append((text, "go on by repeating the command with --resume"))
    found += [*_sample_size(sessions), *_host(sessions), *heat_findings(sessions), *_stability(sessions, stats)]
    if not found:
        return Verdict(status="valid")
    advice = dict.fromkeys(text for _, text in found)
    return Verdict(status="weak", reasons=tuple(reason for reason, _ in found), advice=tuple(advice))
