"""JSON that a tool wrote, read strictly: whole, no key twice, only finite numbers, errors that name the place."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import NoReturn

from targets.errors import UnknownLayout, printable

MAX_CHARACTERS = 256 * 1024 * 1024
"""Longest file that is read."""

_FIX = "Report the line: this version writes a file that the kit does not know, or the file is damaged."
_HALF_UNIT = 5e-6  # of a number printed with six significant digits, relative


def load_json(text: str, name: str, *, strict: bool = True) -> object:
    """Parse a whole JSON text.

    Args:
        text: The file's text.
        name: The file's name, for errors.
        strict: Refuse control characters within strings.

    Raises:
        UnknownLayout: If it is no JSON, holds NaN or Infinity or a key twice, is nested too deeply or too long.
    """
    if len(text) > MAX_CHARACTERS:
        raise UnknownLayout(f"{name} has more than {MAX_CHARACTERS} characters", "Time for fewer seconds.")

    def constant(word: str) -> NoReturn:
        raise ValueError(f"{word} is no number")

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(items)
        if len(found) < len(items):
            raise ValueError(f"a key stands twice in {[key for key, _ in items][:20]}")
        return found

    try:
        return json.loads(text, strict=strict, parse_constant=constant, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        line = (text.splitlines() or [""])[min(error.lineno, text.count("\n") + 1) - 1 :][:1] or [""]
        refuse(f"{name}:{error.lineno}", f"is no JSON ({error.msg})", line[0])
    except (ValueError, RecursionError) as error:
        refuse(name, str(error), text[:80])


def refuse(place: str, why: str, quoted: object) -> NoReturn:
    """Raise ``UnknownLayout`` that names the place and quotes what stands there."""
    text = quoted if isinstance(quoted, str) else json.dumps(quoted, default=str)
    raise UnknownLayout(f"{place}: {printable(why, 200)}: {printable(text, 160)!r}", _FIX)


def number(row: Mapping[str, object], key: str, place: str) -> float:
    """A finite number that is not negative.

    Raises:
        UnknownLayout: If it is anything else.
    """
    value = row[key]
    if type(value) not in (int, float) or not math.isfinite(value) or not 0 <= value < 1e15:  # type: ignore[arg-type, operator]
        refuse(place, f"{key} is no duration", row)
    return float(value)  # type: ignore[arg-type]


def agrees(value: float, expected: float, *terms: float, slack: float = 2.4) -> bool:
    """Whether two figures printed with six significant digits can be the same number.

    Args:
        value: As printed.
        expected: Computed from other printed figures.
        terms: Those figures, each of which was rounded too.
        slack: Times the worst rounding that is allowed: the tool adds up in single precision.
    """
    return abs(value - expected) <= slack * _HALF_UNIT * (abs(value) + sum(map(abs, terms))) + 1e-9
