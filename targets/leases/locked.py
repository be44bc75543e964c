"""Small JSON files that many processes of one host change in turn: no server, no half-written state."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from targets.errors import KitError, StoreError, UsageError
from targets.files import write_atomic

_MAX_BYTES = 2**20


def state_folder(name: str) -> Path:
    """Where such files lie: a folder for one user on one host, under ``$XDG_CACHE_HOME`` or ``~/.cache``.

    It is not under ``$XDG_RUNTIME_DIR``, which a person's shell has and the same person's CI runner has not.

    Args:
        name: Its last part.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says that a relative path is to be ignored.
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"  # noqa: PTH117
    return root / "inas-deploy" / "hosts" / (platform.node() or "localhost") / name


class LockedFiles:
    """JSON files by key in a folder of the user's own.

    Args:
        folder: Made where it is missing.

    Raises:
        UsageError: If it cannot be made, or others may write to it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            there = folder.stat()
        except OSError as error:
            raise UsageError(
                f"cannot make the folder {folder}: {error.strerror}", "Set XDG_CACHE_HOME to a folder of yours."
            ) from error
        if there.st_uid != os.geteuid() or there.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise UsageError(
                f"{folder} is not yours alone", "Set XDG_CACHE_HOME to a folder that only you can write to."
            )

    @contextmanager
    def changing(self, key: str, wait_s: float) -> Iterator[dict[str, Any]]:
        """A key's content, to be changed in place; written at the end, unless an error ends it, where it differs.

        Args:
            key: Which file.
            wait_s: How long to wait for the lock. A change takes milliseconds: whoever keeps a file for seconds was
                stopped in the middle of one.

        Raises:
            KitError: If the file cannot be read or written, or another process keeps it locked.
        """
        path = self._path(key)
        with _locked(path.with_suffix(".lock"), wait_s):
            content = _read(path)
            before = json.dumps(content, sort_keys=True)
            yield content
            if json.dumps(content, sort_keys=True) != before:
                write_atomic(path, json.dumps({**content, "key": key}).encode())

    def contents(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Keys and contents of all files, without locking: each is whole, since they are replaced at once.

        Raises:
            KitError: If one cannot be read.
        """
        for path in sorted(self.folder.glob("*.json")):
            if content := _read(path):
                yield str(content.get("key", path.stem)), content

    def _path(self, key: str) -> Path:
        readable = re.sub(r"[^A-Za-z0-9-]+", "-", key)[:40].strip("-")
        return self.folder / f"{readable}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


@contextmanager
def _locked(path: Path, wait_s: float) -> Iterator[None]:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StoreError(f"cannot open {path}: {error.strerror}", "Check the folder's permissions.") from error
    try:
        deadline = time.monotonic() + wait_s
        while not _try_lock(handle, path):
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{path} has been locked for {wait_s:g} s by another process",
                    f"It may have been stopped: find it with 'fuser {path}' and let it go on or end it.",
                )
            time.sleep(0.005)
        yield
    finally:
        os.close(handle)


def _try_lock(handle: int, path: Path) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno == errno.EINTR:
            return False
        raise StoreError(f"cannot lock {path}: {error.strerror}", "Set XDG_CACHE_HOME to a local disk.") from error
    return True


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        content = json.loads(raw)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}", "Check its permissions.") from error
    except (ValueError, RecursionError) as error:
        raise damaged(path) from error
    if not isinstance(content, dict) or len(raw) > _MAX_BYTES:
        raise damaged(path)
    return content


def damaged(path: Path) -> KitError:
    """The error for a file that holds something else than it should."""
    return StoreError(f"{path} is damaged", "Remove it while nobody measures.")
