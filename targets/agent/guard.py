"""The dead man's handle: a small process beside the agent that ends everything when the host is gone or time is up.

It does nothing but wait, so that a runtime that holds the interpreter, or a signal that kills the agent outright,
cannot keep it from clearing up.
"""

import contextlib
import fcntl
import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any, List, Optional, Set

from targets.agent.protocol import Refused

ANSWER = "answer.json"
_SLICE_S = 3600.0


class Guard:
    """The agent's end of the line to its guard.

    Args:
        folder: The session's folder; removed at the end but for a finished answer.
        scratch: Other files that must not stay if the agent does not finish.
        deadline_s: Seconds after which everything is ended.
    """

    def __init__(self, folder: Path, scratch: List[str], deadline_s: float) -> None:
        reading, self.line = os.pipe()
        parent = os.getpid()
        sys.stderr.flush()
        self._child = os.fork()
        if self._child == 0:
            code = 1
            try:
                os.close(self.line)
                _watch(reading, parent, folder, scratch, deadline_s)
                code = 0
            finally:
                os._exit(code)
        os.close(reading)

    def start_tool(self) -> None:
        """Run in a tool's process between fork and exec: a group of its own, known to the guard."""
        os.setsid()
        os.write(self.line, f"{os.getpid()}\n".encode("ascii"))

    def kill(self, process: Any) -> None:
        """End a tool and whatever it started; its number may become another's, so the guard forgets it.

        ``trtexec`` does not listen to softer signals.
        """
        _kill(process.pid)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        os.write(self.line, f"-{process.pid}\n".encode("ascii"))

    def release(self) -> None:
        """Have the guard clear up, and wait until it has."""
        os.close(self.line)
        os.waitpid(self._child, 0)


def _watch(reading: int, parent: int, folder: Path, scratch: List[str], deadline_s: float) -> None:
    os.setsid()  # out of reach of whoever kills the agent's group
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    groups: Set[int] = set()
    end = time.monotonic() + deadline_s
    rest = b""
    host = [0]
    why = ""
    while not why:
        left_s = end - time.monotonic()
        if left_s <= 0:
            why = f"stopped at its deadline of {deadline_s:g} s"
            break
        ready = select.select([*host, reading], [], [], min(left_s, _SLICE_S))[0]
        if reading in ready:
            data = os.read(reading, 4096)
            if not data:
                break
            parts = (rest + data).split(b"\n")
            rest = parts.pop()
            for number in map(int, parts):
                groups.add(number) if number > 0 else groups.discard(-number)
        elif host and 0 in ready and not os.read(0, 65536):
            why = "the host is gone"
    if why:
        _say(f"inas_agent: {why}\n")
        if os.getppid() == parent:
            os.kill(parent, signal.SIGKILL)
    for group in groups:
        _kill(group)
    _clear(folder, scratch)


def _say(text: str) -> None:
    """Tell the host if it still listens; nothing may keep the guard from clearing up."""
    with contextlib.suppress(OSError):
        os.set_blocking(2, False)
        os.write(2, text.encode("ascii"))


def _kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _clear(folder: Path, scratch: List[str]) -> None:
    for name in scratch:
        remove_file(Path(name))
    clear_folder(folder)


def clear_folder(folder: Path) -> None:
    """Remove a session's folder; a finished answer stays until it is fetched or swept."""
    if not (folder / ANSWER).is_file():
        shutil.rmtree(str(folder), ignore_errors=True)
        return
    for entry in folder.iterdir():
        if entry.name == ANSWER:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(str(entry), ignore_errors=True)
        else:
            remove_file(entry)


def remove_file(path: Path) -> None:
    """Remove a file if it is there and can be removed."""
    try:
        path.unlink()
    except OSError:
        return


def claim(folder: Path, wait_s: float) -> int:
    """Make a session's folder and hold it; an earlier agent with the same session is waited for.

    Returns:
        The descriptor that holds the lock, until it and its copies in child processes are closed.

    Raises:
        Refused: If it cannot be made, or somebody holds it for that long.
    """
    end = time.monotonic() + wait_s
    while True:
        held = try_claim(folder, make=True)
        if held is not None:
            return held
        if time.monotonic() >= end:
            raise Refused(f"session {folder.name} still runs on the device", "timeout", "Try again later.")
        time.sleep(0.2)


def try_claim(folder: Path, make: bool = False) -> Optional[int]:
    """Hold a session's folder if nobody else does.

    Raises:
        Refused: If it cannot be made.
    """
    try:
        if make:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = os.open(str(folder), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        if not make or isinstance(error, FileNotFoundError):
            return None
        raise Refused(f"cannot make {folder}: {error.strerror}", fix="Check its owner and the free space.") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(held).st_ino == os.stat(str(folder)).st_ino:  # noqa: PTH116  # not removed while we waited
            return held
    except OSError:
        pass
    os.close(held)
    return None
