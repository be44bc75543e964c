"""The folder in which exported and converted models are kept, and the rule by which a kept file is used again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from targets.errors import UsageError
from targets.files import sha256_of


def cache_folder(cache_dir: Path | None = None) -> Path:
    """Where exports are kept: the given folder, ``$XDG_CACHE_HOME/inas_deploy`` or ``~/.cache/inas_deploy``."""
    if cache_dir is not None:
        return cache_dir
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says that a relative path is to be ignored.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "inas_deploy"  # noqa: PTH117


def make_folder(folder: Path) -> None:
    """Make a cache folder.

    Raises:
        UsageError: If that is not possible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make the cache folder {folder} ({error.strerror})", "Set XDG_CACHE_HOME to a writable folder."
        ) from error


def kept_file(name: str, key: str, folder: Path, make: Callable[[Path], object]) -> Path:
    """The file of a key, made where it is missing or damaged.

    Args:
        name: Start of the file's name and its suffix, for people: ``csnet-224x224.onnx``.
        key: All that decides the content.
        folder: Cache folder.
        make: Writes the file.

    Raises:
        UsageError: If the folder cannot be made.
    """
    stem, dot, suffix = name.rpartition(".")
    path = folder / f"{stem}-{hashlib.sha256(key.encode()).hexdigest()[:12]}{dot}{suffix}"
    sums = path.with_name(f"{path.name}.sha256")
    if path.is_file() and sums.is_file() and sums.read_text(encoding="ascii", errors="replace") == sha256_of(path):
        return path
    make_folder(folder)
    make(path)
    sums.write_text(sha256_of(path), encoding="ascii")
    return path


def code_sha256(folders: Iterable[Path]) -> str:
    """Hash of the Python code in folders: what an older version of it made must not be taken for this one's."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
