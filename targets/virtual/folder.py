"""A virtual device's folder: nobody else's, and with one process at a time that starts or stops what lives there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from targets.errors import DeviceUnavailable


def make_private(folder: Path) -> None:
    """Make a folder that only its owner can enter; one that exists is closed to all others.

    Args:
        folder: Absolute; folders above it that are missing are made the same way.

    Raises:
        DeviceUnavailable: If it is another user's, or one that all users share.
        OSError: If it cannot be made.
    """
    for place in (*reversed(folder.parents), folder):
        place.mkdir(mode=0o700, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & stat.S_ISVTX:
        raise DeviceUnavailable(f"{folder} is not a folder of yours alone", "Name a folder of yours.")
    folder.chmod(0o700)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let no other process be in such a block for the same folder; the lock ends with the process that holds it.

    Args:
        folder: Holds the file that is locked.

    Raises:
        OSError: If the file cannot be made or locked.
    """
    with (folder / "lock").open("wb") as file:  # not inherited by what is started meanwhile
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
