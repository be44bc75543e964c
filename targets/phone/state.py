"""State of a phone, read in one round trip: charge, screen, temperatures, thermal status, clocks and governors.

An unrooted phone shows only a part of it and lets nothing be set; what is missing is said in a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

from targets.errors import FailureKind, SessionFailed, printable
from targets.records import DeviceReading
from targets.transports.base import Transport

Phase = Literal["before", "during", "after"]

#: Android's words for its thermal status (``PowerManager.THERMAL_STATUS_*``), by number.
THERMAL_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")

_TIMEOUT_S = 30.0
_MOST_ENTRIES = 128
_COLDEST_C, _HOTTEST_C = -30.0, 150.0
_CORE = re.compile(r"cpu[0-9]{1,4} ")
_SECTION = re.compile(r"@@([a-z]{2,12})")

# Only builtins read files: a process for each of a hundred of them would heat the phone that is being read.
STATE_SCRIPT = r"""
root=$1
PATH=$root/system/bin:$PATH
first() { line=; { read -r line < "$1"; } 2>/dev/null; printf '%s' "$line"; }
echo @@date; date +%s
echo @@user; id -u
echo @@battery; dumpsys battery 2>/dev/null
echo @@screen; dumpsys power 2>/dev/null | grep -E 'mWakefulness=|Display Power: state=' | head -n 4
echo @@thermal; dumpsys thermalservice 2>/dev/null | head -n 80
echo @@zones
for zone in "$root"/sys/class/thermal/thermal_zone*; do
  [ -d "$zone" ] && echo "$(first "$zone/temp") ${zone##*/} $(first "$zone/type")"
done
echo @@cores
for core in "$root"/sys/devices/system/cpu/cpu[0-9]*; do
  clock=$core/cpufreq
  [ -d "$clock" ] || continue
  echo "${core##*/} cur=$(first "$clock/scaling_cur_freq") limit=$(first "$clock/scaling_max_freq")" \
    "top=$(first "$clock/cpuinfo_max_freq") low=$(first "$clock/scaling_min_freq")" \
    "gov=$(first "$clock/scaling_governor")"
done
echo @@gpu
for file in "$root"/sys/class/kgsl/kgsl-3d0/gpuclk "$root"/sys/class/devfreq/*gpu*/cur_freq \
  "$root"/sys/class/devfreq/*mali*/cur_freq "$root"/sys/class/devfreq/*kgsl*/cur_freq \
  "$root"/sys/kernel/gpu/gpu_clock "$root"/sys/class/misc/mali0/device/clock; do
  [ -r "$file" ] && echo "$(first "$file")"
done
echo @@end
"""


def read_state(transport: Transport, phase: Phase, *, root: str = "", gpu: bool = False) -> DeviceReading:
    """Read the phone's state now.

    Args:
        transport: The way to the phone.
        phase: Before, during or after the timed part.
        root: Folder that stands for the phone's ``/``, for tests.
        gpu: Whether the GPU is what computes, so that its clock is missed where it cannot be read.

    Raises:
        SessionFailed: If the phone does not answer.
    """
    done = transport.run(["sh", "-c", STATE_SCRIPT, "sh", root], timeout_s=_TIMEOUT_S)
    return parse_state(done.stdout.decode("utf-8", "replace"), phase, gpu=gpu)


def parse_state(text: str, phase: Phase, *, gpu: bool = False) -> DeviceReading:
    """Turn what the script printed into a reading.

    Args:
        text: Output of :data:`STATE_SCRIPT`.
        phase: Before, during or after the timed part.
        gpu: Whether the GPU computes.

    Raises:
        SessionFailed: If the output is not whole.
    """
    parts = _sections(text)
    if "end" not in parts:
        raise SessionFailed("the phone's state cannot be read: the answer is cut off", FailureKind.TOOL_ERROR)
    battery = dict(_pairs(parts["battery"]))
    temperatures = _zones(parts["zones"])
    warmth = _number(battery.get("temperature", ""))
    if warmth is not None and _plausible(warmth / 10):
        temperatures["battery"] = warmth / 10
    lines = [line.split() for line in parts["cores"] if _CORE.match(line)]
    names = [words[0] for words in lines]
    cores = [dict(word.split("=", 1) for word in words[1:] if "=" in word) for words in lines]
    status = next((match for match in map(re.compile(r"Thermal Status: (\d)").search, parts["thermal"]) if match), None)
    governors = {name: printable(core["gov"], 40) for name, core in zip(names, cores, strict=True) if core.get("gov")}
    clocks = _clocks(names, cores, parts["gpu"])
    thermal = THERMAL_STATUS[int(status[1])] if status and int(status[1]) < len(THERMAL_STATUS) else None
    return DeviceReading(
        at=_time(parts["date"]),
        phase=phase,
        temperatures_c=temperatures,
        clocks_mhz=clocks,
        governors=governors,
        battery_percent=_percent(battery),
        charging=_charging(battery),
        screen_on=_screen(parts["screen"]),
        thermal_status=thermal,
        clocks_locked=_locked(cores) if governors else None,
        unknown=tuple(_unknown(parts, battery, temperatures, clocks, governors, thermal, gpu)),
    )


def _sections(text: str) -> dict[str, list[str]]:
    known = ("date", "user", "battery", "screen", "thermal", "zones", "cores", "gpu")
    parts: dict[str, list[str]] = {name: [] for name in known}
    current: list[str] = []
    for line in text.replace("\r", "").split("\n"):
        found = _SECTION.fullmatch(line)
        if found:
            current = parts.setdefault(found[1], [])
        elif line.strip() and len(current) < _MOST_ENTRIES:
            current.append(line)
    return parts


def _pairs(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Lines of the form ``name: value``, the first of a name."""
    seen = set()
    for line in lines:
        name, colon, value = line.strip().partition(":")
        if colon and name not in seen:
            seen.add(name)
            yield name, value.strip()


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,6})?", text) else None


