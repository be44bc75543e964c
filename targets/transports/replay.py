"""Answer from a recorded conversation, in order; no device is there and no command is run."""

from __future__ import annotations

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
from targets.transports.secrets import PLACEHOLDER

_HEX = r"(?<![0-9A-Za-z])[0-9a-f]{16,64}(?![0-9A-Za-z])"
_UUID = r"(?<![0-9A-Za-z])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![0-9A-Za-z])"
_TIME = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?"
_EPOCH = r"(?<![\w.])[12]\d{9}(?:\.\d+)?(?![\w.])"
_VARIABLE = re.compile(
    f"(?P<placeholder>{PLACEHOLDER.pattern})|(?P<uuid>{_UUID})|(?P<time>{_TIME})|(?P<epoch>{_EPOCH})|(?P<hex>{_HEX})"
)
_TOKEN = re.compile(f"{PLACEHOLDER.pattern}|{_UUID}|{_HEX}")


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
                at = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
                return f"recorded {_around(one, at)!r}, asked {_around(other, at)!r}"
        return ""

    def _matches(self, recorded: str, now: str, same: dict[str, str]) -> bool:
        parts, tokens, at = [], [], 0
        for found in _VARIABLE.finditer(recorded):
            kind, token = str(found.lastgroup), found[0]
            if kind == "hex" and len(token) == 64 and token not in self.header.programs:
                continue
            parts += [re.escape(recorded[at : found.start()]), f"({_pattern(kind, token)})"]
            tokens.append((kind, token))
            at = found.end()
        matched = re.fullmatch("".join([*parts, re.escape(recorded[at:])]), now)
        if matched is None:
            return False
        for (kind, token), value in zip(tokens, matched.groups(), strict=True):
            if kind in {"time", "epoch"}:
                continue
            if same.setdefault(token, value) != value:
                return False
        return True

    def _rewritten(self, blob: Blob) -> bytes:
        if blob.text is None or not self._same:
            return blob.data()
        return _TOKEN.sub(lambda found: self._same.get(found[0], found[0]), blob.text).encode("utf-8")


def _around(text: str, at: int) -> str:
    return errors.printable(text[max(0, at - 30) :], 90)


def _pattern(kind: str, token: str) -> str:
    return {
        "placeholder": r"[^\s\"']+?",
        "uuid": _UUID,
        "time": _TIME,
        "epoch": _EPOCH,
        "hex": rf"[0-9a-f]{{{len(token)}}}",
    }[kind]


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
