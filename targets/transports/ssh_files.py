"""Files over ``ssh``: through sftp, under a temporary name first, and compared by checksum on both sides."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import posixpath
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from targets.errors import FailureKind, SessionFailed, UsageError, printable

if TYPE_CHECKING:
    from targets.transports.ssh import SshTransport
    from targets.transports.ssh_link import Link

MAX_PULL_BYTES = 4 * 2**30
_CHUNK = 2**15  # every sftp server takes packets of this size
_PATIENCE_S = 60.0
_SLOWEST_BYTES_PER_S = 100_000
_SHORT_S = 60.0
_EXTENDED = 200  # the sftp protocol's request for what servers add to it

_REMOVE = """
root=$(cd -P -- "$1" && pwd -P && echo x) || exit 3
root=${root%??}
[ -e "$2" ] || [ -h "$2" ] || exit 0
parent=$(cd -P -- "$2" && pwd -P && echo x) || exit 3
parent=${parent%??}
case $parent/ in "$root"/*) ;; *) exit 4 ;; esac
exec rm -rf -- "$parent/$3"
"""


# Without its input, or without a head that knows -c, the pipe would hash nothing and say so with status 0.
_HASH = """
head -c 1 </dev/null || exit 1
exec < "$1" || exit 1
head -c "$2" | sha256sum
"""

# In two steps, because the first may be a copy from another file system.
_PLACE = """
[ ! -d "$2" ] || exit 1
case $2 in */*) beside=${2%/*}/.${1##*/} ;; *) beside=.${1##*/} ;; esac
if mv -f -- "$1" "$beside" && mv -f -- "$beside" "$2"; then exit 0; fi
rm -f -- "$beside"
exit 1
"""


def seconds_for(size: int) -> float:
    """Deadline for moving or hashing that many bytes, seconds."""
    return _PATIENCE_S + size / _SLOWEST_BYTES_PER_S


def push(transport: SshTransport, local: Path, remote: str) -> None:
    """See :meth:`targets.transports.ssh.SshTransport.push`."""
    what = f"pushing {printable(local.name)} to {printable(remote)}"
    try:
        source = local.open("rb")
    except OSError as error:
        raise UsageError(f"cannot push {printable(str(local))}: {error.strerror}", "Check the path.") from error
    with source:
        status = os.fstat(source.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"cannot push {printable(str(local))}: it is no plain file", "Name a file.")
        link, placed = transport.link(), False
        temporary = _temporary(transport, link, remote)
        try:
            digest = _upload(link, source, status, temporary, what)
            if _remote_hash(transport, temporary, status.st_size) != digest:
                raise SessionFailed(f"{what}: the copy differs", FailureKind.TOOL_ERROR, "Check the disk there.")
            _rename(transport, temporary, remote, what)
            placed = True
        except _DeviceRefused as refused:
            why = refused.why or _why_full(transport, posixpath.dirname(remote), status.st_size)
            raise SessionFailed(f"{what}: {why}", FailureKind.TOOL_ERROR, refused.fix) from refused
        finally:
            if not placed:
                with contextlib.suppress(SessionFailed):
                    _discard(link, temporary)


def _temporary(transport: SshTransport, link: Link, remote: str) -> str:
    """Where a file lies until it is whole: under the work folder, where the guard removes it if the connection ends."""
    folder, name = posixpath.split(remote)
    if PurePosixPath(transport.work_folder) in PurePosixPath(remote).parents and link.guard is not None:
        return f"{link.guard.run_folder}/u-{secrets.token_hex(6)}"
    return posixpath.join(folder, f".{name[:40]}.{secrets.token_hex(6)}.part")


class _DeviceRefused(Exception):
    """The device answered that it cannot do this; ``why`` is empty where it gives no reason."""

    def __init__(self, why: str, fix: str) -> None:
        super().__init__(why)
        self.why, self.fix = why, fix


@contextlib.contextmanager
def _answers(link: Link, what: str, seconds: float) -> Iterator[None]:
    """Tell an answer of the sftp server (the device refuses) from a broken connection.

    paramiko raises plain ``OSError`` for both; an answer has no number, or one of these two, and the connection stands.
    """
    refused: _DeviceRefused | None = None
    with link.talking(what, seconds):
        try:
            yield
        except OSError as error:
            known = {errno.ENOENT: "no such file or folder on the device", errno.EACCES: "permission denied there"}
            answered = error.errno in known or (error.errno is None and type(error) is OSError)
            if not answered or not link.alive:
                raise
            refused = _DeviceRefused(known.get(error.errno or 0, ""), "Check path, permissions and space there.")
    if refused is not None:
        raise refused


def _upload(link: Link, source: Any, status: os.stat_result, temporary: str, what: str) -> str:
    digest = hashlib.sha256()
    with _answers(link, what, seconds_for(status.st_size)), link.lock:
        sftp = link.sftp()
        with sftp.open(_name(temporary), "wx") as file:
            chunk = source.read(_CHUNK)
            while chunk:
                following = source.read(_CHUNK)
                file.set_pipelined(bool(following))  # the last write waits for what became of all before it
                digest.update(chunk)
                file.write(chunk)
                chunk = following
            file.chmod(stat.S_IMODE(status.st_mode) & 0o777)
            _sync(sftp, file)
    return digest.hexdigest()


def _sync(sftp: Any, file: Any) -> None:
    """Have the device write the file to its disk, if its server knows how (OpenSSH's extension)."""
    try:
        sftp._request(_EXTENDED, "fsync@openssh.com", file.handle)
    except OSError as error:
        if "unsupported" not in str(error).lower():
            raise


def _rename(transport: SshTransport, temporary: str, remote: str, what: str) -> None:
    link = transport.link()
    try:
        with _answers(link, what, _SHORT_S), link.lock:
            link.sftp().posix_rename(_name(temporary), _name(remote))
    except _DeviceRefused:  # an old server without that extension, or a real obstacle
        argv = ["sh", "-c", _PLACE, "sh", temporary, remote]
        done = transport.run(argv, timeout_s=_SHORT_S)
        if done.returncode != 0:
            said = printable(done.stderr.strip()) or "its place is taken by a folder"
            raise _DeviceRefused(said, "Name another place.") from None


def _discard(link: Link, temporary: str) -> None:
    if link.alive:
        with contextlib.suppress(_DeviceRefused), _answers(link, "clearing up", _SHORT_S), link.lock:
            link.sftp().remove(_name(temporary))


def _why_full(transport: SshTransport, folder: str, size: int) -> str:
    """A reason for a refusal without one, from the free space."""
    done = transport.run(["df", "-Pk", "--", folder], timeout_s=_SHORT_S)
    found = re.findall(rb"\s(\d{1,18})\s+\d{1,3}%\s", done.stdout)
    if found and int(found[-1]) * 1024 < size:
        return f"the disk there is full ({int(found[-1])} KiB free, {size // 1024 + 1} KiB needed)"
    return "the device refuses without a reason"


def pull(transport: SshTransport, remote: str, local: Path) -> None:
    """See :meth:`targets.transports.ssh.SshTransport.pull`."""
    what = f"pulling {printable(remote)}"
    if not local.parent.is_dir():
        raise UsageError(f"cannot pull to {printable(str(local))}: its folder does not exist", "Make the folder first.")
    link = transport.link()
    try:
        size = _size_of(transport, link, remote, what)
    except _DeviceRefused as refused:
        why = refused.why or "the device refuses without a reason"
        raise SessionFailed(f"{what}: {why}", FailureKind.TOOL_ERROR, refused.fix) from refused
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=local.parent, prefix=f".{local.name[:100]}.")
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            digest = _download(link, remote, size, file.write, what)
        if _remote_hash(transport, remote, size) != digest:
            raise SessionFailed(f"{what}: the copy differs", FailureKind.TOOL_ERROR, "Is it still being written?")
        temporary.chmod(0o644)
        temporary.replace(local)
    except OSError as error:
        raise UsageError(
            f"cannot pull to {printable(str(local))}: {error.strerror}", "Free some space or name another place."
        ) from error
    except _DeviceRefused as refused:
        raise SessionFailed(f"{what}: {refused.why or 'it cannot be read'}", FailureKind.TOOL_ERROR) from refused
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _size_of(transport: SshTransport, link: Link, remote: str, what: str) -> int:
    with _answers(link, what, _SHORT_S), link.lock:
        sftp = link.sftp()
        status = sftp.stat(_name(remote))
        root, real = (_text(sftp.normalize(_name(path))) for path in (transport.work_folder, remote))
    mode, size = status.st_mode, status.st_size
    if not isinstance(mode, int) or not stat.S_ISREG(mode) or not isinstance(size, int):
        raise _DeviceRefused("it is no plain file", "Name a file.")
    inside = PurePosixPath(transport.work_folder) in PurePosixPath(remote).parents
    if inside and PurePosixPath(root) not in PurePosixPath(real).parents:
        raise _DeviceRefused("it is a link that leads out of the work folder", "Remove it there.")
    if size > MAX_PULL_BYTES:
        raise _DeviceRefused(_too_large(size), "Copy it by hand.")
    return size


def _too_large(size: int) -> str:
    return f"it says it has {size} bytes, and {MAX_PULL_BYTES} is the most"


def _download(link: Link, remote: str, size: int, write: Callable[[bytes], object], what: str) -> str:
    """Read as many bytes as were announced and not one more; an ``OSError`` of ``write`` comes out as itself.

    One request at a time: paramiko's reading ahead leaves a thread that prints its traceback where a connection breaks.
    """
    digest, left, failed = hashlib.sha256(), size, None
    with _answers(link, what, seconds_for(size)), link.lock, link.sftp().open(_name(remote), "rb") as file:
        while left and failed is None:
            chunk = file.read(min(_CHUNK, left))
            if not chunk:
                raise OSError("the file ends early")  # an answer, like the server's own
            digest.update(chunk)
            left -= len(chunk)
            try:
                write(chunk)
            except OSError as error:
                failed = error
    if failed is not None:
        raise failed
    return digest.hexdigest()


def checksum(transport: SshTransport, remote: str) -> str | None:
    """See :meth:`targets.transports.ssh.SshTransport.checksum`."""
    what = f"reading {printable(remote)}"
    link = transport.link()
    try:
        with _answers(link, what, _SHORT_S), link.lock:
            status = link.sftp().stat(_name(remote))
        if not isinstance(status.st_mode, int) or not stat.S_ISREG(status.st_mode):
            return None
        size = status.st_size or 0
        if size > MAX_PULL_BYTES:
            raise SessionFailed(f"{what}: {_too_large(size)}", FailureKind.TOOL_ERROR, "Remove it there.")
        return _remote_hash(transport, remote, size)
    except _DeviceRefused as refused:
        if refused.why.startswith("no such file"):
            return None
        raise SessionFailed(f"{what}: {refused.why or 'it cannot be read'}", FailureKind.TOOL_ERROR) from refused


def _remote_hash(transport: SshTransport, remote: str, size: int) -> str:
    """SHA-256 of a file of a known size by the device's own tool; where it has none, of what sftp reads back."""
    # One byte more than announced is asked for: a file that has grown since is another one, and is not read to its end.
    argv = ["sh", "-c", _HASH, "sh", remote, str(size + 1)]
    done = transport.run(argv, timeout_s=seconds_for(size))
    found = re.match(rb"([0-9a-f]{64})\s", done.stdout)
    if done.returncode == 0 and found:
        return found[1].decode()
    link = transport.link()
    return _download(link, remote, size, lambda chunk: None, f"reading {printable(remote)}")


def remove(transport: SshTransport, remote: str) -> None:
    """See :meth:`targets.transports.ssh.SshTransport.remove`."""
    path, root = PurePosixPath(remote), PurePosixPath(transport.work_folder)
    if ".." in path.parts or root not in path.parents:
        raise UsageError(
            f"{printable(remote)} is not under {printable(str(root))}", "Only the kit's own files are removed."
        )
    argv = ["sh", "-c", _REMOVE, "sh", str(root), str(path.parent), path.name]
    done = transport.run(argv, timeout_s=_SHORT_S)
    if done.returncode == 4:
        raise UsageError(
            f"{printable(remote)} lies behind a link that leads out of {printable(str(root))}",
            "Only the kit's own files are removed.",
        )
    if done.returncode != 0:
        raise SessionFailed(
            f"cannot remove {printable(remote)}: {printable(done.stderr.strip())}",
            FailureKind.TOOL_ERROR,
            "Remove it by hand.",
        )


def _name(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _text(path: str | bytes) -> str:
    return path if isinstance(path, str) else path.decode("utf-8", "surrogateescape")
