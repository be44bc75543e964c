"""What every transport offers: run a command on a device, and move files there and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self


@dataclass(frozen=True)
class Completed:
    """A command that ended by itself.

    Attributes:
        returncode: Exit status; minus the signal's number where a signal ended it.
        stdout: All it printed.
        stderr: All it complained about.
    """

    returncode: int
    stdout: bytes
    stderr: bytes


class Transport(Protocol):
    """A way to one device; a context manager that closes itself.

    A connection that is lost is made anew by the next call, so that a caller's retry has something to retry on.

    Attributes:
        work_folder: Folder on the device under which the kit keeps all its files, absolute; made when first needed.
    """

    work_folder: str

    def run(
        self,
        argv: Sequence[str],
        *,
        input_bytes: bytes = b"",
        timeout_s: float,
        env: Mapping[str, str] | None = None,
        keep_input_open: bool = False,
    ) -> Completed:
        """Run a command to its end; a non-zero status is an answer, not an error.

        Args:
            argv: Program and arguments, never read by a shell.
            input_bytes: What the command reads on its standard input.
            timeout_s: Deadline; the command and all it started are killed then.
            env: Variables set on top of the device's own.
            keep_input_open: Do not close the command's standard input before it ends. A program on a remote device
                that sees it close then knows that we are gone, and ends itself.

        Raises:
            SessionFailed: ``TIMEOUT`` at the deadline, ``TOOL_ERROR`` where the program cannot be started
                or prints without end, ``LOST_DEVICE`` where the device goes away.
            DeviceUnavailable: If the transport is closed.
        """

    def push(self, local: Path, remote: str) -> None:
        """Copy a file to the device, whole or not at all, and compare checksums.

        Raises:
            UsageError: If the local file cannot be read.
            SessionFailed: If the copy cannot be written or differs.
        """

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from the device, whole or not at all, and compare checksums.

        Raises:
            UsageError: If the local place cannot be written.
            SessionFailed: If the file is not there, cannot be read, or the copy differs.
        """

    def checksum(self, remote: str) -> str | None:
        """SHA-256 of a file on the device, hexadecimal; ``None`` where there is no such file.

        Raises:
            SessionFailed: If it cannot be read.
        """

    def remove(self, remote: str) -> None:
        """Remove a file or folder under :attr:`work_folder`, with all that is in it; links are not followed.

        Raises:
            UsageError: If it lies elsewhere.
            SessionFailed: If it cannot be removed. That it is not there is no failure.
        """

    def close(self) -> None:
        """Let go of the device; closing twice is harmless."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
