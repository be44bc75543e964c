"""Files that are either whole or not there, and their hashes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from targets.errors import UsageError


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash, never sees half of it.

    Args:
        path: Where to; an existing file is replaced.
        data: All of it.

    Raises:
        UsageError: If the folder is missing or cannot be written, or the path is something else than a file.
    """
    path = path.resolve()  # through a link to the file behind it, which would else be replaced by a plain file
    _refuse_special(path)
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", "Name a folder that exists and is yours.") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", "Free some space or name another place.") from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Hash of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_special(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is a folder, device or pipe", "Name a plain file.")


def check_writable(path: Path | None) -> None:
    """Refuse an output place before the work is done that would be lost there.

    Args:
        path: A file to be written later, or nothing.

    Raises:
        UsageError: If it is a folder, or its folder is missing or not writable.
    """
    if path is None:
        return
    _refuse_special(path)
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"cannot write {path}: its folder does not exist", "Make the folder first.")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write {path}: its folder is not writable", "Name a place that is yours.")
