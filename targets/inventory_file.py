"""Write entries into ``devices.toml`` and take them out, and leave every other byte as it is."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from targets.errors import UsageError
from targets.files import write_atomic
from targets.inventory import Device, load_inventory

Value = str | int | float | bool | list[str] | list[int]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_HEADER = re.compile(rb"^[ \t]*\[", re.MULTILINE)


def entry_of(device: Device) -> dict[str, Value]:
    """The keys of an entry that differ from what a device has anyway."""
    return {key: value for key, value in device.model_dump(mode="json", exclude_defaults=True).items() if key != "name"}


def add_entry(path: Path, name: str, entry: Mapping[str, Value]) -> Device:
    """Add a device at the end of an inventory file, which is made where it is missing.

    Args:
        path: The file.
        name: The device's name.
        entry: Its keys.

    Returns:
        The device as it is read back.

    Raises:
        UsageError: If the name is taken, the entry is refused, or the file cannot be written.
    """
    if name in _tables(_read(path)):
        raise UsageError(
            f"{path} has a device {name!r} already",
            f"Take another --name, or remove it: inas-deploy devices remove {name}",
        )
    return put_entry(path, name, entry)


def put_entry(path: Path, name: str, entry: Mapping[str, Value]) -> Device:
    """Add a device at the end of an inventory file in one write, in place of an entry of that name if there is one.

    Args:
        path: The file, which is made where it is missing.
        name: The device's name.
        entry: Its keys.

    Returns:
        The device as it is read back.

    Raises:
        UsageError: If the entry is refused, the old one leaves no clean cut, or the file cannot be written.
    """
    old = _read(path)
    known = _tables(old)
    before = _without(path, old, name) if name in known else old
    known.pop(name, None)
    lines = [f"[devices.{_key(name)}]", *(f"{_key(key)} = {_value(value)}" for key, value in entry.items()), ""]
    gap = b"" if not before else b"\n" if before.endswith(b"\n") else b"\n\n"
    after = before + gap + "\n".join(lines).encode("utf-8")
    _replace(path, old, after, {**known, name: dict(entry)})
    return next(device for device in load_inventory(path).devices if device.name == name)


def remove_entry(path: Path, name: str) -> bool:
    """Take out an entry that :func:`add_entry` wrote; one that is not there is no failure.

    Returns:
        Whether it was there.

    Raises:
        UsageError: If the entry is written in a way that leaves no clean cut.
    """
    before = _read(path)
    known = _tables(before)
    if name not in known:
        return False
    rest = {other: table for other, table in known.items() if other != name}
    _replace(path, before, _without(path, before, name), rest)
    return True


def _without(path: Path, before: bytes, name: str) -> bytes:
    """The file's text without one entry."""
    begin = re.search(rb"^\[devices\." + re.escape(_key(name).encode()) + rb"\][ \t]*\r?\n", before, re.MULTILINE)
    if begin is None:
        raise UsageError(f"{path}: [devices.{name}] is not written as a table of its own", "Remove it by hand.")
    following = _HEADER.search(before, begin.end())
    end = following.start() if following else len(before)
    own = re.match(rb"(?:[ \t]*[A-Za-z0-9_\"'-]+[ \t]*=[^\n]*(?:\n|\Z))*", before[begin.end() : end])
    cut = begin.end() + (own.end() if own else 0)
    head = before[: begin.start()]
    return (head[:-1] if head.endswith(b"\n\n") else head) + before[cut:]


def _replace(path: Path, before: bytes, after: bytes, wanted: Mapping[str, object]) -> None:
    try:
        fits = _tables(after) == wanted
    except ValueError:
        fits = False
    if not fits:
        raise UsageError(
            f"{path} is written in a way that does not take a [devices.NAME] table at its end", "Edit it by hand."
        )
    existed = path.exists()
    write_atomic(path, after)
    try:
        load_inventory(path)
    except UsageError:
        if existed:
            write_atomic(path, before)
        else:
            path.unlink()
        raise


def _read(path: Path) -> bytes:
    if not path.exists():
        return b""
    load_inventory(path)  # a mistake in it is told with its line
    return path.read_bytes()


def _tables(text: bytes) -> dict[str, object]:
    tables = tomllib.loads(text.decode("utf-8")).get("devices", {})
    return dict(tables) if isinstance(tables, dict) else {}


def _key(text: str) -> str:
    return text if _BARE.fullmatch(text) else _string(text)


def _string(text: str) -> str:
    # JSON's escapes are TOML's; only DEL has to be escaped in one of the two.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Value) -> str:
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return json.dumps(value)
