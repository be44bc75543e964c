"""Before a session: enough charge, and a phone that has cooled down, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

from targets.errors import DeviceUnavailable
from targets.heat import hottest_c
from targets.inventory import Device
from targets.records import DeviceReading

WITHIN_C = 2.0
"""How near to the first session's temperature a session may begin where ``start_below_c`` is not set."""
POLL_S = 5.0


def check_charge(device: Device, reading: DeviceReading) -> None:
    """Refuse to measure on a phone that saves power.

    Raises:
        DeviceUnavailable: If its charge is below ``min_battery_percent``.
    """
    percent = reading.battery_percent
    if percent is not None and percent < device.min_battery_percent:
        raise DeviceUnavailable(
            f"device {device.name!r} has {percent:.0f} % charge and measuring needs {device.min_battery_percent:.0f} %",
            "Charge it, or lower min_battery_percent in the inventory.",
        )


def cool_down(
    device: Device,
    read: Callable[[], DeviceReading],
    first_c: float | None,
    *,
    on_wait: Callable[[str], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> DeviceReading:
    """Wait until the phone is cool enough for a session, or until the deadline.

    Args:
        device: Says how cool (``start_below_c``) and how long to wait (``cool_down_s``).
        read: Reads the phone's state.
        first_c: Temperature at which the first session began; without ``start_below_c`` later ones begin within
            2 °C of it.
        on_wait: Told in a sentence what is waited for.
        sleep: Waits so many seconds.
        clock: Seconds that only go forward.

    Returns:
        The last reading. Where a phone does not come back to its first temperature in time, the session goes on and
        its readings make the measurement weak.

    Raises:
        DeviceUnavailable: If the charge is too low, or the phone is not below ``start_below_c`` in time.
    """
    limit = device.start_below_c
    below = limit if limit is not None else None if first_c is None else first_c + WITHIN_C
    deadline = clock() + device.cool_down_s
    while True:
        reading = read()
        check_charge(device, reading)
        now_c = hottest_c(reading)
        if now_c is None or below is None or now_c <= below:
            return reading
        left_s = deadline - clock()
        if left_s <= 0:
            break
        if on_wait is not None:
            on_wait(f"{device.name} cools down: {now_c:.0f} °C, waiting for {below:.0f} °C ({left_s:.0f} s left)")
        sleep(min(POLL_S, left_s))
    if limit is not None:
        raise DeviceUnavailable(
            f"device {device.name!r} is still at {now_c:.0f} °C after {device.cool_down_s:.0f} s",
            f"Let it cool below {limit:.0f} °C, raise start_below_c, or give it longer (cool_down_s).",
        )
    return reading
