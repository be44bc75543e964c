"""The operators inside a delegate, by partition.

``benchmark_model`` numbers them anew in every partition, and adds up those that share a name and a number; this
undoes it where only one answer is possible.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from targets.profiles.benchmark_model_text import OpRow

_NAME = re.compile(r"Delegate/(?P<tag>.+):(?P<number>\d{1,7})")


@dataclass(frozen=True)
class Part:
    """One operator inside a partition.

    Attributes:
        tag: Operation and kernel.
        row: Position of its row in the delegate's table; several parts may share one.
    """

    tag: str
    row: int


def parts_of(rows: Sequence[OpRow], partitions: int) -> list[list[Part]] | None:
    """The operators of each partition, in order.

    Args:
        rows: The delegate's table, in order of first appearance.
        partitions: Number of delegate nodes in the graph.

    Returns:
        One list a partition, or ``None`` where the rows allow no answer or more than one.
    """
    named = [_NAME.fullmatch(row.name) for row in rows]
    if None in named or not partitions:
        return None
    tags = [(match["tag"], int(match["number"])) for match in named if match]
    left = [max(1, row.times_called) for row in rows]
    found: list[list[Part]] = []
    for at, (tag, number) in enumerate(tags):
        if not found or number < len(found[-1]):
            found.append([])
        if not _fill(found, number, tags, left):
            return None
        found[-1].append(Part(tag, at))
        left[at] -= 1
    while len(found) < partitions and any(left):  # partitions of which every operator was seen before
        found.append([])
    if len(found) != partitions or not _append_rest(found, tags, left):
        return None
    return found


def _fill(found: list[list[Part]], number: int, tags: Sequence[tuple[str, int]], left: list[int]) -> bool:
    """Bring back the operators before ``number`` that were added to rows of earlier partitions."""
    while len(found[-1]) < number:
        missing = len(found[-1])
        rows = [at for at, tag in enumerate(tags) if tag[1] == missing and left[at] > 0 and _earlier(found, at)]
        if len(rows) != 1:
            return False
        found[-1].append(Part(tags[rows[0]][0], rows[0]))
        left[rows[0]] -= 1
    return True


def _earlier(found: list[list[Part]], at: int) -> bool:
    return any(part.row == at for partition in found[:-1] for part in partition)


def _append_rest(found: list[list[Part]], tags: Sequence[tuple[str, int]], left: list[int]) -> bool:
    """Put what is left over at the end of partitions, where there is only one way to."""
    while any(left):
        ways = [
            (partition, at)
            for partition in found[1:]
            for at, (_, number) in enumerate(tags)
            if left[at] > 0 and number == len(partition)
        ]
        if len(ways) != 1:
            return False
        partition, at = ways[0]
        partition.append(Part(tags[at][0], at))
        left[at] -= 1
    return True
