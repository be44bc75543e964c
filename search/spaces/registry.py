"""Search spaces by id, and networks by the names a person types (no torch).

A new space is one file and one line in ``SPACES``. Names: ``<space>:smallest``, ``<space>:biggest``,
``<space>:random-<seed>``, a space's own names such as ``csnet-x1.5`` or ``bisenetv2``; ``<space>-c<n>`` is the space
with ``n`` output classes.
"""

from __future__ import annotations

import difflib
import importlib
import os
import random
import re
from pathlib import Path
from typing import Any

from search.spaces.arch import Arch, parse_json
from search.spaces.space import Space
from targets.errors import UsageError

SPACES: dict[str, str] = {
    "csnet": "search.spaces.csnet.space:CSNetSpace",
    "inas": "search.spaces.inas.space:INASSpace",
    "inas-small": "search.spaces.inas.space:INASSpace",
    "inas-tiny": "search.spaces.inas.space:INASSpace",
    "rtseg": "search.spaces.rtseg.space:RTSegSpace",
    "rtseg-small": "search.spaces.rtseg.space:RTSegSpace",
    "rtseg-tiny": "search.spaces.rtseg.space:RTSegSpace",
}
"""Module and class of each space id."""

_LARGEST_FILE = 1_000_000
_ID = re.compile(r"(?P<id>[a-z][a-z0-9-]*?)(?:-c(?P<classes>[0-9]{1,4}))?")
_RANDOM = re.compile(r"random-([0-9]{1,9})")


def find_space(name: str, classes: int | None = None) -> Space[Any]:
    """The space of an id such as ``inas``, ``inas-tiny`` or ``rtseg-c11``.

    Args:
        name: The id, with or without ``-c<classes>``.
        classes: Output maps, where the id does not say them.

    Raises:
        UsageError: If there is no such space; close ids are listed.
    """
    match = _ID.fullmatch(name)
    if match is None or match["id"] not in SPACES:
        close = difflib.get_close_matches(name, SPACES, n=3, cutoff=0.4)
        hint = f"Did you mean {', '.join(close)}?" if close else f"Known: {', '.join(SPACES)}."
        raise UsageError(f"there is no search space {name[:80]!r}", hint)
    module, _, kind = SPACES[match["id"]].partition(":")
    space_class = getattr(importlib.import_module(module), kind)
    space: Space[Any] = space_class(match["id"], int(match["classes"]) if match["classes"] else classes)
    return space


def space_of(arch: Arch) -> Space[Any]:
    """The space an architecture belongs to."""
    return find_space(str(arch.space), getattr(arch, "classes", None))


def arch_from_json(text: str | bytes) -> Arch:
    """Read an architecture of any registered space.

    Raises:
        UsageError: If the text is no JSON, names no known space or is no valid architecture of it.
    """
    return arch_from_parsed(parse_json(text))


def arch_from_parsed(content: object) -> Arch:
    """An architecture of any registered space from its JSON as data.

    Raises:
        UsageError: If it names no known space or is no valid architecture of it.
    """
    space_id = content.get("space") if isinstance(content, dict) else None
    if not isinstance(space_id, str):
        raise UsageError("the architecture's JSON names no space", 'Give what Arch.to_json wrote, with a "space".')
    arch: Arch = find_space(space_id).arch_class.from_parsed_json(content)
    return arch


def arch_of_file(path: str) -> Arch:
    """Read an architecture's JSON from a file, which may be untrusted.

    Raises:
        UsageError: If the file cannot be read, is too large, or holds no valid architecture.
    """
    fix = "Give a .json file that Arch.to_json wrote."
    if not os.path.isfile(path):  # noqa: PTH113  # unlike pathlib's, it takes a name no file can have
        raise UsageError(f"cannot read {path} (there is no such file)", fix)
    try:
        with Path(path).open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror})", fix) from error
    if len(content) > _LARGEST_FILE:
        raise UsageError(f"{path} has more than {_LARGEST_FILE:,} bytes", fix)
    try:
        return arch_from_json(content)
    except UsageError as error:
        raise UsageError(f"{path}: {error.what}", error.fix) from error


def find_arch(name: str) -> Arch:
    """The network of a name such as ``inas:smallest``, ``rtseg-c11:random-3``, ``csnet-x1.5`` or ``bisenetv2``.

    Raises:
        UsageError: If no space knows the name, or its numbers make no network; close names are listed.
    """
    wanted = name.strip().lower()
    space_id, colon, point = wanted.partition(":")
    if colon:
        found = _point(find_space(space_id), point)
        if found is not None:
            return found
        raise UsageError(
            f"the space {space_id} has no network {point[:80]!r}",
            f"Take {space_id}:smallest, {space_id}:biggest or {space_id}:random-1.",
        )
    for known in SPACES:
        alias: Arch | None = find_space(known).point(wanted)
        if alias is not None:
            return alias
    close = difflib.get_close_matches(wanted, known_names(), n=3, cutoff=0.4)
    hint = f"Did you mean {', '.join(close)}?" if close else f"Known: {', '.join(known_names())}."
    raise UsageError(f"there is no network named {name[:80]!r}", hint)


def known_names() -> list[str]:
    """Names worth suggesting."""
    own = dict.fromkeys(point for known in SPACES for point in find_space(known).points())
    return [*own, *(f"{known}:{end}" for known in SPACES for end in ("smallest", "biggest"))]


def _point(space: Space[Any], point: str) -> Arch | None:
    if point in ("smallest", "biggest"):
        end: Arch = space.smallest() if point == "smallest" else space.biggest()
        return end
    match = _RANDOM.fullmatch(point)
    found: Arch | None = space.sample(random.Random(int(match[1]))) if match else space.point(point)
    return found
