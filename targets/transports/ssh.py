"""Devices over ``ssh``: commands in groups of their own that end with the connection, and files with checksums."""

from __future__ import annotations

import math
import selectors
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from targets.errors import DeviceUnavailable, FailureKind, SessionFailed, UsageError, printable
from targets.inventory import Device
from targets.transports import ssh_files
from targets.transports.base import Completed
from targets.transports.local import MAX_OUTPUT_BYTES
from targets.transports.ssh_guard import command_line, new_number, refusal
from targets.transports.ssh_link import Link, Unreachable, has_passed, signal_of, wire_errors

_CHUNK = 2**16
_DRAIN_S = 1.0  # what a process that stays behind may still print
_WINDOW_POLL_S = 0.01  # nothing wakes us when the device is ready for more input
_BLINK_S = 1.0
_OVERTIME_S = 15.0  # a device that cannot even end a command by then is lost


class SshTransport:
    """Runs commands and copies files on a device that an ssh server runs on.

    The login shell there has to be a POSIX one. Files go through the server's ``sftp``.

    Args:
        device: Its address, user and keys.
        max_output_bytes: Bound on each output stream of a command.

    Raises:
        DeviceUnavailable: If it cannot be reached, is not who it should be, or refuses the login.
        MissingExtra: If paramiko is not installed.
    """

    def __init__(self, device: Device, *, max_output_bytes: int = MAX_OUTPUT_BYTES) -> None:
        self.device = device
        self._max_output_bytes = max_output_bytes
        self._open = True
        self._reconnecting = threading.Lock()
        self._link = Link(device).open()
        assert self._link.guard is not None
        self.work_folder = self._link.guard.work_folder

    def link(self) -> Link:
        """The connection, made anew if it was lost.

        Raises:
            SessionFailed: ``LOST_DEVICE`` while the device cannot be reached.
            DeviceUnavailable: If the transport is closed, or the device is not what it was.
        """
        if not self._open:
            raise DeviceUnavailable(f"the connection to device {self.device.name!r} is closed", "Open it again.")
        with self._reconnecting:
            if not self._link.alive:
                self._link.cut()
                try:
                    self._link = Link(self.device).open()
                except Unreachable as error:
                    raise SessionFailed(error.what, FailureKind.LOST_DEVICE, error.fix) from error
            return self._link

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
            SessionFailed: ``TIMEOUT`` at the deadline; ``LOST_DEVICE`` where the connection breaks; ``TOOL_ERROR``
                where the program cannot be started, prints more than the bound, or ends by a signal without a name.
            UsageError: If the command is empty or too long, a variable has no proper name, something holds a NUL
                character, or the deadline is not positive.
            DeviceUnavailable: If the transport is closed, or the device refuses the new connection it needs.
        """
        if not (timeout_s > 0 and math.isfinite(timeout_s)):
            raise UsageError(f"timeout_s is {timeout_s}", "Give a positive number of seconds.")
        number = new_number()
        command_line("", number, argv, env, timeout_s)  # refused before anything is begun
        program = printable(argv[0])
        link = self.link()
        assert link.guard is not None
        line = command_line(link.guard.run_folder, number, argv, env, timeout_s)
        with link.talking(f"running {program}", timeout_s + _OVERTIME_S):
            channel = link.session()
            try:
                channel.exec_command(line)
                talk = _Conversation(channel, program, input_bytes, timeout_s, self._max_output_bytes, keep_input_open)
                done = talk.hold()
            finally:  # at a deadline, on Ctrl-C, and for whatever the command left running
                _end(link, number, channel)
        why = refusal(number, done.stderr) if done.returncode in (125, 127) else None
        if why is not None:
            fix = "Install it there or name its full path." if done.returncode == 127 else "Free some space there."
            raise SessionFailed(f"cannot start '{program}': {why}", FailureKind.TOOL_ERROR, fix)
        return done

    def push(self, local: Path, remote: str) -> None:
        """Copy a file to the device; see :class:`targets.transports.base.Transport`.

        Raises:
            UsageError: If the file cannot be read.
            SessionFailed: ``TOOL_ERROR`` where it cannot be written (disk full, no permission) or the copy differs;
                ``LOST_DEVICE`` and ``TIMEOUT`` where the connection breaks or falls silent.
        """
        ssh_files.push(self, local, remote)

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from the device; see :class:`targets.transports.base.Transport`.

        What is under :attr:`work_folder` may not be a link to somewhere else, and no file may be larger than
        :data:`targets.transports.ssh_files.MAX_PULL_BYTES`.

        Raises:
            UsageError: If the place cannot be written.
            SessionFailed: ``TOOL_ERROR`` where there is no such file, or it is refused, or the copy differs;
                ``LOST_DEVICE`` and ``TIMEOUT`` where the connection breaks or falls silent.
        """
        ssh_files.pull(self, remote, local)

    def checksum(self, remote: str) -> str | None:
        """SHA-256 of a file on the device, hexadecimal; ``None`` where there is no such file.

        Raises:
            SessionFailed: If it cannot be read.
        """
        return ssh_files.checksum(self, remote)

    def remove(self, remote: str) -> None:
        """Remove a file or folder under :attr:`work_folder`; links are not followed, on the way there neither.

        Raises:
            UsageError: If it lies elsewhere.
            SessionFailed: If it cannot be removed.
        """
        ssh_files.remove(self, remote)

    def close(self) -> None:
        """End what still runs there for us, remove the connection's own files, and close it."""
        if self._open:
            self._open = False
            self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _end(link: Link, number: str, channel: Any) -> None:
    """Have the guard end a command; where it cannot be asked, closing the connection says the same to it."""
    guard = link.guard
    try:
        if guard is not None and link.alive:
            with link.guard_lock:
                guard.end(number)
        channel.close()
    except wire_errors():
        link.cut()


