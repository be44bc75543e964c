"""Wording and rounding that the HTML, Markdown and terminal reports share.

Labels and file names come from other people's models: everything printed passes through ``clean``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from targets.against_baseline import GateResult, Judged
from targets.records import (
    BenchRun,
    Comparison,
    LatencyStats,
    Measurement,
    OpProfile,
    SessionRecord,
    StandIn,
    Variant,
)
from targets.statistics import inferences

NOT_TOLD = "not told"
HIDDEN = "hidden"
_STAND_INS = {
    "virtual": "STAND-IN: a virtual device on this host, not the hardware it is named after",
    "recorded": "STAND-IN: a replayed recording, nothing was measured in this run",
    "simulated": "STAND-IN: a simulated device; these figures are computed and were not measured",
}


def clean(text: str) -> str:
    """One printable line: control, bidirectional and other invisible characters become visible escapes.

    Such a character in a model's label could move the cursor, reverse the text around it or break a table.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def decimals_for(value_ms: float) -> int:
    """Decimals that show a latency in milliseconds to four significant digits, between 0 and 5."""
    size = abs(value_ms)
    for decimals, limit in enumerate((1000.0, 100.0, 10.0, 1.0, 0.1)):
        if size >= limit:
            return decimals
    return 5


def fixed(value: float, decimals: int) -> str:
    """A number with thousands separators; beyond a billion, in powers of ten."""
    return f"{value:.2e}" if abs(value) >= 1e9 else f"{value:,.{decimals}f}"


def latency(value_ms: float | None) -> str:
    """A latency in milliseconds to four significant digits, without the unit; a dash where the tool tells none."""
    return "\N{EN DASH}" if value_ms is None else fixed(value_ms, decimals_for(value_ms))


def half_width_ms(stats: LatencyStats) -> float | None:
    """Larger side of the 95 % interval of the headline; ``None`` where one session cannot give an interval."""
    if stats.sessions < 2:
        return None
    return max(stats.headline_high_ms - stats.headline_ms, stats.headline_ms - stats.headline_low_ms)


def plus_minus(stats: LatencyStats) -> str:
    """Headline with its interval, ``5.214 ± 0.041``; ``± ?`` where no interval is known; what it is unless p10."""
    half, decimals = half_width_ms(stats), _interval_decimals(stats)
    figure = f"{fixed(stats.headline_ms, decimals)} ± {'?' if half is None else fixed(half, decimals)}"
    return figure if stats.headline == "p10" else f"{figure} ({stats.headline})"


def interval(stats: LatencyStats) -> str:
    """The 95 % interval of the headline as ``5.17 to 5.26``, or why there is none."""
    if stats.sessions < 2:
        return "unknown with one session"
    decimals = _interval_decimals(stats)
    return f"{fixed(stats.headline_low_ms, decimals)} to {fixed(stats.headline_high_ms, decimals)}"


def _interval_decimals(stats: LatencyStats) -> int:
    # A narrow interval must not be rounded to "± 0.000", which would read as certainty.
    half = half_width_ms(stats)
    needed = math.ceil(-math.log10(half)) if half else 0
    return max(decimals_for(stats.headline_ms), min(needed, 7))


def percent(share: float, decimals: int = 1) -> str:
    """A share as percent: ``0.032`` gives ``3.2 %``."""
    return f"{fixed(100 * share, decimals)} %"


def signed_percent(share: float) -> str:
    """A relative difference with its sign: ``0.032`` gives ``+3.2 %``; U+2212 is the minus."""
    text = f"{100 * share:+.1f}" if abs(share) < 1e7 else f"{100 * share:+.1e}"
    return text.replace("-", "\N{MINUS SIGN}") + " %"


def sentence(text: str) -> str:
    """A fragment as a sentence: first letter upper case, full stop at the end."""
    text = clean(text).strip()
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def verdict_word(measurement: Measurement) -> str:
    """``valid`` or ``WEAK``: a word that differs without colour."""
    return "valid" if measurement.verdict.status == "valid" else "WEAK"


