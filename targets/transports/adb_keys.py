"""RSA keys by which a phone knows this computer: made once, kept where only their owner reads them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from targets.errors import DeviceUnavailable
from targets.extras import require

ADB_OWN_KEY = Path("~/.android/adbkey")
"""Where the ``adb`` program keeps its key: a phone that accepted that one need not ask again."""


def default_key_file() -> Path:
    """Private key for phones whose inventory entry names none."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path("~/.config").expanduser()) / "inas-deploy" / "adbkey"


def key_files(named: str | None) -> list[Path]:
    """Private keys to offer to a phone, the one it would be asked to accept first.

    Args:
        named: The inventory's ``key_file``, if it names one; then no other is offered.

    Raises:
        DeviceUnavailable: If a key cannot be made, or others may read it.
        MissingExtra: If the package that makes keys is not installed.
    """
    first = ensure_key(Path(named).expanduser() if named else default_key_file())
    own = ADB_OWN_KEY.expanduser()
    usable = not named and own.is_file() and own.with_suffix(".pub").is_file() and os.access(own, os.R_OK)
    return [first, own] if usable else [first]


def ensure_key(path: Path) -> Path:
    """Make a key pair unless it is there: ``path`` (0600, in a folder of 0700 if that is new) and ``path.pub``.

    Args:
        path: Of the private key.

    Returns:
        The same path.

    Raises:
        DeviceUnavailable: If it cannot be made, or others may read it.
        MissingExtra: If the package that makes keys is not installed.
    """
    keygen = require("adb_shell.auth.keygen", "adb")
    public = path.with_name(f"{path.name}.pub")
    try:
        path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        if not path.exists():
            _make_pair(path, public, keygen)
        if path.stat().st_mode & 0o077:
            raise DeviceUnavailable(f"others may read the private key {path}", f"Run: chmod 600 {path}")
        if not public.exists():
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                keygen.write_public_keyfile(str(path), f"{folder}/public")
                Path(folder, "public").replace(public)
    except OSError as error:
        raise DeviceUnavailable(
            f"the adb key {path} cannot be made or read: {error.strerror}", "Name another with key_file."
        ) from error
    except ValueError as error:  # what cryptography says of a file that is no key
        raise DeviceUnavailable(
            f"{path} is not a private key that can be used", "Remove it or name another."
        ) from error
    return path


def _make_pair(path: Path, public: Path, keygen: object) -> None:
    """Make both files in a private folder and link them into place, so that no process ever sees half a key."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # made with mode 0700
        fresh = Path(folder) / "adbkey"
        keygen.keygen(str(fresh))  # type: ignore[attr-defined]  # an optional package has no types here
        fresh.chmod(0o600)
        try:
            path.hardlink_to(fresh)
        except FileExistsError:  # another process was first; its key counts
            return
        Path(f"{fresh}.pub").replace(public)
