"""Profiler events of LiteRT 2.3.0: their bytes, and the checks that show whether the layout still holds."""

from __future__ import annotations

import bisect
import ctypes
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from targets.errors import UnknownLayout

EVENT_BYTES = 104
BUILTIN_OP = 2
DELEGATE_OP = 8

_GENERAL = 1
# Kinds from 32 up are telemetry: their numbers are status codes, not times.
_TIMED = frozenset({_GENERAL, BUILTIN_OP, 4, DELEGATE_OP, 16})
_KINDS = _TIMED | {32, 64, 128, 256}
_FILLER = 0xA5
_MAX_TAG_BYTES = 512
_FIX = "Run with --no-per-op, or report the line."
_DTYPE = np.dtype(
    {
        "names": ["tag", "kind", "start_us", "elapsed_us", "index"],
        "formats": ["<u8", "<i4", "<u8", "<u8", "<u8"],
        "offsets": [0, 8, 16, 24, 80],
        "itemsize": EVENT_BYTES,
    }
)


class Event(NamedTuple):
    """One profiler event.

    Attributes:
        tag: Name of the operation.
        kind: 2 for a builtin operator, 8 for an operator inside a delegate, 1 for the runtime's own work.
        start_us: Start on the profiler's clock; 0 for operators inside a delegate.
        elapsed_us: Duration in whole microseconds.
        node: Node index in the graph (kind 2), or position in its delegate partition (kind 8).
    """

    tag: str
    kind: int
    start_us: int
    elapsed_us: int
    node: int


def decode_events(raw: NDArray[np.uint8], count: int, wall_us: float) -> tuple[Event, ...]:
    """Turn the library's bytes into events, or refuse them.

    Args:
        raw: Bytes filled by ``LiteRtGetProfilerEvents``; what lies behind the events must still be filler.
        count: Events in it.
        wall_us: Duration of the inference seen from outside.

    Returns:
        The events in the order they were recorded.

    Raises:
        UnknownLayout: If the bytes do not have the layout of LiteRT 2.3.0; the event is quoted.
    """
    size = count * EVENT_BYTES
    if raw.size <= size or bool((raw[size:] != _FILLER).any()):
        raise UnknownLayout(f"LiteRT events are larger than {EVENT_BYTES} bytes", _FIX)
    events = tuple(_event(row, position) for position, row in enumerate(raw[:size].view(_DTYPE)))
    _check_times(events, wall_us)
    return events


def _event(row: Any, position: int) -> Event:
    kind, pointer = int(row["kind"]), int(row["tag"])
    quoted = (
        f"event {position}: kind {kind}, start {row['start_us']}, elapsed {row['elapsed_us']}, index {row['index']}"
    )
    if kind not in _KINDS:
        raise UnknownLayout(f"LiteRT {quoted} has an unknown kind", _FIX)
    tag = _text(pointer)
    if tag is None:
        raise UnknownLayout(f"LiteRT {quoted} has no readable name", _FIX)
    if kind in {BUILTIN_OP, DELEGATE_OP} and int(row["index"]) >= 2**31:
        raise UnknownLayout(f"LiteRT {quoted}, name {tag!r}, has an impossible index", _FIX)
    return Event(tag, kind, int(row["start_us"]), int(row["elapsed_us"]), int(row["index"]))


def _check_times(events: tuple[Event, ...], wall_us: float) -> None:
    latest = 0
    for position, event in enumerate(events):
        if event.kind not in _TIMED:
            continue
        if event.elapsed_us > wall_us + 1:
            raise UnknownLayout(
                f"LiteRT event {position} {event} lasts longer than the inference ({wall_us:.0f} us)", _FIX
            )
        if event.kind != DELEGATE_OP:
            if event.start_us < latest:
                raise UnknownLayout(f"LiteRT event {position} {event} starts before the one recorded before it", _FIX)
            latest = event.start_us
    total = sum(event.elapsed_us for event in events if event.kind in {BUILTIN_OP, DELEGATE_OP})
    if total > wall_us + 1:
        raise UnknownLayout(f"LiteRT operators sum to {total} us, more than the inference ({wall_us:.0f} us)", _FIX)


class _Memory:
    """Which addresses of this process can be read, where the system tells (Linux)."""

    def __init__(self) -> None:
        self._maps = Path("/proc/self/maps")
        self._starts: list[int] = []
        self._ends: list[int] = []

    def room(self, address: int) -> int:
        """Readable bytes from ``address`` on; 0 where it must not be read."""
        if address < 4096:
            return 0
        if not self._maps.exists():
            return _MAX_TAG_BYTES
        if not self._known(address):
            self._refresh()
        return self._known(address)

    def _known(self, address: int) -> int:
        slot = bisect.bisect_right(self._starts, address) - 1
        return max(0, self._ends[slot] - address) if slot >= 0 else 0

    def _refresh(self) -> None:
        rows = [line.split(maxsplit=2) for line in self._maps.read_text(errors="replace").splitlines()]
        bounds = sorted(tuple(int(end, 16) for end in row[0].split("-")) for row in rows if row[1].startswith("r"))
        self._starts, self._ends = [low for low, _ in bounds], [high for _, high in bounds]


_memory = _Memory()


def _text(pointer: int) -> str | None:
    room = min(_memory.room(pointer), _MAX_TAG_BYTES)
    if room <= 0:
        return None
    head = ctypes.string_at(pointer, room).split(b"\0", 1)
    if len(head) != 2 or not head[0]:
        return None
    try:
        text = head[0].decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None
