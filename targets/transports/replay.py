"""Answer from a recorded conversation, in order; no device is there and no command is run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from targets import errors
from targets.errors import DeviceUnavailable, FailureKind, KitError, SessionFailed, UsageError
from targets.files import sha256_of, write_atomic
from targets.inventory import Device
from targets.jobs import Failure
from targets.transports.base import Completed
from targets.transports.conversation import Blob, Header, Step, read_conversation
from targets.transports.secrets import PLACEHOLDER, TOUCHING

_HEX = r"(?<![0-9A-Za-z])[0-9a-f]{16,64}(?![0-9A-Za-z])"
_UUID = r"(?<![0-9A-Za-z])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![0-9A-Za-z])"
_TIME = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?"
_EPOCH = r"(?<![\w.])[12]\d{9}(?:\.\d+)?(?![\w.])"
_VARIABLE = re.compile(
    f"(?P<placeholder>{PLACEHOLDER.pattern})|(?P<uuid>{_UUID})|(?P<time>{_TIME})|(?P<epoch>{_EPOCH})|(?P<hex>{_HEX})"
)
_NO_KEY = "nothing"
_MOST_KEYS = 3
_TOKEN = re.compile(f"{PLACEHOLDER.pattern}|{_UUID}|{_HEX}")
_KINDS = {kind: re.compile(text) for kind, text in (("uuid", _UUID), ("time", _TIME), ("epoch", _EPOCH), ("hex", _HEX))}
_HIDDEN = re.compile(r"[^\s\"']{1,255}")  # what a placeholder may stand for


class ReplayTransport:
    """Plays the device's part of a recording.

    A call must be the recorded one but for its variable parts: session ids and nonces (16 to 63 hexadecimal digits),
    UUIDs, times, the hashes of the kit's own programs, and what a placeholder stands for. Where such a part differs
    from the recording, it is put into the answers as well, so that the asker finds its own ids.

    Args:
        device: A device with transport ``replay``.

    Attributes:
        recorded_transport: Kind of the transport that was recorded; its drivers fit.
        header: What the recording was made with.

    Raises:
        UsageError: If the recording cannot be read.
        DeviceUnavailable: If it was made with another version of the runtime than the inventory asks for.
    """

    def __init__(self, device: Device) -> None:
        self._place = Path(device.recording or "")
        self.header, self._steps = read_conversation(self._place)
        _check_placeholders(self._steps, self._place)
        _check_version(device, self.header, self._place)
        self.recorded_transport = self.header.transport
        self.work_folder = self.header.work_folder
        self._next = 0
        self._same: dict[str, str] = {}
        self._left: str | None = None  # why what is asked is not the recorded conversation any more
        self._open = True

    def run(
        self,
        argv: Sequence[str],
        *,
        input_bytes: bytes = b"",
        timeout_s: float,
        env: Mapping[str, str] | None = None,
        keep_input_open: bool = False,
    ) -> Completed:
        """The recorded command's end.

        Raises:
            SessionFailed: ``TOOL_ERROR`` where something else was recorded; else as recorded.
        """
        asked = Step(call="run", argv=tuple(argv), env=dict(env or {}), input=Blob.of(input_bytes))
        step = self._answer(asked)
        return Completed(step.returncode, self._rewritten(step.stdout), self._rewritten(step.stderr))

    def push(self, local: Path, remote: str) -> None:
        """Check that the file is the recorded one; it goes nowhere."""
        if not local.is_file():
            raise UsageError(f"cannot push {local}: no such file", "Check the path.")
        self._answer(Step(call="push", remote=remote, sha256=sha256_of(local), size=local.stat().st_size))

    def pull(self, remote: str, local: Path) -> None:
        """Write the recorded content."""
        write_atomic(local, self._rewritten(self._answer(Step(call="pull", remote=remote)).content))

    def checksum(self, remote: str) -> str | None:
        """The recorded hash."""
        found = self._answer(Step(call="checksum", remote=remote)).sha256
        return self._same.get(found, found) or None

    def remove(self, remote: str) -> None:
        """Check that this was recorded; nothing is removed."""
        if self._left is None:  # clearing up after another question than the recorded one is no second fault
            self._answer(Step(call="remove", remote=remote))

    def close(self) -> None:
        """Refuse further calls."""
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, asked: Step) -> Step:
        if not self._open:
            raise DeviceUnavailable("the replay is closed", "Open the device again.")
        same = dict(self._same)
        self._left = self._left or self._departure(asked, same)
        if self._left is not None:
            raise SessionFailed(
                self._left,
                FailureKind.TOOL_ERROR,
                "Ask for what was recorded: the same models, settings and number of sessions.",
            )
        step = self._steps[self._next]
        self._same = same
        self._next += 1
        if step.error is not None:
            raise _raised_again(step.error)
        return step

    def _departure(self, asked: Step, same: dict[str, str]) -> str | None:
        """How the call leaves the recording; ``None`` where it is the next one."""
        place = f"recording {self._place}: step {self._next + 1}"
        if self._next >= len(self._steps):
            return f"{place}: the recording ends here, and this is asked: {asked.summary()}"
        why = self._difference(self._steps[self._next], asked, same)
        return f"{place} is not what is asked, {asked.summary()!r}: {why}" if why else None

    def _difference(self, step: Step, asked: Step, same: dict[str, str]) -> str:
        """Why a call is not the recorded one, empty where it is; ``same`` learns what its variable parts are now."""
        recorded, now = step.asked(), asked.asked()
        if step.call == asked.call == "push" and step.sha256 in self.header.programs:
            same[step.sha256] = asked.sha256
            recorded, now = recorded[:2], now[:2]
        if len(recorded) != len(now):
            return f"{len(now)} parts instead of {len(recorded)}"
        for one, other in zip(recorded, now, strict=True):
            if not self._matches(one, other, same):
                return _told_apart(one, other)
        return ""

    def _matches(self, recorded: str, now: str, same: dict[str, str]) -> bool:
        """Walk both texts from literal to literal, in time that grows with their length only."""
        variables = [found for found in _VARIABLE.finditer(recorded) if self._varies(found)]
        if not variables:
            return recorded == now
        at = variables[0].start()
        if recorded[:at] != now[:at]:
            return False
        for number, found in enumerate(variables):
            last = number == len(variables) - 1
            literal = recorded[found.end() : len(recorded) if last else variables[number + 1].start()]
            follows = "" if last else str(variables[number + 1].lastgroup)
            kind, token = str(found.lastgroup), found[0]
            if kind != "placeholder":
                end = _end(kind, token, now, at)
            elif token in same and now.startswith(same[token], at):
                end = at + len(same[token])
            else:
                end = _hidden_end(now, at, literal, follows)
            if end is None or not now.startswith(literal, end):
                return False
            if kind not in {"time", "epoch"} and same.setdefault(token, now[at:end]) != now[at:end]:
                return False
            at = end + len(literal)
        return at == len(now)

    def _varies(self, found: re.Match[str]) -> bool:
        return found.lastgroup != "hex" or len(found[0]) != 64 or found[0] in self.header.programs

    def _rewritten(self, blob: Blob) -> bytes:
        if blob.text is None or not self._same:
            return blob.data()
        return _TOKEN.sub(lambda found: self._same.get(found[0], found[0]), blob.text).encode("utf-8")


def _told_apart(recorded: str, now: str) -> str:
    """Where two texts differ, not counting what differs each time; in JSON, the first keys."""
    one, other = (_VARIABLE.sub("*", text) for text in (recorded, now))
    if one == other:  # an id or a hash that had to be the same
        one, other = recorded, now
    try:
        left, right = _flat(json.loads(one)), _flat(json.loads(other))
    except (ValueError, RecursionError):
        at = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
        return f"recorded {_around(one, at)!r}, asked {_around(other, at)!r}"
    keys = [key for key in {**left, **right} if left.get(key) != right.get(key)][:_MOST_KEYS] or ["its layout"]
    told = []
    for key in keys:
        values = (errors.printable(side.get(key, _NO_KEY), 60) for side in (left, right))
        told.append("{}: recorded {}, asked {}".format(errors.printable(key or "the value", 60), *values))
    return "; ".join(told)


def _flat(value: object, key: str = "") -> dict[str, str]:
    """The values of a JSON text by dotted key."""
    if not isinstance(value, dict):
        return {key: json.dumps(value)}
    found: dict[str, str] = {}
    for part, inner in value.items():
        found |= _flat(inner, f"{key}.{part}" if key else part)
    return found


def _around(text: str, at: int) -> str:
    return errors.printable(text[max(0, at - 30) :], 90)


def _end(kind: str, token: str, now: str, at: int) -> int | None:
    """Where a variable part of a known form ends that begins at a place, if one does."""
    found = _KINDS[kind].match(now, at)
    return found.end() if found and (kind != "hex" or len(found[0]) == len(token)) else None


def _hidden_end(now: str, at: int, literal: str, follows: str) -> int | None:
    """Where what a placeholder stands for ends: before the next place with the literal after it, or the next variable.

    Args:
        now: What is asked.
        at: Where it begins.
        literal: What follows it.
        follows: Kind of the variable after the literal; empty where the text ends with the literal.
    """
    hidden = _HIDDEN.match(now, at)
    if hidden is None:
        return None
    if not follows:
        end = len(now) - len(literal)
    elif literal:
        end = now.find(literal, at + 1, hidden.end() + len(literal))
    else:
        found = _KINDS[follows].search(now, at + 1)
        end = found.start() if found else -1
    return end if at < end <= hidden.end() else None


def _check_placeholders(steps: Sequence[Step], place: Path) -> None:
    for number, step in enumerate(steps, 2):
        if any(TOUCHING.search(part) for part in step.asked()):
            what = f"{place}:{number}: two placeholders touch, so nobody can tell where one ends"
            raise UsageError(what, "Record it again.")


def _check_version(device: Device, header: Header, place: Path) -> None:
    recorded, wanted = header.tools.get(device.runtime or ""), device.runtime_version
    if recorded is None or wanted is None:
        return
    if recorded.split(".")[: wanted.count(".") + 1] != wanted.split("."):
        raise DeviceUnavailable(
            f"recording {place} was made with {device.runtime} {errors.printable(recorded)}, and device "
            f"{device.name!r} asks for {wanted}",
            "Correct runtime_version in the inventory, or record again.",
        )


def _raised_again(failure: Failure) -> KitError:
    kind: type[KitError] | None = getattr(errors, failure.error, None)
    what, fix = errors.printable(failure.what, 500), errors.printable(failure.fix, 500)
    if not (isinstance(kind, type) and issubclass(kind, KitError)) or kind is SessionFailed:
        return SessionFailed(what, failure.kind, fix)
    return kind(what, fix)
