"""This machine as a device: processes in a group of their own, ended with everything they started."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import selectors
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from targets.errors import DeviceUnavailable, FailureKind, SessionFailed, UsageError
from targets.files import sha256_of
from targets.inventory import Device
from targets.transports.base import Completed

MAX_OUTPUT_BYTES = 64 * 2**20
_DRAIN_S = 1.0  # what a process that left the group may still print
_POLL_S = 0.05  # only where the kernel cannot say that a process ended
_CHUNK = 2**16


def _default_work_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(base) / "inas-deploy" / "device"


def _make_ours_alone(folder: Path) -> None:
    """Make a folder, and refuse one whose files somebody else could swap before they run as us."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise DeviceUnavailable(
            f"cannot make the work folder {folder}: {error.strerror}", "Name another work_folder."
        ) from error
    if status.st_uid != os.geteuid() or status.st_mode & stat.S_IWOTH:
        raise DeviceUnavailable(
            f"the work folder {folder} belongs to another user, or anybody may write there", "Name another work_folder."
        )


class LocalTransport:
    """Runs commands and copies files on this machine.

    Args:
        device: Its ``work_folder`` is used, if it names one.
        max_output_bytes: Bound on each output stream of a command.

    Raises:
        DeviceUnavailable: If that folder cannot be made, is another user's, or anybody may write there.
    """

    def __init__(self, device: Device | None = None, *, max_output_bytes: int = MAX_OUTPUT_BYTES) -> None:
        self.work_folder = (device.work_folder if device else None) or str(_default_work_folder())
        if device is not None and device.work_folder is not None:
            _make_ours_alone(Path(device.work_folder))
        self._max_output_bytes = max_output_bytes
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
        """Run a command to its end; see :class:`targets.transports.base.Transport`.

        Raises:
            SessionFailed: ``TIMEOUT`` at the deadline; ``TOOL_ERROR`` where the program cannot be started or
                prints more than the bound; ``OUT_OF_MEMORY`` where no process can be made.
            UsageError: If the command is empty or holds a NUL character, or the deadline is not positive.
            DeviceUnavailable: If the transport is closed.
        """
        if not self._open:
            raise DeviceUnavailable("the local transport is closed", "Open the device again.")
        if not argv or any("\0" in word for word in argv):
            raise UsageError("the command to run is empty or holds a NUL character", "Name a program.")
        if not (timeout_s > 0 and math.isfinite(timeout_s)):
            raise UsageError(f"timeout_s is {timeout_s}", "Give a positive number of seconds.")
        interrupts = _HeldInterrupts()
        try:
            process = _start(argv, {**os.environ, **(env or {})})
        finally:
            interrupts.restore()
        try:
            interrupts.deliver()
            talk = _Conversation(process, argv[0], input_bytes, timeout_s, self._max_output_bytes, keep_input_open)
            return talk.hold()
        finally:  # on a deadline, on Ctrl-C, and for whatever the command left running
            _end_group(process)

    def push(self, local: Path, remote: str) -> None:
        """Copy a file to another place on this machine, atomically and with checksums compared.

        Raises:
            UsageError: If the file cannot be read.
            SessionFailed: If the copy cannot be written or differs.
        """
        if not local.is_file():
            raise UsageError(f"cannot push {local}: no such file", "Check the path.")
        try:
            _copy(local, Path(remote))
        except OSError as error:
            raise SessionFailed(f"cannot push {local} to {remote}: {error.strerror}", FailureKind.TOOL_ERROR) from error

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file back, atomically and with checksums compared.

        Raises:
            UsageError: If the place cannot be written.
            SessionFailed: If the file is not there or the copy differs.
        """
        if not Path(remote).is_file():
            raise SessionFailed(f"cannot pull {remote}: no such file on the device", FailureKind.TOOL_ERROR)
        if not local.parent.is_dir():
            raise UsageError(f"cannot pull to {local}: its folder does not exist", "Make the folder first.")
        try:
            _copy(Path(remote), local)
        except OSError as error:
            raise UsageError(f"cannot pull {remote} to {local}: {error.strerror}", "Name another place.") from error

    def checksum(self, remote: str) -> str | None:
        """SHA-256 of a file, or ``None`` where there is none.

        Raises:
            SessionFailed: If it cannot be read.
        """
        path = Path(remote)
        try:
            return sha256_of(path) if path.is_file() else None
        except OSError as error:
            raise SessionFailed(f"cannot read {remote}: {error.strerror}", FailureKind.TOOL_ERROR) from error

    def remove(self, remote: str) -> None:
        """Remove a file or folder under the work folder.

        Raises:
            UsageError: If it lies elsewhere.
            SessionFailed: If it cannot be removed.
        """
        path = Path(remote)
        root = Path(self.work_folder)
        if ".." in path.parts or root not in path.parents:
            raise UsageError(f"{remote} is not under {root}", "Only the kit's own files are removed.")
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise SessionFailed(f"cannot remove {remote}: {error.strerror}", FailureKind.TOOL_ERROR) from error

    def close(self) -> None:
        """Refuse further commands; nothing else is held."""
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Conversation:
    """Feeds one process and reads what it prints until it ends, its deadline comes, or it prints too much."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        program: str,
        input_bytes: bytes,
        timeout_s: float,
        limit: int,
        keep_input_open: bool,
    ) -> None:
        self._keep_input_open = keep_input_open
        self._process, self._program, self._timeout_s, self._limit = process, program, timeout_s, limit
        self._input = memoryview(input_bytes)
        self._output: dict[int, bytearray] = {}
        self._selector = selectors.DefaultSelector()
        self._pidfd: int | None = None

    def hold(self) -> Completed:
        process = self._process
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        out, err = process.stdout.fileno(), process.stderr.fileno()
        try:
            for stream in (out, err):
                os.set_blocking(stream, False)
                self._output[stream] = bytearray()
                self._selector.register(stream, selectors.EVENT_READ)
            os.set_blocking(process.stdin.fileno(), False)
            self._selector.register(process.stdin.fileno(), selectors.EVENT_WRITE)
            self._watch_exit()
            self._until_exit()
            _kill_group(process)  # what still holds our pipes would keep us waiting
            self._drain()
            return Completed(process.wait(), bytes(self._output[out]), bytes(self._output[err]))
        finally:
            self._selector.close()
            if self._pidfd is not None:
                os.close(self._pidfd)

    def _watch_exit(self) -> None:
        """Have the kernel wake us at the exit: a parent that polls would disturb what is being timed."""
        if hasattr(os, "pidfd_open"):
            try:
                self._pidfd = os.pidfd_open(self._process.pid)
            except OSError:  # a kernel before 5.3, or a sandbox that forbids it
                return
            self._selector.register(self._pidfd, selectors.EVENT_READ)

    def _until_exit(self) -> None:
        deadline = time.monotonic() + self._timeout_s
        while not _has_ended(self._process):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise SessionFailed(
                    f"{self._program} was stopped at its deadline of {self._timeout_s:g} s",
                    FailureKind.TIMEOUT,
                    "Give it more time or less to do.",
                )
            self._step(left_s if self._pidfd is not None else min(left_s, _POLL_S))

    def _drain(self) -> None:
        deadline = time.monotonic() + _DRAIN_S
        while any(s in self._selector.get_map() for s in self._output) and time.monotonic() < deadline:
            self._step(_POLL_S)

    def _step(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            if key.fd in self._output:
                self._read(key.fd)
            elif key.fd != self._pidfd:
                self._write(key.fd)
            elif _has_ended(self._process):
                self._selector.unregister(key.fd)  # it stays readable and would wake us for nothing

    def _read(self, stream: int) -> None:
        data = os.read(stream, _CHUNK)
        if not data:
            self._selector.unregister(stream)
            return
        self._output[stream] += data
        if len(self._output[stream]) > self._limit:
            raise SessionFailed(
                f"{self._program} was stopped: it printed more than {self._limit} bytes",
                FailureKind.TOOL_ERROR,
                "Make it print less.",
            )

    def _write(self, stream: int) -> None:
        try:
            sent = os.write(stream, self._input[:_CHUNK]) if self._input else 0
        except BrokenPipeError:  # it does not want to read on, which is its own affair
            self._input = self._input[:0]
        else:
            self._input = self._input[sent:]
        if not self._input:
            self._selector.unregister(stream)
            assert self._process.stdin is not None
            if not self._keep_input_open:
                self._process.stdin.close()


class _HeldInterrupts:
    """Keeps Ctrl-C back while a process starts: in the midst of that, nobody would know whom to end."""

    def __init__(self) -> None:
        self._held: list[int] = []
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():  # elsewhere none arrives
            for number in (signal.SIGINT, signal.SIGTERM):
                if callable(signal.getsignal(number)):
                    self._before[number] = signal.signal(number, lambda which, _: self._held.append(which))

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def deliver(self) -> None:
        for number in self._held:
            signal.raise_signal(number)


def _start(argv: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(
            list(argv), stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, env=dict(env), start_new_session=True
        )
    except OSError as error:
        kind = FailureKind.OUT_OF_MEMORY if error.errno == errno.ENOMEM else FailureKind.TOOL_ERROR
        fix = "Install it or name its full path." if isinstance(error, FileNotFoundError) else ""
        raise SessionFailed(f"cannot start {argv[0]!r}: {error.strerror}", kind, fix) from error


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process ended, leaving it unreaped where possible: its number must stay the group's."""
    if process.returncode is not None:
        return True
    if hasattr(os, "waitid"):
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return process.poll() is not None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # nobody left; macOS says so with the second
        return


def _end_group(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        _kill_group(process)
        process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None and not stream.closed:
            stream.close()


def _copy(source: Path, destination: Path) -> None:
    if destination.exists() and source.samefile(destination):
        return
    handle, name = tempfile.mkstemp(dir=destination.parent, prefix=f".{destination.name}.")
    temporary = Path(name)
    digest = hashlib.sha256()
    try:
        with source.open("rb") as reader, os.fdopen(handle, "wb") as writer:
            while chunk := reader.read(_CHUNK):
                digest.update(chunk)
                writer.write(chunk)
        if sha256_of(temporary) != digest.hexdigest():
            raise SessionFailed(f"the copy of {source} differs from it", FailureKind.TOOL_ERROR, "Check the disk.")
        temporary.chmod(source.stat().st_mode & 0o777)
        temporary.replace(destination)
    finally:
        temporary.unlink(missing_ok=True)
