"""Who holds a lease: a name for people, and an identity by which others on the host see that the process is gone."""

from __future__ import annotations

import getpass
import os
import platform
import time
from pathlib import Path

from targets.errors import printable

_PROC = Path("/proc")
_ENDED = ("Z", "X")  # a zombie holds nothing
_HIDDEN = "hidden"  # other users' processes may be, and systems without /proc tell nothing


def holder_name() -> str:
    """``USER@HOST pid N`` of this process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        user = str(os.getuid())
    return printable(f"{user}@{platform.node()} pid {os.getpid()}", 190)


def boot_id() -> str:
    """Names the time since the host was started; empty where the system does not tell."""
    return _read(_PROC / "sys/kernel/random/boot_id").strip()


def boot_clock() -> float:
    """Seconds on a clock that runs on while the host sleeps and that nobody can set."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def process_identity() -> str:
    """This process as ``BOOT/NAMESPACE/PID/START``; empty where the system does not tell."""
    started = _started(os.getpid())
    return f"{_origin()}/{os.getpid()}/{started}" if started not in {"", _HIDDEN} else ""


def is_gone(identity: str) -> bool:
    """Whether a process has surely ended: it ran on this host, since its last start, and is not there any more.

    Args:
        identity: From :func:`process_identity`, perhaps of another host or container, of which nothing is known here.
    """
    origin, _, rest = identity.rpartition("/")[0].rpartition("/")
    if not origin or origin != _origin() or not rest.isdecimal():
        return False
    return not _exists(int(rest)) or _started(int(rest)) not in {identity.rpartition("/")[2], _HIDDEN}


def _origin() -> str:
    try:
        return f"{boot_id()}/{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _started(pid: int) -> str:
    """Start of a living process in ticks since boot; empty for one that ended."""
    fields = _read(_PROC / str(pid) / "stat").rpartition(")")[2].split()  # the name before it may hold anything
    if len(fields) <= 19:
        return _HIDDEN
    return fields[19] if fields[0] not in _ENDED else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
