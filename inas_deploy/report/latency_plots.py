"""Pictures of a latency report: predicted against measured, errors by kind of block, latency over channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from inas_deploy.report import text
from inas_deploy.report.latency_data import BlockErrors, Floats, LatencyReport, NetworkErrors, Staircase
from inas_deploy.report.latency_figures import by_kind, error_figures, judged
from inas_deploy.report.plots import ACCENT, BAND, INK, MARK, Plot, png, svg

NAMES = ("blocks", "kinds", "networks", "staircases")
MAX_DOTS = 3000
MAX_STAIRCASES = 12
_NEAR = 0.10
_MAX_LABEL = 48
_COLOURS = (ACCENT, MARK, "#2b9a66", "#a557b8", "#b58a00", "#c94f7c", "#4f9da6", "#7a7f87")
_COLUMNS = {False: 3, True: 1}

Drawing = tuple[Callable[[Any, bool], None], str, str]
"""Draws on a figure, wide or narrow; what it shows in words; what it leaves out."""


def drawings(report: LatencyReport) -> dict[str, Drawing]:
    """What can be drawn of a report, by name: those of ``NAMES`` that there is something to draw for."""
    found: dict[str, Drawing] = {}
    if report.blocks is not None and len(report.blocks.kind):
        found["blocks"] = _blocks(report.blocks, report.least_us)
        if judged(report.blocks, report.least_us):
            found["kinds"] = _kinds(report.blocks, report)
    if report.networks is not None and len(report.networks.name):
        found["networks"] = _networks(report.networks)
    if report.staircases:
        found["staircases"] = _staircases(report.staircases)
    return found


def plot(drawing: Drawing, key: str) -> Plot:
    """One of :func:`drawings` in two widths, for a page.

    Args:
        drawing: What to draw.
        key: Prefix of the element ids, unique on the page.

    Raises:
        MissingExtra: If matplotlib is not installed.
    """
    draw, alt, note = drawing
    drawn = [
        svg(lambda figure, n=narrow: draw(figure, n), f"{key}{suffix}", alt)
        for suffix, narrow in (("w", False), ("n", True))
    ]
    return Plot(drawn[0], drawn[1], alt, note)


def picture(drawing: Drawing) -> bytes:
    """One of :func:`drawings` as a PNG file.

    Raises:
        MissingExtra: If matplotlib is not installed.
    """
    return png(lambda figure: drawing[0](figure, False))


def _blocks(blocks: BlockErrors, least_us: float) -> Drawing:
    kinds = sorted(set(blocks.kind))
    found = judged(blocks, least_us)
    figures = (
        f"mean absolute error {text.percent(found.mape)}, {text.percent(found.within_10)} within 10 % "
        f"for the {found.count} of at least {least_us:g} microseconds"
        if found
        else f"none of at least {least_us:g} microseconds"
    )
    alt = f"Predicted against measured latency of {len(blocks.kind)} blocks of {len(kinds)} kinds: {figures}."
    shown = np.unique(np.linspace(0, len(blocks.kind) - 1, min(MAX_DOTS, len(blocks.kind))).round().astype(int))
    kind_of = np.asarray(blocks.kind, dtype=object)[shown]
    places_of = {kind: shown[kind_of == kind] for kind in kinds}
    error_of = 100 * (blocks.predicted_us / blocks.measured_us - 1)
    reach = max(1.5 * 100 * _NEAR, float(np.percentile(np.abs(error_of), 99)))
    beyond = int(np.sum(np.abs(error_of) > reach))
    notes = [f"{len(shown):,} of {len(blocks.kind):,} blocks are drawn."] if len(shown) < len(blocks.kind) else []
    notes += [f"{beyond:,} with a larger error lie beyond the lower panel."] if beyond else []

    def draw(figure: Any, narrow: bool) -> None:
        figure.set_size_inches(4.3 if narrow else 8.2, 7.0 if narrow else 7.6)
        both, error = figure.subplots(2, 1, height_ratios=(5, 3), sharex=True)
        ends = _diagonal(both, (blocks.measured_us, blocks.predicted_us), log=True)
        error.axhspan(-100 * _NEAR, 100 * _NEAR, color=BAND, alpha=0.25, lw=0)
        error.axhline(0.0, color=INK, lw=0.8)
        for number, (kind, places) in enumerate(places_of.items()):
            colour = _COLOURS[number % len(_COLOURS)]
            _dots(both, blocks.measured_us[places], blocks.predicted_us[places], colour, _plain(kind))
            _dots(error, blocks.measured_us[places], error_of[places], colour, _plain(kind))
        for axes in (both, error):
            if ends[0] < least_us < ends[1]:
                axes.axvline(least_us, color=BAND, lw=1.0, ls=":")
        both.set_ylabel("predicted (µs)")
        error.set_xlabel("measured (µs)")
        error.set_ylabel("error (%)")
        error.set_ylim(-reach, reach)
        both.legend(frameon=False, loc="upper left", fontsize=8.5)

    return draw, alt, " ".join(notes)


def _kinds(blocks: BlockErrors, report: LatencyReport) -> Drawing:
    rows = [(kind, figures) for kind, figures, _ in by_kind(blocks, report.least_us) if figures]
    said = "; ".join(f"{kind} {text.percent(figures.mape)} of {figures.count}" for kind, figures in rows)
    floor = report.noise_floor
    alt = f"Mean absolute error by kind of block: {text.clean(said)}."
    alt += f" Noise floor {text.percent(floor)}." if floor is not None else ""

    def draw(figure: Any, narrow: bool) -> None:
        figure.set_size_inches(4.3 if narrow else 8.2, 0.9 + 0.36 * len(rows))
        axes = figure.subplots()
        places = np.arange(len(rows))
        axes.barh(places, [100 * figures.mape for _, figures in rows], height=0.55, color=ACCENT)
        axes.plot([100 * figures.p90 for _, figures in rows], places, "|", color=MARK, ms=13, mew=2.4)
        if floor is not None:
            axes.axvline(100 * floor, color=INK, lw=1.0, ls="--")
        axes.set_yticks(places, [_plain(kind) for kind, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(left=0.0)
        axes.set_xlabel("absolute error (%)")
        axes.grid(axis="x", color=BAND, alpha=0.3, lw=0.6)

    return draw, alt, ""


def _networks(networks: NetworkErrors) -> Drawing:
    held_out = ~np.asarray(networks.calibration, dtype=bool)
    columns = (networks.measured_ms, networks.predicted_ms, networks.low_ms, networks.high_ms)
    found = error_figures(*(column[held_out] for column in columns))
    alt = f"Predicted against measured latency of {len(networks.name)} whole networks"
    if found:
        alt += f": mean absolute error {text.percent(found.mape)} for {found.count} that calibration did not use"

    def draw(figure: Any, narrow: bool) -> None:
        figure.set_size_inches(4.3 if narrow else 8.2, 4.6 if narrow else 5.6)
        axes = figure.subplots()
        _diagonal(axes, columns[:2], log=False)
        axes.vlines(networks.measured_ms, networks.low_ms, networks.high_ms, color=ACCENT, lw=1.2, alpha=0.6)
        groups = ((held_out, "o", ACCENT, "not used to calibrate"), (~held_out, "D", MARK, "used to calibrate"))
        for chosen, marker, colour, label in groups:
            if chosen.any():
                measured, predicted = networks.measured_ms[chosen], networks.predicted_ms[chosen]
                axes.plot(measured, predicted, marker, color=colour, ms=4.5, ls="none", label=label)
        axes.set_xlabel("measured (ms)")
        axes.set_ylabel("predicted (ms)")
        axes.legend(frameon=False, loc="upper left")

    return draw, alt + ".", ""


def _staircases(staircases: Sequence[Staircase]) -> Drawing:
    shown = staircases[:MAX_STAIRCASES]
    points = sum(len(s.measured_us) for s in shown)
    alt = f"Latency over channels of {len(shown)} blocks: predicted lines with intervals, {points} measured points."
    left_out = len(staircases) - len(shown)

    def draw(figure: Any, narrow: bool) -> None:
        columns = min(_COLUMNS[narrow], len(shown))
        rows = -(-len(shown) // columns)
        figure.set_size_inches(4.3 if narrow else 3.3 * columns, 2.5 * rows)
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, staircase in zip(grid, shown, strict=False):
            _staircase(axes, staircase)
        for axes in grid[len(shown) :]:
            axes.set_visible(False)

    return draw, alt, f"{left_out} more are left out." if left_out else ""


def _staircase(axes: Any, staircase: Staircase) -> None:
    axes.fill_between(staircase.channels, staircase.low_us, staircase.high_us, color=ACCENT, alpha=0.2, lw=0)
    axes.plot(staircase.channels, staircase.predicted_us, "-", color=ACCENT, lw=1.6)
    axes.plot(staircase.measured_channels, staircase.measured_us, "o", color=MARK, ms=3.5)
    axes.set_title(_plain(staircase.title), fontsize=8.5, wrap=True)
    axes.set_xlabel(_plain(staircase.axis))
    axes.set_ylabel("latency (µs)")
    axes.set_ylim(bottom=0.0)
    axes.grid(color=BAND, alpha=0.3, lw=0.6)


def _diagonal(axes: Any, columns: Sequence[Floats], *, log: bool) -> tuple[float, float]:
    """Equal axes with the line of perfect prediction and the band of 10 % around it; returns their ends."""
    low, high = min(float(c.min()) for c in columns), max(float(c.max()) for c in columns)
    room = 1.15 if log else 1.05
    ends = np.geomspace(low / room, high * room, 64) if log else np.linspace(low / room, high * room, 2)
    if log:
        axes.set_xscale("log")
        axes.set_yscale("log")
    axes.fill_between(ends, ends * (1 - _NEAR), ends * (1 + _NEAR), color=BAND, alpha=0.25, lw=0)
    axes.plot(ends[[0, -1]], ends[[0, -1]], "-", color=INK, lw=0.8)
    axes.set_xlim(ends[0], ends[-1])
    axes.set_ylim(ends[0], ends[-1])
    return float(ends[0]), float(ends[-1])


def _dots(axes: Any, x: Floats, y: Floats, colour: str, label: str) -> None:
    # One path of short round strokes: a marker each would make the page ten times as large.
    gap = np.full(len(x), np.nan)
    across, down = np.column_stack([x, x * 1.0001, gap]).ravel(), np.column_stack([y, y, gap]).ravel()
    axes.plot(across, down, "-", color=colour, lw=3.2, alpha=0.6, solid_capstyle="round", label=label)


def _plain(words: str) -> str:
    """Text that matplotlib neither takes for a formula nor hides (labels after an underscore), and that leaves room."""
    cleaned = text.clean(words)
    cleaned = cleaned if len(cleaned) <= _MAX_LABEL else f"{cleaned[: _MAX_LABEL - 1]}…"
    return f" {cleaned}".replace("$", r"\$") if cleaned.startswith("_") else cleaned.replace("$", r"\$")
