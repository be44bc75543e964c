"""Network names that a person can type, such as ``csnet-x1``, and the architectures behind them (no torch).

A new space is one function and one line in ``SPACES``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass

from search.spaces.csnet.arch import CSNetArch, check_input_size
from targets.errors import UsageError


@dataclass(frozen=True)
class NamedSpace:
    """How the names of one space are read.

    Attributes:
        parse: From a whole name to the architecture, or ``None`` where the name has another form.
        syntax: Form of the names, for people.
        common: Names worth suggesting.
        exporter: Module with ``export_onnx`` and ``export_tflite`` for the space's architectures.
        check_size: Refuses an input size the space cannot take.
    """

    parse: Callable[[str], CSNetArch | None]
    syntax: str
    common: tuple[str, ...]
    exporter: str
    check_size: Callable[[tuple[int, int]], None]


@dataclass(frozen=True)
class NamedArch:
    """A network found by name.

    Attributes:
        name: As typed, in lower case.
        space: The space it belongs to.
        arch: Its architecture.
    """

    name: str
    space: NamedSpace
    arch: CSNetArch


_CSNET = re.compile(r"csnet-x(?P<k>\d{1,2}(?:\.\d{1,3})?)(?:-s(?P<high>\d{1,2})-(?P<low>\d{1,2}))?")


def _csnet(name: str) -> CSNetArch | None:
    match = _CSNET.fullmatch(name)
    if match is None:
        return None
    split = (1, 1) if match["high"] is None else (int(match["high"]), int(match["low"]))
    return CSNetArch.fixed(float(match["k"]), split)


SPACES: dict[str, NamedSpace] = {
    "csnet": NamedSpace(
        parse=_csnet,
        syntax="csnet-x<width>, csnet-x<width>-s<high>-<low>",
        common=("csnet-x1", "csnet-x1.2", "csnet-x1.5", "csnet-x1.8", "csnet-x2", "csnet-x1-s1-0", "csnet-x1-s3-1",
                "csnet-x1-s1-3"),
        exporter="search.spaces.csnet.export",
        check_size=check_input_size,
    ),
}  # fmt: skip


def find_arch(name: str) -> NamedArch:
    """The network of a name.

    Args:
        name: For example ``csnet-x1``, ``csnet-x1.5`` or ``csnet-x1-s3-1`` (3/4 of the channels at high resolution).

    Raises:
        UsageError: If no space knows the name, or its numbers make no network; close names are listed.
    """
    wanted = name.strip().lower()
    for space in SPACES.values():
        arch = space.parse(wanted)
        if arch is not None:
            return NamedArch(wanted, space, arch)
    common = [known for space in SPACES.values() for known in space.common]
    close = difflib.get_close_matches(wanted, common, n=3, cutoff=0.4)
    forms = "; ".join(space.syntax for space in SPACES.values())
    hint = f"Did you mean {', '.join(close)}?" if close else f"Known: {', '.join(common)}."
    raise UsageError(f"there is no network named {name[:80]!r}", f"{hint} Names have the form {forms}.")
