"""The faults: how each is done to a device, at a moment drawn by seed, and which failures it may end in."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.faulty.stands import Stand
from targets.inventory import Device
from targets.virtual.relay import Direction, Fault

GONE = frozenset({"LOST_DEVICE", "DeviceUnavailable"})
STUCK = GONE | {"TIMEOUT"}
BROKEN = frozenset({"TOOL_ERROR", "InvalidModel", "BAD_ARTIFACT"})
ALLOWED: dict[str, frozenset[str]] = {
    "cut connection": GONE,
    "hang": STUCK,
    "half file": GONE | BROKEN,
    "full disk": frozenset({"TOOL_ERROR", "DeviceUnavailable"}),
    "wrong checksum": STUCK | BROKEN,
    "killed tool": frozenset({"OUT_OF_MEMORY", "TOOL_ERROR"}),
    "garbage output": frozenset({"TOOL_ERROR"}),
    "reboot": GONE,
    "clock jump": frozenset(),
    "auth revoked": GONE,
    "second user": frozenset({"DeviceUnavailable"}),
}
"""Failures that a session may end in, by fault: a class of the kit's errors, or the kind of a ``SessionFailed``."""

_SILENCE_S = 120.0
_STEPS_S = (-(10**9), -86_400 * 400, -3600, -5, 5, 3600, 86_400 * 400, 10**9)


@dataclass(frozen=True)
class Usual:
    """A session without a fault, connection included.

    Attributes:
        seconds: How long it takes.
        warm: Bytes by direction where the device has the model.
        cold: The same where it has not.
    """

    seconds: float
    warm: dict[Direction, int]
    cold: dict[Direction, int]


@dataclass
class Harm:
    """One fault that is ready to happen.

    Attributes:
        kind: Key of :data:`ALLOWED`.
        way: How it is done.
        device: What the session is asked of.
        before: Done before the device is opened.
        later: Done at some moment; tells whether there was anything to do it to.
        at_s: That moment, seconds after the opening began.
        wire: What the relay does.
        hangs: Whether the session may have to wait for its deadline.
        taken: ``held`` or ``stolen`` where somebody else has, or gets, the lease.
        company: Whether somebody else uses the device meanwhile, without asking.
    """

    kind: str
    way: str
    device: Device
    before: Callable[[], object] = field(default=lambda: None)
    later: Callable[[], bool] | None = None
    at_s: float = 0.0
    wire: Fault | None = None
    hangs: bool = False
    taken: str = ""
    company: bool = False


def draw_harm(kind: str, stand: Stand, usual: Usual, draw: random.Random) -> Harm:
    """Draw how and when a fault happens."""
    return _KINDS[kind](kind, stand, usual, draw)


def _anywhere(usual: Usual, draw: random.Random, direction: Direction, *, cold: bool = False) -> int:
    return draw.randrange((usual.cold if cold else usual.warm)[direction])


def _direction(draw: random.Random) -> Direction:
    return "up" if draw.random() < 0.5 else "down"


def _done(action: Callable[[], object]) -> Callable[[], bool]:
    def act() -> bool:
        action()
        return True

    return act


def _cut(kind: str, stand: Stand, usual: Usual, draw: random.Random) -> Harm:
    if draw.random() < 0.5:
        moment = draw.uniform(0, usual.seconds)
        return Harm(kind, "at a moment", stand.device, later=lambda: stand.relay.cut() > 0, at_s=moment)
    direction, once = _direction(draw), draw.random() < 0.7
    fault = Fault("cut", _anywhere(usual, draw, direction), direction, once=once)
    return Harm(kind, "once at a byte" if once else "always at a byte", stand.device, wire=fault)


def _hang(kind: str, stand: Stand, usual: Usual, draw: random.Random) -> Harm:
    direction, once = _direction(draw), draw.random() < 0.7
    fault = Fault("stall", _anywhere(usual, draw, direction), direction, seconds=_SILENCE_S, once=once)
    return Harm(kind, "once" if once else "always", stand.device, wire=fault, hangs=True)


def _shorten(stand: Stand, draw: random.Random) -> Callable[[], bool]:
    place = draw.random()

    def act() -> bool:
        file = _one_of(stand.cached(), draw)
        if file is None:
            return False
        with file.open("r+b") as opened:
            opened.truncate(int(file.stat().st_size * place))
        return True

    return act


def _alter(stand: Stand, draw: random.Random) -> Callable[[], bool]:
    place = draw.random()

    def act() -> bool:
        file = _one_of(stand.cached(), draw)
        if file is None or not file.stat().st_size:
            return False
        with file.open("r+b") as opened:
            opened.seek(int(file.stat().st_size * place))
            byte = opened.read(1)
            opened.seek(-1, 1)
            opened.write(bytes([byte[0] ^ 0xFF]))
        return True

    return act


def _one_of(files: list[Path], draw: random.Random) -> Path | None:
    return draw.choice(files) if files else None