def evidence(measurement: Measurement) -> str:
    """What the headline rests on: its interval, the sessions and the inferences."""
    stats = measurement.stats
    sessions = f"{stats.sessions} session" + ("" if stats.sessions == 1 else "s")
    inferences = f"{stats.samples:,} inference" + ("" if stats.samples == 1 else "s")
    known = f"95 % interval {interval(stats)} ms" if stats.sessions > 1 else "interval unknown"
    return f"{known}; {sessions}, {inferences}"


def judgement(measurement: Measurement) -> str:
    """The verdict as a sentence, with every reason where it is weak."""
    if measurement.verdict.status == "valid":
        return "Verdict: valid."
    return sentence("Verdict: WEAK: " + "; ".join(clean(r).rstrip(".") for r in measurement.verdict.reasons))


def headline(measurement: Measurement) -> str:
    """One line with the figure, what it rests on, and the verdict."""
    stats = measurement.stats
    figure = f"{latency(stats.headline_ms)} ms at {stats.headline}"
    return f"{figure} ({evidence(measurement)}). {judgement(measurement)}"


def stand_in_warning(stand_in: StandIn | None) -> str:
    """That figures come from a stand-in for a device, and from which kind of one; empty where they do not."""
    return f"{_STAND_INS[stand_in]}." if stand_in else ""


def warnings_of(variant: Variant) -> list[str]:
    """What must be read before the figure: that the device is a stand-in, and notes on the model."""
    found = [stand_in_warning(variant.stand_in)] if variant.stand_in else []
    if variant.model_note:
        found.append(f"Model: {clean(variant.model_note)}")
    return [sentence(text) for text in found]


def settings_rows(measurement: Measurement) -> list[tuple[str, str]]:
    """What was asked for, one row a setting."""
    settings = measurement.variant.settings
    cores = "the scheduler's choice" if settings.pinned_cores is None else ", ".join(map(str, settings.pinned_cores))
    rows = [
        ("runtime", settings.runtime),
        ("precision", settings.precision.value),
        ("accelerator", settings.accelerator),
        ("threads", str(settings.threads)),
        ("streams", str(settings.streams)),
        ("mode", settings.mode),
        ("pinned cores", cores),
    ]
    return rows + [(clean(key), clean(value)) for key, value in sorted(settings.options.items())]


def merged(records: Iterable[dict[str, str]]) -> list[tuple[str, str]]:
    """Join what several sessions said; a key on which they disagree says so and lists every value."""
    listed = list(records)
    rows = []
    for key in sorted({key for record in listed for key in record}):
        values = list(dict.fromkeys(clean(record.get(key, NOT_TOLD)) for record in listed))
        text = values[0] if len(values) == 1 else "DIFFERS between sessions: " + " | ".join(values)
        rows.append((clean(key), text))
    return rows


def session_cells(session: SessionRecord) -> tuple[str, ...]:
    """One row of the session table, in the order of ``SESSION_COLUMNS``."""
    host = session.host
    clocks = [value for value in (host.clock_mhz_before, host.clock_mhz_after) if value is not None]
    return (
        str(session.index + 1),
        f"{session.started_at:%H:%M:%S}",
        f"{len(session.warmup_ns):,} + {inferences(session):,}",
        {True: "yes", False: "NO", None: HIDDEN}[session.steady],
        latency(session.load_ms),
        latency(session.first_inference_ms),
        _known(session.peak_rss_mb, 0),
        _known(session.cpu_per_wall, 2),
        _known(host.other_cpu_share, 2),
        _known(host.steal_share, 3),
        _known(host.cpu_pressure_share, 2),
        " → ".join(f"{value:,.0f}" for value in clocks) or HIDDEN,
        _known(host.temperature_c, 0),
    )


def _known(value: float | None, decimals: int) -> str:
    return HIDDEN if value is None else fixed(value, decimals)