class _Conversation:
    """Feeds one command and reads what it prints until it ends, its deadline comes, or it prints too much."""

    def __init__(
        self, channel: Any, program: str, input_bytes: bytes, timeout_s: float, limit: int, keep_input_open: bool
    ) -> None:
        self._channel = channel
        self._program = program
        self._timeout_s = timeout_s
        self._limit = limit
        self._keep_input_open = keep_input_open
        self._input = memoryview(input_bytes)
        self._input_done = False
        self._out, self._err = bytearray(), bytearray()

    def hold(self) -> Completed:
        """Talk until the end.

        Raises:
            SessionFailed: At the deadline, for output without end, or where nobody can say how it ended.
            OSError: If the connection breaks.
            EOFError: If it is closed.
        """
        channel, drained = self._channel, math.inf
        deadline = time.monotonic() + self._timeout_s
        channel.settimeout(0.0)
        with selectors.DefaultSelector() as selector:
            selector.register(channel.fileno(), selectors.EVENT_READ)
            while True:
                over = channel.eof_received  # looked at first: what comes before it is read below
                self._read()
                status = channel.exit_status_ready()
                if status and (over or has_passed(drained)):
                    return self._completed()
                if status:
                    drained = min(drained, time.monotonic() + _DRAIN_S)
                elif has_passed(deadline):
                    raise SessionFailed(
                        f"{self._program} was stopped at its deadline of {self._timeout_s:g} s",
                        FailureKind.TIMEOUT,
                        "Give it more time or less to do.",
                    )
                self._write()
                left_s = max(0.0, (drained if status else deadline) - time.monotonic())
                pause_s = min(left_s, _BLINK_S if self._input_done else _WINDOW_POLL_S)
                if over and not status:  # its output is closed, which would wake the selector for nothing
                    channel.status_event.wait(pause_s)
                else:
                    selector.select(pause_s)

    def _read(self) -> None:
        for data, ready, receive in (
            (self._out, self._channel.recv_ready, self._channel.recv),
            (self._err, self._channel.recv_stderr_ready, self._channel.recv_stderr),
        ):
            while ready():
                data += receive(_CHUNK)
                if len(data) > self._limit:
                    raise SessionFailed(
                        f"{self._program} was stopped: it printed more than {self._limit} bytes",
                        FailureKind.TOOL_ERROR,
                        "Make it print less.",
                    )

    def _write(self) -> None:
        if self._input_done or self._channel.closed:
            return
        while self._input:
            try:
                sent = self._channel.send(self._input[:_CHUNK])
            except TimeoutError:  # the device is not ready for more
                return
            except OSError:
                if not self._channel.closed:
                    raise
                return  # it ended meanwhile; how, is known soon
            if not sent:  # it does not want to read on, which is its own affair
                break
            self._input = self._input[sent:]
        self._input_done = True
        if not self._keep_input_open:
            self._channel.shutdown_write()

    def _completed(self) -> Completed:
        number = signal_of(self._channel)
        status = self._channel.recv_exit_status()
        if number is None and status < 0:
            raise EOFError("the command's channel was closed")
        if number == 0:
            raise SessionFailed(
                f"{self._program} was ended by a signal that the device has no name for",
                FailureKind.TOOL_ERROR,
                "Run it there by hand.",
            )
        return Completed(-number if number else status, bytes(self._out), bytes(self._err))
