"""What NVIDIA's tools on a Jetson print: ``tegrastats``, ``nvpmodel -q`` and ``jetson_clocks --show``.

Two styles of ``tegrastats`` are known: JetPack 4 (``POM_5V_IN 2500/2300``, ``GR3D_FREQ 0%@76``) and JetPack 5 and 6
(``VDD_IN 4985mW/4985mW``, ``GR3D_FREQ 0%@[305]``). No line of a real board was at hand when this was written: what does
not fit is refused, never guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NoReturn

from targets.errors import UnknownLayout, printable

INPUT_RAILS = ("VDD_IN", "POM_5V_IN")
"""Rails that feed the whole module; a board without one tells no energy."""

_RAIL_NAME = re.compile(r"(?:VDD|POM|VIN|VDDQ)_[A-Z0-9_]{0,40}$")
_RAIL_VALUE = re.compile(r"(\d{1,6})(mW)?/(\d{1,6})(mW)?$")
_TEMPERATURE = re.compile(r"([A-Za-z][A-Za-z0-9_]{0,31})@(-?\d{1,3}(?:\.\d{1,3})?)C$")
_GPU = re.compile(r"(\d{1,3})%(?:@(?:\[(\d{1,4}(?:,\d{1,4})*)\]|(\d{1,4})))?$")
_RAM = re.compile(r"\bRAM \d{1,7}/\d{1,7}MB\b")
_FIX = "The line is of another tegrastats; no figure is read from it."
_ABSENT_C = -256.0  # what a sensor that is switched off reads as


@dataclass(frozen=True)
class Tegrastats:
    """One line.

    Attributes:
        temperatures_c: By sensor.
        power_mw: Power now, by rail.
        gpu_percent: Load of the GPU.
        gpu_mhz: Its clock, where told.
    """

    temperatures_c: dict[str, float]
    power_mw: dict[str, float]
    gpu_percent: int | None
    gpu_mhz: float | None


def parse_tegrastats(line: str) -> Tegrastats:
    """Read one line.

    Args:
        line: As printed.

    Raises:
        UnknownLayout: If a temperature, a rail or the GPU's load is not written as known; the part is quoted.
    """
    if not _RAM.search(line) or " CPU [" not in line:
        _refuse("it tells no RAM and CPU", line)
    words = line.split()
    temperatures: dict[str, float] = {}
    power: dict[str, float] = {}
    percent, mhz = None, None
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if _RAIL_NAME.match(word):
            power[word] = _power_mw(word, following)
        elif word == "GR3D_FREQ":
            percent, mhz = _gpu(following)
        elif re.match(r"[A-Za-z]\w*@", word) and word.endswith("C"):
            found = _TEMPERATURE.match(word)
            if not found or not -60 <= float(found[2]) <= 200:
                if found and float(found[2]) == _ABSENT_C:
                    continue
                _refuse("a temperature is not as known", word)
            temperatures[found[1]] = float(found[2])
    if not temperatures:
        _refuse("it tells no temperature", line)
    return Tegrastats(temperatures, power, percent, mhz)


def _power_mw(rail: str, text: str) -> float:
    found = _RAIL_VALUE.match(text)
    if not found or bool(found[2]) != bool(found[4]):
        _refuse("a rail's power is not as known", f"{rail} {text}")
    return float(found[1])


def _gpu(text: str) -> tuple[int, float | None]:
    found = _GPU.match(text)
    if not found or int(found[1]) > 100:
        _refuse("the GPU's load is not as known", f"GR3D_FREQ {text}")
    clocks = found[2] or found[3]
    return int(found[1]), float(clocks.split(",")[0]) if clocks else None


def _refuse(why: str, part: str) -> NoReturn:
    raise UnknownLayout(f"tegrastats printed something unknown: {why}: {printable(part, 160)!r}", _FIX)


def mean_input_mw(lines: Sequence[Tegrastats]) -> float | None:
    """Mean power of the rail that feeds the whole module, milliwatts; absent where no such rail is told.

    Args:
        lines: What was sampled; at least two lines, for one alone may be from before the load.
    """
    for rail in INPUT_RAILS:
        told = [line.power_mw[rail] for line in lines if rail in line.power_mw]
        if len(told) >= 2 and len(told) == len(lines):
            return fmean(told)
    return None


def energy_mj(power_mw: float | None, latency_ms: float) -> float | None:
    """Energy of one inference, millijoules: mean power times mean latency.

    Args:
        power_mw: From :func:`mean_input_mw`.
        latency_ms: Mean over the timed inferences.
    """
    return None if power_mw is None else power_mw * latency_ms / 1e3


def parse_power_mode(text: str) -> str:
    """Name of the power mode out of ``nvpmodel -q``, for example ``MAXN`` or ``15W``.

    Raises:
        UnknownLayout: If no line tells it.
    """
    found = re.findall(r"^NV Power Mode: ?([A-Za-z0-9_ .+-]{1,40}?)\s*$", text, re.MULTILINE)
    if len(found) != 1:
        raise UnknownLayout(f"nvpmodel -q tells no power mode: {printable(text, 160)!r}")
    return str(found[0])


def parse_clocks_locked(text: str) -> bool:
    """Whether ``jetson_clocks --show`` tells that CPU and GPU clocks are held.

    Raises:
        UnknownLayout: If it tells no minimum and maximum of a clock (without root it tells nothing).
    """
    clocks = [line for line in text.splitlines() if re.match(r"(?:cpu\d+|GPU)\b.*MinFreq=", line)]
    if not clocks:
        raise UnknownLayout(f"jetson_clocks --show tells no clocks: {printable(text, 160)!r}", "It may need root.")
    held = []
    for line in clocks:
        found = re.search(r"\bMinFreq=(\d{1,12}) MaxFreq=(\d{1,12})\b", line)
        if not found:
            raise UnknownLayout(f"jetson_clocks --show is not as known: {printable(line, 160)!r}")
        if not re.search(r"\bOnline=0\b", line):
            held.append(found[1] == found[2])
    return bool(held) and all(held)
