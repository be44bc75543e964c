"""What else the device did while a session ran: the same counters as :mod:`targets.host`, on the device."""

import os
import resource
import time
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

_PROC = Path("/proc")
_SYS = Path("/sys")


def read_text(path: Path) -> Optional[str]:
    """A small file, or nothing where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(65536).decode("utf-8", "replace")
    except (OSError, ValueError):
        return None


def _cpu_seconds() -> Tuple[Optional[float], Optional[float]]:
    text = read_text(_PROC / "stat")
    fields = text.split("\n", 1)[0].split() if text else []
    if len(fields) < 9 or fields[0] != "cpu":
        return None, None
    user, nice, system, _idle, _wait, irq, softirq, steal = (int(field) for field in fields[1:9])
    ticks = float(os.sysconf("SC_CLK_TCK"))
    return (user + nice + system + irq + softirq) / ticks, steal / ticks


def _pressure_seconds() -> Optional[float]:
    text = read_text(_PROC / "pressure" / "cpu")
    for field in (text or "").split("\n", 1)[0].split():
        if field.startswith("total="):
            return int(field[len("total=") :]) / 1e6
    return None


def clock_mhz() -> Optional[float]:
    """Clock of the first core in MHz, or nothing where the device hides it."""
    text = read_text(_SYS / "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    return int(text) / 1000.0 if text and text.strip().isdigit() else None


def temperature_c() -> Optional[float]:
    """Hottest thermal zone in degrees Celsius, or nothing where there is none."""
    readings = [read_text(zone / "temp") for zone in sorted((_SYS / "class/thermal").glob("thermal_zone*"))]
    values = [int(text) / 1000.0 for text in readings if text and text.strip().lstrip("-").isdigit()]
    return max(values) if values else None


class HostWatch:
    """Differences of the device's counters over a stretch of time.

    Args:
        who: Whose CPU time counts as the session's own: this process, or the tools it started and that ended.
    """

    def __init__(self, who: int = resource.RUSAGE_SELF) -> None:
        self._who = who
        self._clock_before = clock_mhz()
        self._start = self._now()

    def _now(self) -> Dict[str, Any]:
        usage = resource.getrusage(self._who)
        busy_s, steal_s = _cpu_seconds()
        return {
            "wall_s": time.monotonic(),
            "own_s": usage.ru_utime + usage.ru_stime,
            "busy_s": busy_s,
            "steal_s": steal_s,
            "pressure_s": _pressure_seconds(),
            "switches": usage.ru_nivcsw,
        }

    def snapshot(self) -> Dict[str, Any]:
        """What happened since the start: ``host`` as the host's own record, and ``cpu_per_wall``."""
        start, now = self._start, self._now()
        wall_s = max(now["wall_s"] - start["wall_s"], 1e-9)
        own_s = now["own_s"] - start["own_s"]

        def share(key: str, own: float = 0.0) -> Optional[float]:
            if start[key] is None or now[key] is None:
                return None
            return float(max(0.0, (now[key] - start[key] - own) / wall_s))

        host = {
            "other_cpu_share": share("busy_s", own_s),
            "steal_share": share("steal_s"),
            "cpu_pressure_share": share("pressure_s"),
            "load_1min": os.getloadavg()[0],
            "involuntary_switches": now["switches"] - start["switches"],
            "clock_mhz_before": self._clock_before,
            "clock_mhz_after": clock_mhz(),
            "temperature_c": temperature_c(),
        }
        return {"host": host, "cpu_per_wall": own_s / wall_s}


def peak_rss_mb(who: int = resource.RUSAGE_SELF) -> float:
    """Peak resident memory, MiB; of this process the kernel's own mark, for ``ru_maxrss`` begins with its parent's."""
    if who == resource.RUSAGE_SELF:
        for line in (read_text(_PROC / "self" / "status") or "").splitlines():
            fields = line.split()
            if len(fields) == 3 and fields[0] == "VmHWM:" and fields[1].isdigit():
                return int(fields[1]) / 1024.0
    return resource.getrusage(who).ru_maxrss / 1024.0
