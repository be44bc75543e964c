"""What else the host did while a session ran: other load, steal, clocks, heat."""

from __future__ import annotations

import os
import re
import resource
import time
from dataclasses import dataclass
from pathlib import Path

from targets.records import HostSnapshot

_PROC = Path("/proc")
_SYS = Path("/sys")


@dataclass(frozen=True)
class _Counters:
    wall_s: float
    own_cpu_s: float
    busy_s: float | None
    steal_s: float | None
    pressure_s: float | None
    involuntary_switches: int


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None


def _cpu_seconds() -> tuple[float, float] | tuple[None, None]:
    """Busy and stolen seconds of all cores since boot, or nothing where the kernel does not tell."""
    text = _read(_PROC / "stat")
    fields = text.split("\n", 1)[0].split() if text else []
    if len(fields) < 9 or fields[0] != "cpu":
        return None, None
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(f) for f in fields[1:9])
    ticks = float(os.sysconf("SC_CLK_TCK"))
    return (user + nice + system + irq + softirq) / ticks, steal / ticks


def _pressure_seconds() -> float | None:
    text = _read(_PROC / "pressure" / "cpu")
    for field in (text or "").split("\n", 1)[0].split():
        if field.startswith("total="):
            return int(field.removeprefix("total=")) / 1e6
    return None


def _counters() -> _Counters:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    busy_s, steal_s = _cpu_seconds()
    return _Counters(
        wall_s=time.monotonic(),
        own_cpu_s=usage.ru_utime + usage.ru_stime,
        busy_s=busy_s,
        steal_s=steal_s,
        pressure_s=_pressure_seconds(),
        involuntary_switches=usage.ru_nivcsw,
    )


def clock_mhz() -> float | None:
    """Clock of the first core in MHz, or ``None`` where the host hides it."""
    text = _read(_SYS / "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    return int(text) / 1000 if text and text.strip().isdigit() else None


def temperature_c() -> float | None:
    """Hottest thermal zone in degrees Celsius, or ``None`` where there is none."""
    readings = [_read(zone / "temp") for zone in sorted((_SYS / "class/thermal").glob("thermal_zone*"))]
    values = [int(r) / 1000 for r in readings if r and r.strip().lstrip("-").isdigit()]
    return max(values, default=None)


def peak_rss_mb() -> float:
    """Peak resident memory of this process in MiB.

    From the kernel's own high-water mark: ``ru_maxrss`` begins with that of the process it was started from.
    """
    text = _read(_PROC / "self" / "status") or ""
    found = re.search(r"^VmHWM:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) / 1024 if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class HostWatch:
    """Differences of the host's counters over a stretch of time; use from the measuring process."""

    def __init__(self) -> None:
        self._clock_before = clock_mhz()
        self._start = _counters()

    @property
    def own_cpu_per_wall(self) -> float:
        """CPU time of this process over wall time since the start: the threads it really used."""
        now = _counters()
        return (now.own_cpu_s - self._start.own_cpu_s) / max(now.wall_s - self._start.wall_s, 1e-9)

    def snapshot(self) -> HostSnapshot:
        """What happened since the start; figures the host does not give are absent, not zero."""
        start, now = self._start, _counters()
        wall_s = max(now.wall_s - start.wall_s, 1e-9)

        def share(before: float | None, after: float | None, own_s: float = 0.0) -> float | None:
            if before is None or after is None:
                return None
            return max(0.0, (after - before - own_s) / wall_s)

        return HostSnapshot(
            other_cpu_share=share(start.busy_s, now.busy_s, now.own_cpu_s - start.own_cpu_s),
            steal_share=share(start.steal_s, now.steal_s),
            cpu_pressure_share=share(start.pressure_s, now.pressure_s),
            load_1min=os.getloadavg()[0],
            involuntary_switches=now.involuntary_switches - start.involuntary_switches,
            clock_mhz_before=self._clock_before,
            clock_mhz_after=clock_mhz(),
            temperature_c=temperature_c(),
        )
