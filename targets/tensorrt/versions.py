"""TensorRT versions, and how ``trtexec`` tells its own.

Source: NVIDIA/TensorRT, samples/common/logger.cpp and the change log of its 8.2, 8.4, 8.6 and 10.0 releases.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from targets.errors import UnknownLayout, UsageError, printable

KNOWN_MAJORS = (8, 10, 11)
"""Major versions whose flags and files this kit knows; a version 9 was for a few server products only."""

_BANNER = re.compile(r"&&&& (?:RUNNING|PASSED|FAILED) TensorRT\.trtexec \[TensorRT v(\d{4,7})\]")


class TensorrtVersion(NamedTuple):
    """A version; compares in order.

    Attributes:
        major: 8, 10 or 11.
        minor: Minor version.
        patch: Patch level, 0 where it is not told.
    """

    major: int
    minor: int
    patch: int = 0

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


def known_version(text: str) -> TensorrtVersion:
    """Read a version such as ``8.2``, ``8.6.1`` or ``10.13.0.35``.

    Raises:
        UsageError: If it is no version, or one whose flags are not known.
    """
    found = re.fullmatch(r"(\d{1,3})\.(\d{1,3})(?:\.(\d{1,4}))?(?:\.\d{1,4})*", text)
    if found is None:
        raise UsageError(f"{printable(text)!r} is no TensorRT version", "Write it as in runtime_version = '8.2'.")
    return _checked(TensorrtVersion(int(found[1]), int(found[2]), int(found[3] or 0)))


def newest_opset(version: TensorrtVersion) -> int:
    """Newest ONNX opset that a version's parser is documented to read.

    Source: onnx/onnx-tensorrt, docs/operators.md of 8.2 (13), 8.5 (17) and 10.15 (24); in between, the older figure
    stands, but for 10.0 to 10.14, which read what this kit exports (20).
    """
    if version < (8, 5):
        return 13
    if version < (10, 0):
        return 17
    return 20 if version < (10, 15) else 24


def version_of_banner(text: str) -> TensorrtVersion:
    """The version in the first line that ``trtexec`` prints, whatever it is asked.

    Args:
        text: Output that holds ``&&&& RUNNING TensorRT.trtexec [TensorRT v8201]``.

    Raises:
        UnknownLayout: If there is no such line.
        UsageError: If its flags are not known.
    """
    found = _BANNER.search(text)
    if found is None:
        first = next((line for line in text.splitlines() if line.strip()), "")
        raise UnknownLayout(
            f"trtexec does not tell its version; its first line is {printable(first)!r}",
            "Check that 'tool' names NVIDIA's trtexec.",
        )
    number = int(found[1])
    step = 1_000 if number < 10_000 else 10_000  # v8201 is 8.2.1, v101300 is 10.13.0
    return _checked(TensorrtVersion(number // step, number % step // 100, number % 100))


def _checked(version: TensorrtVersion) -> TensorrtVersion:
    if version.major not in KNOWN_MAJORS or version < (8, 2):
        known = ", ".join(map(str, KNOWN_MAJORS))
        raise UsageError(
            f"the flags of TensorRT {version} are not known to this kit",
            f"Use TensorRT 8.2 or newer, of the major versions {known}.",
        )
    return version
