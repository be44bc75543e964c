"""What all parts of the agent share: its one error, packed texts, and the clock.

These files run on the device, from Python 3.6 on, with nothing but the standard library.
"""

import base64
import time
import zlib
from pathlib import Path
from typing import Dict, List

MAX_TEXT_BYTES = 32 * 2**20


class Refused(Exception):
    """The task cannot be done.

    Args:
        what: What is wrong.
        kind: ``bad_artifact``, ``tool_error``, ``timeout`` or ``out_of_memory``.
        fix: What to do.
        error: Name of the kit's error class to raise on the host.
    """

    def __init__(self, what: str, kind: str = "tool_error", fix: str = "", error: str = "SessionFailed") -> None:
        super().__init__(what)
        self.what, self.kind, self.fix, self.error = what, kind, fix, error

    def answer(self) -> Dict[str, str]:
        """The failure as the host reads it."""
        return {"what": self.what[:2000], "kind": self.kind, "fix": self.fix, "error": self.error}


def bad_model(what: str, fix: str = "") -> Refused:
    """The model is refused."""
    return Refused(what, "bad_artifact", fix, "InvalidModel")


def bad_setting(what: str, fix: str = "") -> Refused:
    """A setting is not possible here."""
    return Refused(what, "tool_error", fix, "UsageError")


def missing(what: str, fix: str = "") -> Refused:
    """The device lacks a tool."""
    return Refused(what, "tool_error", fix, "DeviceUnavailable")


def packed(data: bytes) -> str:
    """Bytes as text, compressed: traces are long and repeat themselves."""
    return base64.b64encode(zlib.compress(data, 6)).decode("ascii")


def packed_file(path: Path) -> str:
    """A file as text.

    Raises:
        Refused: If it is not there or too large.
    """
    try:
        size = path.stat().st_size
        if size > MAX_TEXT_BYTES:
            raise Refused(f"{path.name} is {size} bytes, more than an answer holds")
        return packed(path.read_bytes())
    except OSError as error:
        raise Refused(f"{path.name} cannot be read: {error.strerror}") from error


def own_words(error: BaseException) -> str:
    """Last line of an error, or its name."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][-400:] if lines else type(error).__name__


def _coarse_ns() -> int:
    return int(time.perf_counter() * 1e9)


clock_ns = getattr(time, "perf_counter_ns", _coarse_ns)
"""Monotonic clock, nanoseconds; Python 3.6 has it as a float only."""


def percentile(values: List[int], percent: float) -> float:
    """Percentile with linear interpolation, as numpy's default."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100.0
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
