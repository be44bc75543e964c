"""The file of a recorded conversation: one header and one line a call, as JSON lines; read as untrusted data."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, StringConstraints, ValidationError, model_validator

from targets.errors import UsageError, printable
from targets.files import write_atomic
from targets.jobs import Failure
from targets.records import Frozen, StandIn

MAX_BYTES = 256 * 2**20
MAX_STEPS = 100_000

LineT = TypeVar("LineT", "Header", "Step")
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Blob(Frozen):
    """Bytes, written as text where they are text.

    Attributes:
        text: UTF-8 text.
        base64: Anything else.
    """

    text: str | None = None
    base64: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.text is None) == (self.base64 is None):
            raise ValueError("bytes are either text or base64")
        self.data()
        return self

    @classmethod
    def of(cls, data: bytes) -> Blob:
        """Wrap bytes."""
        try:
            return cls(text=data.decode("utf-8"))
        except UnicodeDecodeError:
            return cls(base64=base64.b64encode(data).decode("ascii"))

    def data(self) -> bytes:
        """The bytes."""
        if self.text is not None:
            return self.text.encode("utf-8")
        try:
            return base64.b64decode(self.base64 or "", validate=True)
        except binascii.Error as error:
            raise ValueError(f"is not base64: {error}") from error


NOTHING = Blob(text="")


class Header(Frozen):
    """What a conversation was held with.

    Attributes:
        format: Version of this layout.
        transport: Kind of the transport that was recorded.
        work_folder: Its work folder on the device.
        kit: Version of the kit that recorded.
        recorded_at: When it was finished, UTC.
        tools: Versions of the tools on the device.
        programs: Hashes of the kit's own programs that were sent; a later kit sends others, which changes no figure.
        stand_in: How the device was not the real thing when it was recorded.
        entry: What the inventory said of it, as far as that decides what is asked.
    """

    format: Literal[1] = 1
    transport: Literal["local", "ssh", "adb"]
    work_folder: str
    kit: str
    recorded_at: datetime
    tools: dict[str, str] = Field(default_factory=dict)
    programs: tuple[Sha256, ...] = ()
    stand_in: StandIn | None = None
    entry: dict[str, str | int | float | list[int]] = Field(default_factory=dict)


class Step(Frozen):
    """One call and its answer.

    Attributes:
        call: Method of the transport.
        argv: Command of ``run``.
        env: Variables of ``run``.
        input: Standard input of ``run``.
        remote: Place on the device of the other calls.
        sha256: Hash of a pushed file, or the answer of ``checksum``; empty where there is no such file.
        size: Bytes of a pushed file.
        returncode: Exit status of ``run``.
        stdout: What it printed.
        stderr: What it complained about.
        content: The file that was pulled.
        error: The error that was raised instead of an answer.
    """

    call: Literal["run", "push", "pull", "checksum", "remove"]
    argv: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    input: Blob = NOTHING
    remote: str = ""
    sha256: str = ""
    size: int = 0
    returncode: int = 0
    stdout: Blob = NOTHING
    stderr: Blob = NOTHING
    content: Blob = NOTHING
    error: Failure | None = None

    def asked(self) -> list[str]:
        """What must be the same when it is asked again, part by part."""
        if self.call == "run":
            variables = [f"{name}={value}" for name, value in sorted(self.env.items())]
            return ["run", *unplaced(self.argv), *variables, self.input.text or self.input.base64 or ""]
        pushed = [self.sha256, str(self.size)] if self.call == "push" else []
        return [self.call, self.remote, *pushed]

    def summary(self) -> str:
        """The call in a few words, safe to print."""
        return f"{self.call} {printable(' '.join(self.argv) or self.remote, 60)}"


def unplaced(argv: Sequence[str]) -> tuple[str, ...]:
    """A command whose Python may lie anywhere on the device."""
    python = re.fullmatch(r"(?:.*/)?python[0-9.]*", argv[0]) if argv else None
    return ("python3", *argv[1:]) if python else tuple(argv)


def write_conversation(path: Path, header: Header, steps: list[Step]) -> None:
    """Write a conversation, whole or not at all.

    Raises:
        UsageError: If the file cannot be written or is too large.
    """
    lines = [header.model_dump_json(), *(step.model_dump_json(exclude_defaults=True) for step in steps)]
    data = "\n".join([*lines, ""]).encode("utf-8")
    if len(data) > MAX_BYTES or len(steps) > MAX_STEPS:
        raise UsageError(f"the recording for {path} is too large ({len(data)} bytes)", "Record fewer sessions.")
    write_atomic(path, data)


def read_conversation(path: Path) -> tuple[Header, list[Step]]:
    """Read a conversation.

    Raises:
        UsageError: If it cannot be read or is not one; the line names the file and the line.
    """
    try:
        if not path.is_file():
            raise UsageError(f"there is no recording {path}", "Check 'recording' in the inventory.")
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"recording {path} is larger than {MAX_BYTES} bytes", "Record fewer sessions.")
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"recording {path} cannot be read: {error.strerror}", "Check its permissions.") from error
    if raw.count(b"\n") > MAX_STEPS + 1 or not raw.endswith(b"\n"):  # before they are split: empty lines take the most
        raise UsageError(f"recording {path} is cut off or too long", "Record it again.")
    first, *lines = raw.split(b"\n")[:-1]
    header = _parsed(Header, path, 1, first)
    return header, [_parsed(Step, path, number, line) for number, line in enumerate(lines, 2)]


def _parsed(kind: type[LineT], path: Path, number: int, line: bytes) -> LineT:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = "".join(f"{printable(str(part))}: " for part in first["loc"][:3])
        what = f"{path}:{number}: is no recording of this kit: {where}{printable(first['msg'])}"
        raise UsageError(what, "Record it again.") from error
