"""Latency distributions as inline SVG: same bytes for the same samples, readable in light and dark, wide and narrow."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inas_deploy.report import text
from targets.extras import require
from targets.records import Comparison, LatencyStats, Measurement

MAX_POINTS = 160
MAX_QUANTILES = 160
# Drawn in this colour and then replaced by the page's text colour, so that one picture serves light and dark.
INK = "#010203"
ACCENT = "#2f86c1"
MARK = "#d9642c"
BAND = "#8a8f98"
_DEFINED_ID = re.compile(r'\bid="([^"]+)"')
_USED_ID = re.compile(r'(url\(#|href="#)([^")]+)')

Samples = NDArray[np.float64]


@dataclass(frozen=True)
class Plot:
    """One picture in two widths.

    Attributes:
        wide: SVG element for screens of about 700 px and more.
        narrow: The same for phones, panels one above the other.
        alt: What the picture shows, for readers who cannot see it.
        note: What it leaves out; empty where nothing.
    """

    wide: str
    narrow: str
    alt: str
    note: str = ""


def distribution(measurement: Measurement, key: str) -> Plot:
    """Draw every session of a measurement: a strip in the order of time, and its cumulative distribution.

    Args:
        measurement: Gives the raw samples.
        key: Prefix of the element ids, unique on the page.

    Raises:
        MissingExtra: If matplotlib is not installed.
    """
    sessions = [np.asarray(s.samples_ns, dtype=np.float64) / 1e6 for s in measurement.sessions]
    stats = measurement.stats
    low, high = _limits(sessions, stats)
    beyond = sum(int(np.sum(s > high)) for s in sessions)
    slowest = max(float(s.max()) for s in sessions)
    note = ""
    if beyond:
        note = (
            f"{beyond:,} of {stats.samples:,} inferences are slower than {text.latency(high)} ms and lie beyond the "
            f"axis; the slowest took {text.latency(slowest)} ms."
        )
    p10s = [float(np.percentile(s, 10)) for s in sessions]
    middle, late, last = (text.latency(value) for value in (stats.p50_ms, stats.p90_ms, stats.p99_ms))
    alt = (
        f"Latency of {len(sessions)} sessions, {stats.samples} inferences. Session p10s from {text.latency(min(p10s))} "
        f"to {text.latency(max(p10s))} ms; medians over sessions: p50 {middle}, p90 {late}, p99 {last} ms."
    )
    drawn = [
        svg(lambda figure, n=narrow: _draw_sessions(figure, sessions, stats, (low, high), n), f"{key}{suffix}", alt)
        for suffix, narrow in (("w", False), ("n", True))
    ]
    return Plot(drawn[0], drawn[1], alt, note)


def overview(measurements: Sequence[Measurement], key: str) -> Plot:
    """Draw the figures of all variants on one axis, numbered as in the table from the top.

    Args:
        measurements: At least one.
        key: Prefix of the element ids, unique on the page.

    Raises:
        MissingExtra: If matplotlib is not installed.
    """
    stats = [m.stats for m in measurements]
    parts = [
        f"{i}: {s.headline} {text.latency(s.headline_ms)}, p50 {text.latency(s.p50_ms)}, p90 {text.latency(s.p90_ms)}"
        for i, s in enumerate(stats, 1)
    ]
    alt = "Latency in ms by variant number. " + "; ".join(parts) + "."
    wide, narrow = (
        svg(lambda figure, n=narrow: _draw_overview(figure, stats, n), f"{key}{suffix}", alt)
        for suffix, narrow in (("w", False), ("n", True))
    )
    return Plot(wide, narrow, alt)


def effect(comparison: Comparison) -> str:
    """Draw the interval of an effect against the margin, as an SVG element that holds no text but its two ends."""
    reach, width = text.effect_reach(comparison), 600.0

    def place(value: float) -> float:
        return round(width / 2 * (1 + max(-1.0, min(1.0, value / reach))), 2)

    low, high = place(comparison.effect_low), place(comparison.effect_high)
    left, right = place(-comparison.margin), place(comparison.margin)
    zero, middle = place(0.0), place(comparison.effect)
    alt = (
        f"Effect {text.signed_percent(comparison.effect)}, interval {text.signed_percent(comparison.effect_low)} to "
        f"{text.signed_percent(comparison.effect_high)}, margin plus or minus {text.percent(comparison.margin)}."
    )
    return (
        f'<svg viewBox="-4 0 {width + 8:g} 62" role="img" aria-label="{escape(alt)}" xmlns="http://www.w3.org/2000/svg">'
        f'<rect x="{left:g}" y="4" width="{right - left:g}" height="28" fill="{BAND}" fill-opacity="0.3"/>'
        f'<path d="M0 18H{width:g}" stroke="{BAND}" stroke-width="1"/>'
        f'<path d="M{zero:g} 2V34" stroke="currentColor" stroke-width="1.5"/>'
        f'<path d="M{low:g} 18H{high:g}M{low:g} 11V25M{high:g} 11V25" stroke="{MARK}" stroke-width="3"/>'
        f'<circle cx="{middle:g}" cy="18" r="5.5" fill="{MARK}"/>'
        f'<text class="end" x="0" y="56">{text.signed_percent(-reach)}</text>'
        f'<text class="end" x="{zero:g}" y="56" text-anchor="middle">0</text>'
        f'<text class="end" x="{width:g}" y="56" text-anchor="end">{text.signed_percent(reach)}</text></svg>'
    )


def _limits(sessions: Sequence[Samples], stats: LatencyStats) -> tuple[float, float]:
    low = min(float(s.min()) for s in sessions)
    high = max(_bulk_end(s) for s in sessions)
    # The interval band belongs to the picture, unless it is so wide that the samples would vanish.
    high = max(high, min(stats.headline_high_ms, 2 * high))
    low = min(low, max(stats.headline_low_ms, low / 2))
    room = max(0.04 * (high - low), 0.002 * high, 1e-9)
    return max(0.0, low - room), high + room


def _bulk_end(samples: Samples) -> float:
    # A long tail of interruptions would press the bulk, which the picture is about, against the axis.
    p10, p90, p98 = (float(np.percentile(samples, q)) for q in (10, 90, 98))
    return min(p98, p90 + 2 * (p90 - p10))


def _thin(samples: Samples, limit: int) -> tuple[NDArray[np.intp], Samples]:
    places = np.unique(np.linspace(0, len(samples) - 1, min(limit, len(samples))).round().astype(np.intp))
    return places, samples[places]


def _draw_sessions(
    figure: Any, sessions: Sequence[Samples], stats: LatencyStats, limits: tuple[float, float], narrow: bool
) -> None:
    strip_inches = min(0.42 * len(sessions), 7.0) + 0.9
    ecdf_inches = max(2.6, min(strip_inches, 3.2)) if narrow else strip_inches
    if narrow:
        figure.set_size_inches(4.3, strip_inches + ecdf_inches)
        strips, curves = figure.subplots(2, 1, height_ratios=(strip_inches, ecdf_inches))
    else:
        figure.set_size_inches(9.8, max(2.7, strip_inches))
        strips, curves = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_strips(strips, sessions)
    _draw_curves(curves, sessions)
    for axes in (strips, curves):
        if stats.sessions > 1:
            axes.axvspan(stats.headline_low_ms, min(stats.headline_high_ms, limits[1]), color=BAND, alpha=0.28, lw=0)
        axes.set_xlim(*limits)
        axes.set_xlabel("latency (ms)")


def _draw_strips(axes: Any, sessions: Sequence[Samples]) -> None:
    for row, samples in enumerate(sessions):
        places, drawn = _thin(samples, MAX_POINTS)
        heights = row - 0.32 + 0.64 * places / max(1, len(samples) - 1)
        _dots(axes, drawn, heights)
        p10, p50, p90 = (float(np.percentile(samples, q)) for q in (10, 50, 90))
        axes.plot([p10, p90], [row, row], "-", color=INK, lw=1.0)
        axes.plot([p10, p10], [row - 0.36, row + 0.36], "-", color=MARK, lw=2.2)
        axes.plot([p50], [row], "o", color=INK, ms=4)
    step = max(1, len(sessions) // 16 + (len(sessions) % 16 > 0)) if len(sessions) > 16 else 1
    shown = range(0, len(sessions), step)
    axes.set_yticks(list(shown), [f"session {row + 1}" for row in shown])
    axes.set_ylim(len(sessions) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _dots(axes: Any, x: Samples, y: Samples) -> None:
    # One path of short round strokes: a marker each would make the page ten times as large.
    gap = np.full(len(x), np.nan)
    step = 1e-6 * max(float(x.max()), 1e-9)
    axes.plot(
        np.column_stack([x, x + step, gap]).ravel(),
        np.column_stack([y, y, gap]).ravel(),
        "-",
        color=ACCENT,
        lw=2.2,
        alpha=0.6,
        solid_capstyle="round",
    )


def _draw_curves(axes: Any, sessions: Sequence[Samples]) -> None:
    for samples in sessions:
        count = min(MAX_QUANTILES, len(samples))
        shares = np.linspace(0.0, 1.0, count) if count > 1 else np.array([1.0])
        axes.plot(np.quantile(samples, shares), shares, "-", color=ACCENT, lw=1.4, alpha=0.75)
    axes.axhline(0.1, color=MARK, lw=1.0, ls="--")
    axes.set_ylim(0.0, 1.0)
    axes.set_yticks([0.1, 0.5, 0.9], ["p10", "p50", "p90"])
    axes.set_ylabel("share of inferences")
    axes.grid(axis="y", color=BAND, alpha=0.3, lw=0.6)


def _draw_overview(figure: Any, stats: Sequence[LatencyStats], narrow: bool) -> None:
    figure.set_size_inches(4.3 if narrow else 9.8, 0.9 + 0.36 * len(stats))
    axes = figure.subplots()
    for row, figures in enumerate(stats):
        if figures.p10_ms is not None and figures.p90_ms is not None:
            axes.plot([figures.p10_ms, figures.p90_ms], [row, row], "-", color=ACCENT, lw=5, alpha=0.45)
        if figures.p50_ms is not None:
            axes.plot([figures.p50_ms], [row], "o", color=INK, ms=4.5)
        axes.plot([figures.headline_ms] * 2, [row - 0.3, row + 0.3], "-", color=MARK, lw=2.4)
        if figures.sessions > 1:
            ends = [
                figures.headline_low_ms,
                min(figures.headline_high_ms, 2 * max(s.p90_ms or s.headline_ms for s in stats)),
            ]
            axes.plot(ends, [row, row], "-", color=MARK, lw=1.4)
    axes.set_yticks(range(len(stats)), [str(row + 1) for row in range(len(stats))])
    axes.set_ylim(len(stats) - 0.4, -0.6)
    axes.set_xlim(left=0.0)
    axes.set_xlabel("latency (ms)")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=BAND, alpha=0.3, lw=0.6)


def svg(draw: Any, key: str, alt: str) -> str:
    """Draw a figure as an SVG element of a page.

    Args:
        draw: Called with an empty matplotlib figure.
        key: Prefix of the element ids, unique on the page.
        alt: What a reader who cannot see it is told.

    Raises:
        MissingExtra: If matplotlib is not installed.
    """
    document = _drawn(draw, key, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(document.decode("utf-8"), key, alt)


def png(draw: Any) -> bytes:
    """Draw a figure as a PNG file on white.

    Args:
        draw: Called with an empty matplotlib figure.

    Raises:
        MissingExtra: If matplotlib is not installed.
    """
    return _drawn(draw, "png", format="png", dpi=150, facecolor="white", metadata={"Software": None})


def _drawn(draw: Any, key: str, **options: Any) -> bytes:
    matplotlib = require("matplotlib", "report")
    figures = require("matplotlib.figure", "report")
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_style(key))
        figure = figures.Figure(layout="constrained")
        draw(figure)
        stream = io.BytesIO()
        figure.savefig(stream, **options)
    return stream.getvalue()


def _style(key: str) -> dict[str, Any]:
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    return {
        **dict.fromkeys(inked, INK),
        "svg.hashsalt": key,
        "svg.fonttype": "none",
        "path.simplify": False,
        "font.size": 10.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.7,
    }


def _inline(document: str, key: str, alt: str) -> str:
    """Make a whole SVG document an element of a page: no prolog, no metadata, its ids prefixed, its size fluid."""
    body = document[document.index("<svg") :]
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = _DEFINED_ID.sub(rf'id="{key}-\1"', body)
    body = _USED_ID.sub(rf"\g<1>{key}-\g<2>", body)
    head, _, rest = body.partition(">")
    view = re.search(r'viewBox="([^"]+)"', head)
    box = view.group(1) if view else "0 0 1 1"
    root = (
        f'<svg viewBox="{box}" role="img" aria-label="{escape(alt)}" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return (root + rest).replace(INK, "currentColor").strip()
