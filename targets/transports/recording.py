"""Write down everything that is said to a device and what it answers, with secrets removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, cast

from targets.errors import FailureKind, KitError, SessionFailed, UsageError
from targets.extras import DISTRIBUTION, version_of
from targets.files import check_writable, sha256_of
from targets.inventory import Device
from targets.jobs import Failure
from targets.transports.base import Completed, Transport
from targets.transports.conversation import Blob, Header, Step, unplaced, write_conversation
from targets.transports.secrets import Scrubber

_PROGRAMS = (".py", ".pyz")
_KINDS = ("local", "ssh", "adb")
_DECIDES = (
    *("profile", "runtime", "runtime_version", "tool", "opset", "precision", "threads", "accelerator", "pinned_cores"),
    *("min_battery_percent", "start_below_c", "cool_down_s"),
)


class RecordingTransport:
    """A transport that hands every call on and writes it down.

    The file appears when the transport is closed, whole or not at all; a conversation that was interrupted, or that
    could not be searched for secrets, is not written.

    Args:
        inner: The transport in use, which this one closes.
        file: Where the recording goes.
        device: What it reaches; its names and addresses are the secrets.

    Raises:
        UsageError: If the file cannot be written, or the device is no machine.
    """

    def __init__(self, inner: Transport, file: Path, device: Device) -> None:
        check_writable(file)
        if device.transport not in _KINDS:
            what = f"device {device.name!r} with transport {device.transport!r} is not recorded"
            raise UsageError(what, f"Record one with transport {', '.join(_KINDS)}.")
        self._inner = inner
        self._file = file
        self._device = device
        # On this very machine the folder's place says whose machine it is, and no tool depends on it.
        here = device.transport == "local" or (device.transport == "ssh" and device.stand_in == "virtual")
        self._scrub = Scrubber(device, inner.work_folder if here else "")
        self._steps: list[Step] = []
        self._programs: dict[str, None] = {}
        self._tools: dict[str, str] = {}
        self._whole = True
        self._open = True
        self.work_folder = inner.work_folder

    def note_tools(self, versions: Mapping[str, str]) -> None:
        """Key the recording by versions of the tools on the device (:meth:`targets.drivers.base.Driver.versions`)."""
        self._tools.update(versions)

    def run(
        self,
        argv: Sequence[str],
        *,
        input_bytes: bytes = b"",
        timeout_s: float,
        env: Mapping[str, str] | None = None,
        keep_input_open: bool = False,
    ) -> Completed:
        """Run a command; errors as the inner transport's."""
        asked = Step(
            call="run",
            argv=tuple(self._scrub.text(word) for word in unplaced(argv)),
            env=self._scrub.env(env or {}),
            input=Blob.of(self._scrub.data(input_bytes)),
        )
        with _Writer(self, asked) as writer:
            done = self._inner.run(
                argv, input_bytes=input_bytes, timeout_s=timeout_s, env=env, keep_input_open=keep_input_open
            )
            writer.answer(
                returncode=done.returncode,
                stdout=Blob.of(self._scrub.data(done.stdout)),
                stderr=Blob.of(self._scrub.data(done.stderr)),
            )
        return done

    def push(self, local: Path, remote: str) -> None:
        """Copy a file to the device; its hash and size are written down, not what is in it."""
        sha256, size = (sha256_of(local), local.stat().st_size) if local.is_file() else ("", 0)
        if Path(remote).suffix in _PROGRAMS and sha256:
            self._programs[sha256] = None
        with _Writer(self, Step(call="push", remote=self._scrub.text(remote), sha256=sha256, size=size)):
            self._inner.push(local, remote)

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from the device; what is in it is written down."""
        with _Writer(self, Step(call="pull", remote=self._scrub.text(remote))) as writer:
            self._inner.pull(remote, local)
            writer.answer(content=Blob.of(self._scrub.data(local.read_bytes())))

    def checksum(self, remote: str) -> str | None:
        """Hash of a file on the device."""
        with _Writer(self, Step(call="checksum", remote=self._scrub.text(remote))) as writer:
            found = self._inner.checksum(remote)
            if found and Path(remote).suffix in _PROGRAMS:  # one that an earlier use left there
                self._programs[found] = None
            writer.answer(sha256=found or "")
        return found

    def remove(self, remote: str) -> None:
        """Remove something on the device."""
        with _Writer(self, Step(call="remove", remote=self._scrub.text(remote))):
            self._inner.remove(remote)

    def close(self) -> None:
        """Close the inner transport and write the file.

        Raises:
            UsageError: If the file cannot be written, or the conversation could not be searched for secrets.
        """
        self._inner.close()
        if not self._open:
            return
        self._open = False
        if self._whole and self._scrub.gave_up:
            what = f"recording {self._file} is given up: {self._scrub.gave_up}"
            raise UsageError(what, "Record fewer sessions; what was measured is in the store.")
        if self._whole and self._steps:
            known = self._device.model_dump(mode="json", include=set(_DECIDES), exclude_defaults=True)
            header = Header(
                transport=cast(Literal["local", "ssh", "adb"], self._device.transport),
                work_folder=self._scrub.text(self.work_folder),
                kit=version_of(DISTRIBUTION) or "unknown",
                recorded_at=datetime.now(UTC),
                tools={self._scrub.text(name): self._scrub.text(value) for name, value in self._tools.items()},
                programs=tuple(self._programs),
                stand_in=self._device.label,
                entry={key: self._scrub.text(v) if key == "tool" else v for key, v in known.items()},
            )
            write_conversation(self._file, header, self._steps)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write_down(self, step: Step) -> None:
        """Add a finished call to the recording."""
        if self._scrub.gave_up:
            self._steps.clear()
        else:
            self._steps.append(step)

    def clean(self, error: KitError) -> Failure:
        """An error without the secrets in its words."""
        kind = error.kind if isinstance(error, SessionFailed) else FailureKind.TOOL_ERROR
        what, fix = self._scrub.text(error.what), self._scrub.text(error.fix)
        return Failure(what=what, fix=fix, kind=kind, error=type(error).__name__)

    def give_up(self) -> None:
        """Write no file: a call was interrupted, so the conversation is not whole."""
        self._whole = False


class _Writer:
    """Writes one call down as it ends: with its answer, or with the error it raised."""

    def __init__(self, owner: RecordingTransport, asked: Step) -> None:
        self._owner, self._step = owner, asked

    def answer(self, **fields: object) -> None:
        self._step = self._step.model_copy(update=fields)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, KitError):
            self._step = self._step.model_copy(update={"error": self._owner.clean(error)})
        elif error is not None:
            self._owner.give_up()
            return
        self._owner.write_down(self._step)
