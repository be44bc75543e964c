"""Files to and from a phone: beside their place first, compared by checksum, then moved into it."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

from targets.errors import FailureKind, SessionFailed, UsageError, printable
from targets.files import sha256_of
from targets.transports import adb_scripts as scripts
from targets.transports.adb_session import SHORT_S, AdbSession, check_path

MAX_FILE_BYTES = 4 * 2**30 - 1
"""Largest file that is copied: adb's older file protocol tells sizes in 32 bits."""

_SLOWEST_BYTES_PER_S = 256 * 1024


@dataclass(frozen=True)
class About:
    """A file on the phone.

    Attributes:
        size: Bytes.
        sha256: Hexadecimal; empty where the phone has no ``sha256sum``.
    """

    size: int
    sha256: str


def describe(session: AdbSession, remote: str) -> About | None:
    """Look at a file on the phone.

    Returns:
        ``None`` where there is nothing of that name.

    Raises:
        SessionFailed: If it is no plain file, cannot be read, or is too large.
    """
    what = f"looking at {printable(remote)} on {session.name}"
    timeout_s = SHORT_S + MAX_FILE_BYTES / _SLOWEST_BYTES_PER_S / 64  # hashing is far faster than any wire
    with session.guarded(what, timeout_s):
        lines = session.ask(scripts.describe_script(remote), timeout_s)
    if lines == ["absent"]:
        return None
    if lines in (["special"], ["unreadable"]):
        reason = "it is no plain file" if lines == ["special"] else "permission denied"
        raise SessionFailed(f"cannot read {printable(remote)} on {session.name}: {reason}", FailureKind.TOOL_ERROR)
    text = "\n".join(lines)
    found = re.fullmatch(r"size (\d{1,15})(?:\nsum ([0-9a-f]{64})\s+-)?\ntold", text)
    if found is None:
        raise SessionFailed(f"{what} gave no answer: {printable(text)}", FailureKind.TOOL_ERROR)
    if int(found[1]) > MAX_FILE_BYTES:
        raise SessionFailed(
            f"{printable(remote)} on {session.name} has {found[1]} bytes; at most {MAX_FILE_BYTES} are copied",
            FailureKind.TOOL_ERROR,
        )
    return About(int(found[1]), found[2] or "")


def push(session: AdbSession, local: Path, remote: str) -> None:
    """See :meth:`targets.transports.base.Transport.push`.

    Raises:
        UsageError: If the local file cannot be read, or the name cannot be used.
        SessionFailed: If the copy cannot be written or differs.
    """
    check_path(remote)
    try:
        if not local.is_file():
            raise UsageError(f"cannot push {local}: no such file", "Check the path.")
        sha256, status = sha256_of(local), local.stat()
    except OSError as error:
        raise UsageError(f"cannot push {local}: {error.strerror}", "Check its permissions.") from error
    token = secrets.token_hex(8)
    below = remote.startswith(f"{session.work_folder}/")
    temporary = f"{session.work_folder}/push-{token}" if below else f"{scripts.parent_of(remote)}/.push-{token}"
    timeout_s = SHORT_S + status.st_size / _SLOWEST_BYTES_PER_S
    what = f"the copy of {printable(local.name)} to {printable(remote)} on {session.name}"
    with session.guarded(what, timeout_s, files=[temporary]):
        _prepare(session, what, remote, temporary, status.st_size)
        session.connection.push(local, temporary, 0o100600 | (status.st_mode & 0o777), timeout_s)
        word = session.ask(scripts.place_script(temporary, remote, sha256), timeout_s)[-1]
        if word == "nosum" and _hash_by_pulling(session, temporary, status.st_size, timeout_s) == sha256:
            word = session.ask(scripts.place_script(temporary, remote, sha256, trusted=True), timeout_s)[-1]
    if word != "placed":
        reason = "the checksums differ" if word in ("differs", "nosum") else printable(word)
        raise SessionFailed(f"{what} failed: {reason}", FailureKind.TOOL_ERROR, "Try again.")


def pull(session: AdbSession, remote: str, local: Path) -> None:
    """See :meth:`targets.transports.base.Transport.pull`.

    Raises:
        UsageError: If the local place cannot be written, or the name cannot be used.
        SessionFailed: If the file is not there, cannot be read, is too large, or the copy differs.
    """
    check_path(remote)
    if not local.parent.is_dir() or local.is_dir():
        reason = "it is a folder" if local.is_dir() else "its folder does not exist"
        raise UsageError(f"cannot pull to {local}: {reason}", "Name a file in a folder that exists.")
    about = describe(session, remote)
    what = f"the copy of {printable(remote)} from {session.name}"
    if about is None:
        raise SessionFailed(f"{what} failed: no such file on the device", FailureKind.TOOL_ERROR)
    timeout_s = SHORT_S + about.size / _SLOWEST_BYTES_PER_S
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=local.parent, prefix=f".{local.name[:100]}.")
        os.close(handle)
        temporary = Path(name)
        with session.guarded(what, timeout_s):
            session.connection.pull(remote, temporary, about.size, timeout_s)
        _compare(what, temporary, about)
        temporary.chmod(0o644)
        temporary.replace(local)
    except OSError as error:
        raise UsageError(f"cannot pull to {local}: {error.strerror}", "Name another place.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def checksum(session: AdbSession, remote: str) -> str | None:
    """See :meth:`targets.transports.base.Transport.checksum`.

    Raises:
        SessionFailed: If it cannot be read.
        UsageError: If the name cannot be used.
    """
    check_path(remote)
    about = describe(session, remote)
    if about is None or about.sha256:
        return about.sha256 if about else None
    timeout_s = SHORT_S + about.size / _SLOWEST_BYTES_PER_S
    with session.guarded(f"the checksum of {printable(remote)} on {session.name}", timeout_s):
        return _hash_by_pulling(session, remote, about.size, timeout_s)


def _prepare(session: AdbSession, what: str, remote: str, temporary: str, size: int) -> None:
    """Make the folders, and see that the file fits: adbd's word of a full disk is lost on adb-shell."""
    lines = session.ask(scripts.prepare_script(remote, temporary))
    if lines[-1] == "folder":
        raise SessionFailed(f"{what} failed: there is a folder of that name", FailureKind.TOOL_ERROR)
    if lines[-1] != "ready":
        raise SessionFailed(f"{what} failed: {printable(' '.join(lines[:-1]), 200)}", FailureKind.TOOL_ERROR)
    free = re.search(r"\s\d+\s+\d+\s+(\d+)\s+\d+%", " ".join(lines))
    if free is not None and int(free[1]) * 1024 < size:
        raise SessionFailed(
            f"{what} failed: it has {size} bytes and the device has {int(free[1]) * 1024} free",
            FailureKind.TOOL_ERROR,
            "Free some space on the device.",
        )


def _hash_by_pulling(session: AdbSession, remote: str, size: int, timeout_s: float) -> str:
    """Hash of a file on a phone that has no ``sha256sum``."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        session.connection.pull(remote, copy, size, timeout_s)
        return sha256_of(copy)


def _compare(what: str, copy: Path, about: About) -> None:
    size = copy.stat().st_size
    if size != about.size:
        raise SessionFailed(f"{what} failed: {size} of {about.size} bytes came", FailureKind.TOOL_ERROR, "Try again.")
    if about.sha256 and sha256_of(copy) != about.sha256:
        raise SessionFailed(f"{what} failed: the checksums differ", FailureKind.TOOL_ERROR, "Try again.")