def _plausible(celsius: float) -> bool:
    return _COLDEST_C < celsius < _HOTTEST_C


def _zones(lines: list[str]) -> dict[str, float]:
    """Temperatures by zone. Kernels give thousandths, some vendors tenths or whole degrees; a dead sensor reads 0."""
    found: dict[str, float] = {}
    for line in lines:
        words = line.split(maxsplit=2)
        value = _number(words[0]) if len(words) >= 2 else None
        if value is None or not value:
            continue
        celsius = value / 1000 if abs(value) > 1000 else value / 10 if abs(value) > 150 else value
        name = printable(words[2] if len(words) == 3 else words[1], 40)
        if _plausible(celsius):
            found[name if name not in found else f"{name} ({printable(words[1], 40)})"] = celsius
    return found


def _clocks(names: list[str], cores: list[dict[str, str]], gpu: list[str]) -> dict[str, float]:
    """Clocks in MHz: ``cpu0``, its present limit as ``cpu0 limit``, its highest as ``cpu0 top``, and ``gpu``."""
    clocks = {}
    for name, core in zip(names, cores, strict=True):
        for key, label in (("cur", name), ("limit", f"{name} limit"), ("top", f"{name} top")):
            value = _number(core.get(key, ""))
            if value:
                clocks[label] = value / 1000
    value = next((number for number in map(_number, gpu) if number), None)
    if value:  # hertz, kilohertz or megahertz, as the driver likes
        clocks["gpu"] = value / 1e6 if value > 1e7 else value / 1e3 if value > 1e4 else value
    return clocks


def _percent(battery: dict[str, str]) -> float | None:
    level, scale = _number(battery.get("level", "")), _number(battery.get("scale", "100"))
    percent = 100 * level / scale if level is not None and scale else None
    return percent if percent is not None and 0 <= percent <= 100 else None


def _charging(battery: dict[str, str]) -> bool | None:
    powered = [value for name, value in battery.items() if name.endswith(" powered")]
    return "true" in powered if powered else None


def _screen(lines: list[str]) -> bool | None:
    text = "\n".join(lines)
    state = re.search(r"Display Power: state=([A-Z_]{2,20})", text)
    if state:
        return state[1] not in {"OFF", "DOZE", "DOZE_SUSPEND"}
    awake = re.search(r"mWakefulness=([A-Za-z]{2,20})", text)
    return awake[1] == "Awake" if awake else None


def _locked(cores: list[dict[str, str]]) -> bool:
    return all(
        core.get("gov") == "performance" or (core.get("low") and core["low"] == core.get("limit")) for core in cores
    )


def _time(lines: list[str]) -> datetime:
    seconds = _number(lines[0]) if lines else None
    if seconds is None or not 0 < seconds < 4e9:
        return datetime.now(UTC)
    return datetime.fromtimestamp(seconds, UTC)


def _unknown(
    parts: dict[str, list[str]],
    battery: dict[str, str],
    temperatures: dict[str, float],
    clocks: dict[str, float],
    governors: dict[str, str],
    thermal: str | None,
    gpu: bool,
) -> Iterator[str]:
    if parts["user"] != ["0"]:
        yield "The phone is not rooted: its clocks, governors and screen were left as they were."
    missing = {
        "the charge": _percent(battery) is not None,
        "whether it is charging": _charging(battery) is not None,
        "whether the screen is on": _screen(parts["screen"]) is not None,
        "the thermal zones": bool(set(temperatures) - {"battery"}),
        "the thermal status": thermal is not None,
        "the core clocks": any(name.startswith("cpu") for name in clocks),
        "the frequency governors": bool(governors),
        "the GPU's clock": not gpu or "gpu" in clocks,
    }
    hidden = [name for name, there in missing.items() if not there]
    if hidden:
        yield f"The phone does not tell {', '.join(hidden)}."
