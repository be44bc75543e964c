"""What ``benchmark_model`` prints about delegates: which were applied, and how much of the graph they took."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from targets.errors import UnknownLayout, printable
from targets.profiles.benchmark_model_summary import log_lines

_FIX = "Report the line: this version of benchmark_model prints a layout that the kit does not know."
_NAME = r"[A-Za-z][A-Za-z0-9 ._-]{0,60}"
_APPLIED = re.compile(
    rf"Explicitly applied ({_NAME}) delegate, and the model graph will be (completely|partially) executed "
    r"(?:by the delegate|w/ the delegate)(?: w/ (\d{1,6}) delegate kernels)?\."
)
_IN_VAIN = re.compile(
    rf"Though ({_NAME}) delegate is explicitly applied, the model graph will not be executed by the delegate\."
)
_REPLACED = re.compile(
    r"Replacing (\d{1,7}) (?:out of (\d{1,7}) )?node\(s\) with delegate \(([^()]{1,80})\) node, "
    r"yielding (\d{1,7}) partitions(?: for (?:the whole graph|subgraph \d{1,6}(?: \([^()]{0,80}\))?))?\.?"
)
_REFUSED = re.compile(
    r"(GPU|NNAPI) acceleration is unsupported on this platform\.|Failed to apply (.{1,60}) delegate\."
)


@dataclass(frozen=True)
class Applied:
    """A delegate that was asked for.

    Attributes:
        name: The tool's name for it: ``XNNPACK``, ``GPU``, ``NNAPI``.
        extent: How much of the graph it runs.
        kernels: Number of its nodes where it runs a part.
    """

    name: str
    extent: Literal["completely", "partially", "nothing"]
    kernels: int | None = None


@dataclass(frozen=True)
class Replaced:
    """Nodes that a delegate took over.

    Attributes:
        delegate: The runtime's name for it: ``TfLiteXNNPackDelegate``.
        nodes: Operators taken.
        total: Operators there were, where told.
        partitions: Parts that the graph falls into, delegated or not.
    """

    delegate: str
    nodes: int
    total: int | None
    partitions: int


@dataclass(frozen=True)
class DelegateReport:
    """All an output says of delegates.

    Attributes:
        applied: Delegates that were applied, in order.
        replaced: What each took, where the runtime tells (it does so at some log levels only).
        refused: The line in which the tool says that a delegate is not to be had; empty otherwise.
    """

    applied: tuple[Applied, ...] = ()
    replaced: tuple[Replaced, ...] = ()
    refused: str = ""


def parse_delegates(text: str) -> DelegateReport:
    """Read the delegate lines of an output.

    Args:
        text: All the tool printed.

    Raises:
        UnknownLayout: If a line begins as one of these and goes on in an unknown way, or says an impossible thing.
    """
    applied, replaced, refused = [], [], ""
    for number, line in enumerate(log_lines(text), 1):
        if line.startswith(("Explicitly applied", "Though ")):
            applied.append(_applied(line, number))
        elif line.startswith("Replacing ") and "node(s)" in line:
            replaced.append(_replaced(line, number))
        elif _REFUSED.match(line):
            refused = refused or printable(line)
    names = [one.name for one in applied]
    if len(set(names)) != len(names):
        raise UnknownLayout(f"a delegate is applied twice: {', '.join(names)}", _FIX)
    return DelegateReport(tuple(applied), tuple(replaced), refused)


def _applied(line: str, number: int) -> Applied:
    in_vain = _IN_VAIN.fullmatch(line)
    if in_vain:
        return Applied(in_vain[1], "nothing", 0)
    found = _APPLIED.fullmatch(line)
    if found is None or (found[3] is not None) != (found[2] == "partially"):
        raise UnknownLayout(f"line {number} has an unknown layout: {printable(line, 200)!r}", _FIX)
    return Applied(found[1], "completely" if found[2] == "completely" else "partially", int(found[3] or 1))


def _replaced(line: str, number: int) -> Replaced:
    found = _REPLACED.fullmatch(line)
    if found is None:
        raise UnknownLayout(f"line {number} has an unknown layout: {printable(line, 200)!r}", _FIX)
    nodes, total, partitions = int(found[1]), int(found[2]) if found[2] else None, int(found[4])
    if total is not None and (nodes > total or partitions > total):
        raise UnknownLayout(f"line {number} contradicts itself: {printable(line, 200)!r}", _FIX)
    return Replaced(found[3], nodes, total, partitions)