SESSION_COLUMNS = (
    "session",
    "start (UTC)",
    "warm-up + timed",
    "steady",
    "load ms",
    "first ms",
    "peak MB",
    "CPU/wall",
    "other CPU",
    "steal",
    "pressure",
    "clock MHz",
    "°C",
)


def environment_rows(run: BenchRun) -> list[tuple[str, str]]:
    """The machine, one row a fact."""
    env = run.environment
    virtual = {True: "yes", False: "no", None: "the host does not say"}[env.virtualized]
    rows = [
        ("processor", env.cpu_model),
        ("cores this process may use", str(env.cores)),
        ("memory", f"{env.memory_gb:.1f} GB"),
        ("operating system", env.os),
        ("Python", env.python),
        ("virtual machine", virtual),
    ]
    return [(name, clean(value)) for name, value in rows]


def profile_sentence(profile: OpProfile) -> str:
    """How much of the time the per-op table explains."""
    return (
        f"{profile.runs:,} profiled inferences. Sum of ops against the unprofiled mean of "
        f"{fixed(profile.unprofiled_us, 1)} µs: {signed_percent(profile.residual_share)} before rescaling. "
        f"Joined to modules: {percent(profile.attributed_share)}; layout changes: {percent(profile.layout_share)}."
    )


def effect_reach(comparison: Comparison) -> float:
    """Largest effect that a drawing of a comparison shows to either side of zero.

    An unbounded interval would hide margin and effect; it is drawn to the end of the line instead.
    """
    ends = (comparison.effect_low, comparison.effect_high, comparison.effect, comparison.margin)
    wanted = max(20 * comparison.margin, 3 * abs(comparison.effect), 0.01)
    return 1.15 * max(min(max(map(abs, ends)), wanted), 1e-4)


def comparison_cells(comparison: Comparison) -> tuple[str, ...]:
    """Effect, interval, margin, p-value, pairs, smallest effect in reach, and what it would take to settle it."""
    more = "no number in reach" if comparison.more_pairs is None else str(comparison.more_pairs)
    return (
        signed_percent(comparison.effect),
        f"{signed_percent(comparison.effect_low)} to {signed_percent(comparison.effect_high)}",
        f"± {percent(comparison.margin)}",
        f"{comparison.p_value:.3g}",
        str(comparison.pairs),
        percent(comparison.minimum_detectable_effect),
        more,
    )


COMPARISON_COLUMNS = (
    "effect (B over A)",
    "interval of the effect",
    "same within",
    "p-value",
    "pairs",
    "smallest effect found with 80 % power",
    "further pairs needed",
)


GATE_COLUMNS = ("effect", "interval of the effect", "beyond", "found by")
_METHODS = {
    "same file": "the same file",
    "in turns": "both measured in turns",
    "by reference": "old figures, by a reference",
    "old figures": "old figures alone",
}


def gate_cells(judged: Judged) -> tuple[str, ...]:
    """Effect, its interval, what it had to exceed, and how it was found."""
    dash = "\N{EN DASH}"
    effect = dash if judged.effect is None else signed_percent(judged.effect)
    ends = (judged.effect_low, judged.effect_high)
    interval = dash if None in ends else " to ".join(signed_percent(end) for end in ends if end is not None)
    return effect, interval, f"± {percent(judged.limit)}", _METHODS[judged.method]


def gate_sentence(gate: GateResult) -> str:
    """The gate's verdict over all variants."""
    counts = {answer: sum(one.answer == answer for one in gate.judged) for answer in ("slower", "cannot tell")}
    if counts["slower"]:
        return f"REGRESSION: {counts['slower']} of {len(gate.judged)} slower than the baseline"
    unknown = f"; {counts['cannot tell']} of {len(gate.judged)} cannot be told" if counts["cannot tell"] else ""
    return f"No regression shown{unknown}"


def gate_remarks(gate: GateResult) -> list[str]:
    """What of the run or of the baseline has no counterpart."""
    remarks = [f"Not in the baseline, so not judged: {clean(label)}." for label in gate.new]
    return remarks + [f"In the baseline and not measured: {clean(label)}." for label in gate.missing]