def _half_file(kind: str, stand: Stand, usual: Usual, draw: random.Random) -> Harm:
    way = draw.choice(("upload cut", "cut short before", "cut short meanwhile"))
    if way == "upload cut":
        fault = Fault("cut", _anywhere(usual, draw, "up", cold=True), "up", once=draw.random() < 0.5)
        return Harm(kind, way, stand.device, before=stand.forget_cached, wire=fault)
    return _to_file(kind, way, stand, _shorten(stand, draw), draw.uniform(0, usual.seconds))


def _to_file(kind: str, way: str, stand: Stand, act: Callable[[], bool], moment: float) -> Harm:
    if way.endswith("before"):
        return Harm(kind, way, stand.device, before=act)
    return Harm(kind, way, stand.device, later=act, at_s=moment)


def _checksum(kind: str, stand: Stand, usual: Usual, draw: random.Random) -> Harm:
    way = draw.choice(("on the wire", "in the cache before", "in the cache meanwhile"))
    if way == "on the wire":
        cold, direction = draw.random() < 0.5, _direction(draw)
        fault = Fault("corrupt", _anywhere(usual, draw, direction, cold=cold), direction, once=draw.random() < 0.7)
        begin = stand.forget_cached if cold else lambda: None
        return Harm(kind, way, stand.device, before=begin, wire=fault, hangs=True)
    return _to_file(kind, way, stand, _alter(stand, draw), draw.uniform(0, usual.seconds))


def _full(kind: str, stand: Stand, usual: Usual, draw: random.Random) -> Harm:
    assert stand.small is not None
    if draw.random() < 0.6:
        free = int(10 ** draw.uniform(2, 6))
        empty = draw.random() < 0.5
        return Harm(kind, "before", stand.small, before=lambda: stand.fill(free, empty=empty))
    moment = draw.uniform(0, usual.seconds)
    return Harm(kind, "meanwhile", stand.small, later=_done(lambda: stand.fill(0)), at_s=moment)


def _killed(kind: str, stand: Stand, usual: Usual, draw: random.Random) -> Harm:
    pause_s = draw.uniform(0, usual.seconds * 0.7)

    def act() -> bool:
        end = time.monotonic() + 10 * usual.seconds
        while not (found := stand.tools()) and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(pause_s)
        if not (found := stand.tools()):
            return False
        try:
            os.kill(draw.choice(found), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    return Harm(kind, "killed", stand.device, later=act)


def _garbage(kind: str, stand: Stand, usual: Usual, draw: random.Random) -> Harm:
    return Harm(kind, stand.mangler.garble(draw), stand.device)


def _reboot(kind: str, stand: Stand, usual: Usual, draw: random.Random) -> Harm:
    return Harm(kind, "", stand.device, later=_done(stand.reboot), at_s=draw.uniform(0, usual.seconds))


def _clock(kind: str, stand: Stand, usual: Usual, draw: random.Random) -> Harm:
    step = draw.choice(_STEPS_S)
    act = _done(lambda: stand.clock.set(step))
    return Harm(kind, f"{step:+d} s", stand.device, later=act, at_s=draw.uniform(0, usual.seconds))


def _revoked(kind: str, stand: Stand, usual: Usual, draw: random.Random) -> Harm:
    way = draw.choice(("before", "before, and cut later", "meanwhile"))
    if way == "before":
        return Harm(kind, way, stand.device, before=stand.revoke)

    def act() -> bool:
        stand.revoke()
        return stand.relay.cut() > 0

    return Harm(kind, way, stand.device, later=act, at_s=draw.uniform(0, usual.seconds))


def _second(kind: str, stand: Stand, usual: Usual, draw: random.Random) -> Harm:
    way = draw.choice(("held", "stolen", "company"))
    harm = Harm(kind, way, stand.device, at_s=draw.uniform(0, usual.seconds))
    return replace(harm, company=True) if way == "company" else replace(harm, taken=way)


_KINDS: dict[str, Callable[[str, Stand, Usual, random.Random], Harm]] = {
    "cut connection": _cut,
    "hang": _hang,
    "half file": _half_file,
    "full disk": _full,
    "wrong checksum": _checksum,
    "killed tool": _killed,
    "garbage output": _garbage,
    "reboot": _reboot,
    "clock jump": _clock,
    "auth revoked": _revoked,
    "second user": _second,
}


class Moment(threading.Thread):
    """Does something at its moment, in the middle of what the caller does.

    Args:
        harm: What, and when.

    Attributes:
        happened: Whether it was done.
        error: What went wrong with doing it.
    """

    def __init__(self, harm: Harm) -> None:
        super().__init__(daemon=True)
        self._harm = harm
        self._off = threading.Event()
        self.happened = harm.later is None
        self.error: Exception | None = None

    def run(self) -> None:
        """Wait and do it."""
        if self._harm.later is None or self._off.wait(self._harm.at_s):
            return
        try:
            self.happened = self._harm.later()
        except (OSError, ValueError) as error:  # told by the lane, in whose thread it counts
            self.error = error

    def over(self) -> None:
        """It is too late now, or it was done."""
        self._off.set()
        self.join()
