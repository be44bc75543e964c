"""From a device's raw texts to readings: what is not written as known is said to be unknown, never guessed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, cast

from targets.drivers.agent_answer import RawReading, SampledLines
from targets.errors import UnknownLayout, printable
from targets.jetson import Tegrastats, mean_input_mw, parse_clocks_locked, parse_power_mode, parse_tegrastats
from targets.records import DeviceReading

_ZONE = re.compile(r"/sys/class/thermal/thermal_zone(\d{1,3})/(type|temp)")
_CPU = re.compile(r"/sys/devices/system/cpu/(cpu\d{1,4})/cpufreq/(scaling_cur_freq|scaling_governor)")
_DEVFREQ = re.compile(r"/sys/class/devfreq/([^/]{1,64})/(cur_freq|governor)")
_RAIL = re.compile(r"(/sys/bus/i2c/drivers/ina3221[^/]*/[^/]+/iio:device\d+)/(?:rail_name_(\d)|in_power(\d)_input)")
_GPU_DEVICE = re.compile(r"\.(?:gpu|gv11b|gp10b|ga10b|gm20b)$")
_SMI_FIELDS = 7
_ABSENT = {"[N/A]", "N/A", "[Not Supported]", "[Unknown Error]"}


@dataclass
class _Found:
    """What one reading tells; keys are those of DeviceReading."""

    temperatures_c: dict[str, float] = field(default_factory=dict)
    clocks_mhz: dict[str, float] = field(default_factory=dict)
    governors: dict[str, str] = field(default_factory=dict)
    power_mw: dict[str, float] = field(default_factory=dict)
    power_mode: str | None = None
    clocks_locked: bool | None = None
    unknown: list[str] = field(default_factory=list)

    def number(self, place: str, text: str, divisor: float, low: float, high: float) -> float | None:
        """A whole or decimal number in a plausible range; else a sentence in ``unknown``."""
        if re.fullmatch(r"-?\d{1,15}(?:\.\d{1,6})?", text):
            value = float(text) / divisor
            if math.isfinite(value) and low <= value <= high:
                return value
        self.unknown.append(f"{printable(place, 80)} reads {printable(text, 40)!r}.")
        return None


def read_readings(raw: Sequence[RawReading]) -> tuple[DeviceReading, ...]:
    """Readings before, during and after.

    Args:
        raw: As the agent sent them.
    """
    return tuple(_reading(each) for each in raw)


def _reading(raw: RawReading) -> DeviceReading:
    found = _Found()
    _files(raw.files, found)
    for tool, read in (("nvpmodel", _power_mode), ("jetson_clocks", _locked), ("nvidia-smi", _smi)):
        if tool in raw.tools:
            try:
                read(raw.tools[tool], found)
            except UnknownLayout as error:
                found.unknown.append(f"{error.what}.")
    if raw.sampled is not None:
        _sampled(raw.sampled, found)
    if found.clocks_locked is None and found.governors:
        cpus = [governor for part, governor in found.governors.items() if part.startswith("cpu")]
        found.clocks_locked = all(governor == "performance" for governor in cpus) if cpus else None
    told: dict[str, Any] = {**vars(found), "unknown": tuple(found.unknown[:20])}
    return DeviceReading(at=raw.at, phase=cast(Any, raw.phase), **told)


def _power_mode(text: str, found: _Found) -> None:
    found.power_mode = parse_power_mode(text)


def _locked(text: str, found: _Found) -> None:
    found.clocks_locked = parse_clocks_locked(text)


def _files(files: dict[str, str], found: _Found) -> None:
    zones: dict[str, dict[str, str]] = {}
    rails: dict[str, dict[str, str]] = {}
    for path, text in sorted(files.items()):
        if zone := _ZONE.fullmatch(path):
            zones.setdefault(zone[1], {})[zone[2]] = text
        elif cpu := _CPU.fullmatch(path):
            if cpu[2] == "scaling_governor":
                found.governors[cpu[1]] = printable(text, 40)
            elif (mhz := found.number(path, text, 1e3, 0, 20_000)) is not None:
                found.clocks_mhz[cpu[1]] = mhz
        elif part := _DEVFREQ.fullmatch(path):
            name = "gpu" if _GPU_DEVICE.search(part[1]) else printable(part[1], 40)
            if part[2] == "governor":
                found.governors[name] = printable(text, 40)
            elif (mhz := found.number(path, text, 1e6, 0, 20_000)) is not None:
                found.clocks_mhz[name] = mhz
        elif rail := _RAIL.fullmatch(path):
            key = f"{rail[1]}:{rail[2] or rail[3]}"
            rails.setdefault(key, {})["name" if rail[2] else "mw"] = text
    for number, zone_texts in sorted(zones.items()):
        name = printable(zone_texts.get("type", f"zone{number}"), 40)
        name = f"{name}-{number}" if name in found.temperatures_c else name
        degrees = found.number(f"thermal zone {name}", zone_texts.get("temp", "nothing"), 1e3, -60, 200)
        if degrees is not None:
            found.temperatures_c[name] = degrees
    for texts in rails.values():
        if len(texts) == 2 and (mw := found.number(texts["name"], texts["mw"], 1.0, 0, 1e6)) is not None:
            found.power_mw[printable(texts["name"], 40)] = mw


def _smi(text: str, found: _Found) -> None:
    """The first GPU's line of ``nvidia-smi --query-gpu`` with the agent's fields."""
    lines = [line for line in text.splitlines() if line.strip()]
    fields = [part.strip() for part in lines[0].split(",")] if lines else []
    if len(fields) != _SMI_FIELDS:
        raise UnknownLayout(f"nvidia-smi printed {printable(text, 120)!r}")
    for kind, name, value, high in (
        (found.temperatures_c, "gpu", fields[0], 200.0),
        (found.clocks_mhz, "gpu", fields[1], 20_000.0),
        (found.clocks_mhz, "gpu-memory", fields[2], 50_000.0),
    ):
        if value not in _ABSENT and (number := found.number(f"{name} of nvidia-smi", value, 1.0, 0, high)) is not None:
            kind[name] = number
    if fields[3] not in _ABSENT and (watts := found.number("power.draw", fields[3], 1e-3, 0, 1e7)) is not None:
        found.power_mw["gpu"] = watts
    if re.fullmatch(r"P\d{1,2}", fields[4]):
        found.power_mode = fields[4]


def _sampled(sampled: SampledLines, found: _Found) -> None:
    """The hottest of each sensor and the mean of each rail and clock, over the sampled lines."""
    if not sampled.lines:
        found.unknown.append(f"{printable(sampled.tool, 40)} printed nothing meanwhile.")
        return
    try:
        if sampled.tool == "tegrastats":
            lines = [parse_tegrastats(line) for line in sampled.lines]
            seen = [(line.temperatures_c, line.power_mw, _gpu_clock(line)) for line in lines]
        else:
            parts = [_Found() for _ in sampled.lines]
            for line, part in zip(sampled.lines, parts, strict=True):
                _smi(line, part)
            seen = [(part.temperatures_c, part.power_mw, part.clocks_mhz) for part in parts]
    except UnknownLayout as error:
        found.unknown.append(f"{error.what}.")
        return
    for name in {name for temperatures, _, _ in seen for name in temperatures}:
        found.temperatures_c[name] = max(row[0][name] for row in seen if name in row[0])
    for target, column in ((found.power_mw, 1), (found.clocks_mhz, 2)):
        rows = [row[column] for row in seen]
        for name in {name for row in rows for name in row}:
            target[name] = fmean(row[name] for row in rows if name in row)


def _gpu_clock(line: Tegrastats) -> dict[str, float]:
    return {} if line.gpu_mhz is None else {"gpu": line.gpu_mhz}


def input_power_mw(raw: Sequence[RawReading], seconds: float) -> float | None:
    """Mean power of the whole board over the last seconds that were sampled, milliwatts; absent where not told.

    Args:
        raw: As the agent sent them.
        seconds: Length of the timed part, which sampling ends with.
    """
    for each in raw:
        if each.sampled is not None and each.sampled.tool == "tegrastats":
            last = max(1, math.floor(seconds * 1e3 / each.sampled.interval_ms))
            try:
                return mean_input_mw([parse_tegrastats(line) for line in each.sampled.lines[-last:]])
            except UnknownLayout:
                return None  # the reading says so
    return None
