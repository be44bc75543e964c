"""Heat of a device over its sessions: the temperature that counts, and what in the readings makes a figure weak."""

from __future__ import annotations

import re
from collections.abc import Sequence

from targets.records import DeviceReading, SessionRecord

MAX_RISE_C = 10.0
"""Rise within one session that is reported, degrees Celsius."""
MAX_START_DIFFERENCE_C = 5.0
"""Difference between the temperatures at which sessions began, degrees Celsius."""
MIN_LIMIT_RATIO = 0.95

_SLOWED = frozenset({"moderate", "severe", "critical", "emergency", "shutdown"})
# Names that vendors give to zones on the chip; batteries and chargers lag minutes behind.
_CHIP = re.compile(
    r"cpu|gpu|npu|soc|tsens|cluster|big|little|mid|^ap$|mtkts|exynos|thermal-fan|junction|tj", re.IGNORECASE
)
_NOT_CHIP = re.compile(r"batt|charg|usb|pmic|modem|wlan|xo|quiet", re.IGNORECASE)


def hottest_c(reading: DeviceReading) -> float | None:
    """The hottest zone on the chip; where none is named so, the hottest of all; ``None`` without any."""
    zones = reading.temperatures_c
    chip = [value for name, value in zones.items() if _CHIP.search(name) and not _NOT_CHIP.search(name)]
    return max(chip or zones.values(), default=None)


def heat_findings(sessions: Sequence[SessionRecord]) -> list[tuple[str, str]]:
    """Reasons and advice, one pair for each way in which heat touched the sessions.

    Args:
        sessions: Of one variant.
    """
    told = [session for session in sessions if session.readings]
    found = [*_throttled(told), *_limited(told)]
    if any(session.settings.mode == "sustained" for session in told):
        return found  # heating up is what a sustained run is there to show
    return [*found, *_rise(told), *_starts(told)]


def _throttled(sessions: Sequence[SessionRecord]) -> list[tuple[str, str]]:
    for session in sessions:
        status = next((r.thermal_status for r in session.readings if r.thermal_status in _SLOWED), None)
        if status:
            text = f"thermal throttling: the device's thermal status was {status} in session {session.index}"
            return [(text, "let the device cool down, away from the sun and out of its case (start_below_c)")]
    return []


def _limited(sessions: Sequence[SessionRecord]) -> list[tuple[str, str]]:
    for session in sessions:
        first = session.readings[0].clocks_mhz
        for later in session.readings:
            for name, limit in later.clocks_mhz.items():
                # Already held down at the start, or taken down while it ran.
                top = max(first.get(name, 0.0), first.get(name.replace(" limit", " top"), 0.0))
                if name.endswith(" limit") and top and limit < MIN_LIMIT_RATIO * top:
                    text = (
                        f"thermal throttling: the system held {name.removesuffix(' limit')} to {limit:.0f} of "
                        f"{top:.0f} MHz in session {session.index}"
                    )
                    return [(text, "let the device cool down and switch off its power saving")]
    return []


def _rise(sessions: Sequence[SessionRecord]) -> list[tuple[str, str]]:
    for session in sessions:
        values = [value for value in map(hottest_c, session.readings) if value is not None]
        if values and max(values) - values[0] > MAX_RISE_C:
            text = f"heat: the chip rose from {values[0]:.0f} to {max(values):.0f} °C in session {session.index}"
            return [(text, "measure shorter sessions (--seconds), or ask for sustained mode if that is what is meant")]
    return []


def _starts(sessions: Sequence[SessionRecord]) -> list[tuple[str, str]]:
    starts = [value for value in (hottest_c(session.readings[0]) for session in sessions) if value is not None]
    if len(starts) > 1 and max(starts) - min(starts) > MAX_START_DIFFERENCE_C:
        text = f"heat: sessions began at chip temperatures from {min(starts):.0f} to {max(starts):.0f} °C"
        return [(text, "give the device longer to cool down between sessions (cool_down_s, start_below_c)")]
    return []
