"""Android phones over adb, through the network or USB: commands with real exit codes, and files whole or not at all."""

from __future__ import annotations

import math
import re
import secrets
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from targets.errors import FailureKind, SessionFailed, UsageError, printable
from targets.inventory import Device
from targets.transports import adb_files
from targets.transports import adb_scripts as scripts
from targets.transports.adb_link import LinkLost
from targets.transports.adb_session import SHORT_S, AdbSession, check_path
from targets.transports.base import Completed

MAX_OUTPUT_BYTES = 64 * 2**20
MAX_COMMAND_BYTES = 64 * 1024

_GRACE_S = 5.0  # by how much the phone's own deadline comes after ours
_LAST_SIGNAL = 64


class AdbTransport:
    """Runs commands and copies files on a phone with Android 7 or newer.

    The input of a command ends after ``input_bytes`` whether ``keep_input_open`` is set or not, for adb offers no open
    one; what that is for holds all the same: when the connection is lost, the phone itself ends the command and all
    that it started. A shell tells of a signal by a status above 128, so an exit status of 129 to 192 reads as one.

    Args:
        device: From the inventory; ``work_folder``, ``key_file`` and ``connect_timeout_s`` are used.
        max_output_bytes: Bound on each output stream of a command.

    Raises:
        DeviceUnavailable: If it cannot be reached, or has not accepted our key.
        MissingExtra: If adb-shell is not installed.
    """

    def __init__(self, device: Device, *, max_output_bytes: int = MAX_OUTPUT_BYTES) -> None:
        self._session = AdbSession(device)
        self._max_output_bytes = max_output_bytes
        self.work_folder = self._session.work_folder

    def run(
        self,
        argv: Sequence[str],
        *,
        input_bytes: bytes = b"",
        timeout_s: float,
        env: Mapping[str, str] | None = None,
        keep_input_open: bool = False,
    ) -> Completed:
        """Run a command to its end; see :class:`targets.transports.base.Transport`.

        Raises:
            SessionFailed: ``TIMEOUT`` at the deadline; ``TOOL_ERROR`` where the program cannot be started, prints more
                than the bound, or fills the phone's disk; ``LOST_DEVICE`` where the phone goes away.
            UsageError: If the command, a variable or the deadline cannot be used.
            DeviceUnavailable: If the transport is closed, or the phone no longer lets us in.
        """
        _check_command(argv, env or {}, timeout_s)
        session, token, limit = self._session, secrets.token_hex(16), self._max_output_bytes
        script = scripts.run_script(
            token, self.work_folder, argv, env or {}, limit + 1, math.ceil(timeout_s + _GRACE_S)
        )
        if len(script.encode()) > MAX_COMMAND_BYTES:
            raise UsageError(f"the command line is longer than {MAX_COMMAND_BYTES} bytes", "Pass it as a file.")
        program = f"{printable(argv[0])} on {session.name}"
        with session.guarded(program, timeout_s, tokens=[token]):
            started = time.monotonic()
            if input_bytes:
                self._push_input(token, input_bytes, timeout_s)
            left_s = max(timeout_s - (time.monotonic() - started), 0.001)
            answer = scripts.read_answer(token, session.connection.execute(script, left_s, 2 * limit + 4096))
            if answer.problem == "cut":
                session.connection.drop()
                raise LinkLost("its answer broke off")
        return self._completed(program, answer)

    def push(self, local: Path, remote: str) -> None:
        """Copy a file to the phone, whole or not at all, and compare checksums.

        Raises:
            UsageError: If the local file cannot be read, or the name cannot be used.
            SessionFailed: If the copy cannot be written or differs.
        """
        adb_files.push(self._session, local, remote)

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from the phone, whole or not at all, and compare checksums.

        Raises:
            UsageError: If the local place cannot be written, or the name cannot be used.
            SessionFailed: If the file is not there, cannot be read, is too large, or the copy differs.
        """
        adb_files.pull(self._session, remote, local)

    def checksum(self, remote: str) -> str | None:
        """SHA-256 of a file on the phone; ``None`` where there is no such file.

        Raises:
            SessionFailed: If it cannot be read.
            UsageError: If the name cannot be used.
        """
        return adb_files.checksum(self._session, remote)

    def remove(self, remote: str) -> None:
        """Remove a file or folder under the work folder; links are not followed.

        Raises:
            UsageError: If it lies elsewhere.
            SessionFailed: If it cannot be removed.
        """
        check_path(remote)
        session = self._session
        outside = UsageError(
            f"{printable(remote)} is not under {self.work_folder}", "Only the kit's own files are removed."
        )
        parts = remote.split("/")
        if ".." in parts or "." in parts or not remote.startswith(f"{self.work_folder}/"):
            raise outside
        what = f"the removal of {printable(remote)} on {session.name}"
        with session.guarded(what, SHORT_S):
            lines = session.ask(scripts.remove_script(self.work_folder, remote))
        if lines[-1] == "elsewhere":
            raise outside
        if lines[-1] != "removed":
            raise SessionFailed(f"{what} failed: {printable(lines[0], 200)}", FailureKind.TOOL_ERROR)

    def close(self) -> None:
        """Hang up; closing twice is harmless."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _push_input(self, token: str, data: bytes, timeout_s: float) -> None:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "in"
            copy.write_bytes(data)
            place = f"{self.work_folder}/run-{token}/in"
            self._session.ask(scripts.prepare_script(place, place), timeout_s)
            self._session.connection.push(copy, place, 0o100600, timeout_s)

    def _completed(self, program: str, answer: scripts.Answer) -> Completed:
        if answer.problem == "program":
            fix = "Install it or name its full path."
            raise SessionFailed(f"cannot start {program}: no such program", FailureKind.TOOL_ERROR, fix)
        if answer.problem:
            where = f"{self.work_folder} on {self._session.name}"
            reason = "cannot be made" if answer.problem == "folder" else "has no space left"
            self._session.tidy()
            raise SessionFailed(f"{where} {reason}, so {program} left no output", FailureKind.TOOL_ERROR)
        if max(len(answer.stdout), len(answer.stderr)) > self._max_output_bytes:
            raise SessionFailed(
                f"{program} was stopped: it printed more than {self._max_output_bytes} bytes",
                FailureKind.TOOL_ERROR,
                "Make it print less.",
            )
        signalled = 128 < answer.status <= 128 + _LAST_SIGNAL
        return Completed(128 - answer.status if signalled else answer.status, answer.stdout, answer.stderr)


def _check_command(argv: Sequence[str], env: Mapping[str, str], timeout_s: float) -> None:
    words = [*argv, *env.values()]
    if not argv or not argv[0] or argv[0].startswith("-") or any("\0" in word for word in words):
        raise UsageError("the command to run is empty, an option, or holds a NUL character", "Name a program.")
    if any(not word.isascii() and not _encodable(word) for word in words):
        raise UsageError("the command to run holds bytes that are not UTF-8", "Rename the file.")
    for name in env:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise UsageError(f"{printable(name)!r} is no name of a variable", "Use letters, digits and '_'.")
    if not (timeout_s > 0 and math.isfinite(timeout_s)):
        raise UsageError(f"timeout_s is {timeout_s}", "Give a positive number of seconds.")


def _encodable(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True
