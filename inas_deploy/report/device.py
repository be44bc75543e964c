"""What a report tells of a phone or board: what it is, the state it was in, and how warm it got."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np

from inas_deploy.report import text
from inas_deploy.report.plots import BAND, MARK, Plot, svg
from targets.heat import hottest_c
from targets.records import DeviceReading, Measurement, SessionRecord

READING_COLUMNS = ("session", "when", "hottest °C", "clocks MHz", "governor", "battery", "power mW", "thermal", "mode")
_FEWEST_POINTS = 3
_WINDOW_S = 60.0  # of a sustained run, at its begin and at its end
_FEWEST_SAMPLES = 5


def facts(measurement: Measurement) -> list[tuple[str, str]]:
    """What the device said of itself, one row a fact; empty for this host."""
    return text.merged(session.device for session in measurement.sessions if session.device)


def reading_rows(measurement: Measurement) -> list[tuple[str, ...]]:
    """One row a reading, in the order of ``READING_COLUMNS``; of those taken during a session only the warmest."""
    rows = []
    for session in measurement.sessions:
        during = [reading for reading in session.readings if reading.phase == "during"]
        shown = [r for r in session.readings if r.phase != "during" or r is _warmest(during)]
        rows += [_cells(session, reading) for reading in shown]
    return rows


def remarks(measurement: Measurement) -> list[str]:
    """What could not be read or controlled, and the energy an inference took, one sentence each."""
    found = dict.fromkeys(note for s in measurement.sessions for r in s.readings for note in r.unknown)
    energies = [s.energy_mj for s in measurement.sessions if s.energy_mj is not None]
    if energies:
        middle = sorted(energies)[len(energies) // 2]
        found[f"Energy of one inference: {text.latency(middle)} mJ (median of {len(energies)} sessions)"] = None
    return [text.sentence(note) for note in found]


def sustained_notes(measurement: Measurement) -> list[str]:
    """What a sustained run is there to show, and what one session leaves open; nothing for other runs."""
    if measurement.variant.settings.mode != "sustained" or not measurement.sessions:
        return []
    longest = max(measurement.sessions, key=_timed_s)
    seconds = _timed_s(longest)
    course = [c for c in map(hottest_c, longest.readings) if c is not None]
    if len(course) > 1:
        line = f"temperature {course[0]:.1f} to {course[-1]:.1f} °C (highest {max(course):.1f}) over {_span(seconds)}"
    else:
        line = f"the device tells no temperature; {_span(seconds)} were timed"
    window_s = min(_WINDOW_S, seconds / 5)
    change = _change(longest.samples_ns, window_s)
    if change is not None:
        line += f"; the last {_span(window_s)} took {text.signed_percent(change)} against the first (median)"
    alone = "one session: the spread between processes is not known"
    return [text.sentence(f"sustained: {line}"), *([text.sentence(alone)] if len(measurement.sessions) == 1 else [])]


def _timed_s(session: SessionRecord) -> float:
    taken_s = sum(session.samples_ns) / 1e9
    return taken_s or (session.finished_at - session.started_at).total_seconds()


def _span(seconds: float) -> str:
    if seconds > 90:
        return f"{seconds / 60:.1f} min".replace(".0 ", " ")
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def _change(samples_ns: Sequence[int], window_s: float) -> float | None:
    """Median of the last seconds over that of the first, minus 1; ``None`` where too few were timed."""
    taken = np.asarray(samples_ns, dtype=np.float64)
    ends_s = np.cumsum(taken) / 1e9
    if not taken.size:
        return None
    first, last = taken[ends_s <= window_s], taken[ends_s > ends_s[-1] - window_s]
    if min(first.size, last.size) < _FEWEST_SAMPLES:
        return None
    return float(np.median(last) / np.median(first) - 1)


def temperature_trace(measurement: Measurement, key: str) -> Plot | None:
    """Draw the hottest zone over the time of the longest session; ``None`` where too little was read.

    Args:
        measurement: Gives the readings.
        key: Prefix of the element ids, unique on the page.

    Raises:
        MissingExtra: If matplotlib is not installed.
    """
    traces = [
        [(r.at, max(r.temperatures_c.values())) for r in s.readings if r.temperatures_c] for s in measurement.sessions
    ]
    longest = max(traces, key=len, default=[])
    if len(longest) < _FEWEST_POINTS:
        return None
    first, last = longest[0][1], longest[-1][1]
    alt = f"Hottest thermal zone, {len(longest)} readings: from {first:.1f} to {last:.1f} degrees Celsius."
    wide, narrow = (
        svg(lambda figure, n=narrow: _draw(figure, longest, n), f"{key}{suffix}", alt)
        for suffix, narrow in (("w", False), ("n", True))
    )
    return Plot(wide, narrow, alt)


def _warmest(readings: Sequence[DeviceReading]) -> DeviceReading | None:
    return max(readings, key=lambda r: max(r.temperatures_c.values(), default=0.0), default=None)


def _cells(session: SessionRecord, reading: DeviceReading) -> tuple[str, ...]:
    def joined(values: dict[str, float]) -> str:
        return ", ".join(f"{text.clean(name)} {value:,.0f}" for name, value in sorted(values.items())) or text.HIDDEN

    charge = text.HIDDEN if reading.battery_percent is None else f"{reading.battery_percent:.0f} %"
    if reading.charging:
        charge += ", charging"
    warmest = max(reading.temperatures_c.values(), default=None)
    return (
        str(session.index + 1),
        reading.phase,
        text.HIDDEN if warmest is None else f"{warmest:.1f}",
        joined(reading.clocks_mhz),
        ", ".join(sorted({text.clean(name) for name in reading.governors.values()})) or text.HIDDEN,
        charge,
        joined(reading.power_mw),
        text.clean(reading.thermal_status or text.HIDDEN),
        text.clean(reading.power_mode or text.HIDDEN),
    )


def _draw(figure: Any, trace: Sequence[tuple[datetime, float]], narrow: bool) -> None:
    figure.set_size_inches(4.3 if narrow else 9.8, 2.4)
    axes = figure.subplots()
    begin = trace[0][0]
    seconds = [(at - begin).total_seconds() for at, _ in trace]
    axes.plot(seconds, [value for _, value in trace], "-o", color=MARK, lw=1.6, ms=3)
    axes.set_xlabel("time (s)")
    axes.set_ylabel("hottest zone (°C)")
    axes.grid(axis="y", color=BAND, alpha=0.3, lw=0.6)
