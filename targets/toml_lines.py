"""Find the line of a key in a TOML text, so that an error can point at it."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence

_MAX_TRIES = 60


def line_of(text: str, keys: Sequence[str]) -> int | None:
    """Line on which a key, or the table of that name, first appears.

    tomllib keeps no positions. But whatever spelling was used (table header, dotted key, inline table), the key
    appears exactly where the shortest valid beginning of the text that holds it ends; that beginning is
    found by bisection with the real parser.

    Args:
        text: A valid TOML text.
        keys: Path of the key, outermost first.

    Returns:
        Line number from 1; ``None`` where the key is not there or the text is too tangled to search.
    """
    lines = [f"{line}\n" for line in text.split("\n")]  # the only line end that TOML counts
    low, high = 0, len(lines)  # the first `low` lines do not hold the key, the first `high` do
    if not _holds(lines, high, keys):
        return None
    tries = 0
    while high - low > 1:
        middle = (low + high) // 2
        # A beginning that ends inside a multi-line value is not valid: step to the nearest one that is.
        for count in sorted(range(low + 1, high), key=lambda count: abs(count - middle)):
            tries += 1
            if tries > _MAX_TRIES:
                return None
            held = _holds(lines, count, keys)
            if held is not None:
                break
        else:
            break
        low, high = (low, count) if held else (count, high)
    while low < high - 1 and (not lines[low].strip() or lines[low].lstrip().startswith("#")):
        low += 1
    return low + 1


def _holds(lines: Sequence[str], count: int, keys: Sequence[str]) -> bool | None:
    """Whether the first lines hold the key; ``None`` where they are not valid by themselves."""
    try:
        value: object = tomllib.loads("".join(lines[:count]))
    except (ValueError, RecursionError):
        return None
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    return True
