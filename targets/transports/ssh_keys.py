"""Host keys: who a device proves to be over ``ssh``, and the known-hosts files that say who it should be."""

from __future__ import annotations

import base64
import binascii
import errno
import fcntl
import fnmatch
import hashlib
import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from targets.errors import DeviceUnavailable, UsageError, printable
from targets.inventory import Device

SYSTEM_KNOWN_HOSTS = Path("/etc/ssh/ssh_known_hosts")
MAX_KNOWN_HOSTS_BYTES = 16 * 2**20
DEFAULT_PORT = 22


@dataclass(frozen=True)
class HostKey:
    """The public key a host shows.

    Attributes:
        host: Name or address it was asked under.
        port: Port.
        kind: Algorithm, for example ``ssh-ed25519``.
        blob: The key in the protocol's own form.
    """

    host: str
    port: int
    kind: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """What ``ssh-keygen -l`` prints: ``SHA256:`` and the hash in base 64 without padding."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    @property
    def name(self) -> str:
        """The host as known-hosts files write it: ``HOST``, or ``[HOST]:PORT`` where the port is not 22."""
        return self.host if self.port == DEFAULT_PORT else f"[{self.host}]:{self.port}"

    @property
    def line(self) -> str:
        """Its line in a known-hosts file."""
        return f"{self.name} {self.kind} {base64.b64encode(self.blob).decode()}"


@dataclass(frozen=True)
class KnownKey:
    """One usable line of a known-hosts file.

    Attributes:
        hosts: Its first field: names, patterns or a hashed name.
        kind: Algorithm.
        blob: The key.
        revoked: Whether the line says that this key must not be trusted.
        place: File and line.
    """

    hosts: str
    kind: str
    blob: bytes
    revoked: bool
    place: str

    def names(self, name: str) -> bool:
        """Whether the line speaks about a host, given as :attr:`HostKey.name`."""
        if self.hosts.startswith("|"):
            return _hashed_match(self.hosts, name)
        found = False
        for pattern in self.hosts.lower().split(","):
            wanted = pattern.removeprefix("!")
            # Brackets are the address form here, not a set of characters.
            if fnmatch.fnmatchcase(name.lower(), wanted.replace("[", "[[]")):
                if wanted != pattern:
                    return False
                found = True
        return found


def _hashed_match(hosts: str, name: str) -> bool:
    parts = hosts.split("|")
    if len(parts) != 4 or parts[1] != "1":
        return False
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in parts[2:])
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)


def parse_known_hosts(text: str, place: str = "known_hosts") -> list[KnownKey]:
    """Read a known-hosts file's text (format: ``sshd(8)``, "SSH_KNOWN_HOSTS FILE FORMAT").

    Lines that are not understood, and those about certificate authorities, vouch for nobody and are passed over.

    Args:
        text: The file's content.
        place: Its name, for messages.
    """
    keys = []
    for number, line in enumerate(text.split("\n"), 1):
        fields = line.split()
        marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
        if len(fields) < 3 or fields[0].startswith("#") or marker not in ("", "@revoked"):
            continue
        try:
            blob = base64.b64decode(fields[2], validate=True)
        except (binascii.Error, ValueError):
            continue
        keys.append(KnownKey(fields[0], fields[1], blob, bool(marker), f"{place}:{number}"))
    return keys


def own_known_hosts(device: Device) -> Path:
    """The file that :func:`accept_host_key` writes: the device's own, or the user's."""
    return Path(device.known_hosts or "~/.ssh/known_hosts").expanduser()


def known_keys(device: Device, name: str) -> list[KnownKey]:
    """All that the known-hosts files say about one host.

    Args:
        device: Its ``known_hosts`` is read instead of the user's and the system's, if it names one.
        name: As :attr:`HostKey.name`.

    Raises:
        DeviceUnavailable: If a file is there and cannot be read.
    """
    paths = [own_known_hosts(device)] + ([] if device.known_hosts else [SYSTEM_KNOWN_HOSTS])
    return [key for path in paths for key in parse_known_hosts(_read(path), str(path)) if key.names(name)]


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KNOWN_HOSTS_BYTES + 1)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise DeviceUnavailable(f"cannot read {path}: {error.strerror}", "Check its permissions.") from error
    if len(data) > MAX_KNOWN_HOSTS_BYTES:
        raise DeviceUnavailable(f"{path} is larger than {MAX_KNOWN_HOSTS_BYTES} bytes", "Remove what is not needed.")
    return data.decode("utf-8", "replace")


def judge_key(shown: HostKey, known: Iterable[KnownKey]) -> Literal["known", "unknown", "changed", "revoked"]:
    """Compare the key a host shows with what is known about that host.

    Args:
        shown: The key.
        known: From :func:`known_keys`, for the same host.
    """
    known = list(known)
    if any(key.revoked and key.blob == shown.blob for key in known):
        return "revoked"
    trusted = [key for key in known if not key.revoked]
    if any(key.kind == shown.kind and key.blob == shown.blob for key in trusted):
        return "known"
    return "changed" if trusted else "unknown"


def check_key(device: Device, shown: HostKey, known: list[KnownKey]) -> None:
    """Refuse a host that is not known to be itself.

    Raises:
        DeviceUnavailable: If the key is unknown, changed or revoked; the line names the fingerprints and what to do.
    """
    verdict = judge_key(shown, known)
    if verdict == "known":
        return
    what = f"device {device.name!r}: host {printable(shown.name)} shows"
    key = f"{printable(shown.kind)} key {shown.fingerprint}"
    if verdict == "revoked":
        raise DeviceUnavailable(f"{what} {key}, which is marked as revoked", "Do not trust it; ask who runs the host.")
    if verdict == "changed":
        old = next(entry for entry in known if not entry.revoked)
        before = HostKey(shown.host, shown.port, old.kind, old.blob)
        raise DeviceUnavailable(
            f"{what} {key}, and {old.place} knows it by {printable(old.kind)} key {before.fingerprint}",
            "Somebody may be in between, or the device was set up anew. If you know it was, remove the old key "
            f"(ssh-keygen -R '{printable(shown.name)}' -f {old.place.rpartition(':')[0]}) and accept the new one.",
        )
    raise DeviceUnavailable(
        f"{what} an unknown {key}",
        "Compare the fingerprint with the one on the device (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub there), "
        f"then accept it: inas-deploy devices accept {device.name} --fingerprint {shown.fingerprint}",
    )


def scan_host_key(device: Device) -> HostKey:
    """Ask a device which key it shows, without logging in there.

    Behind a jump host, the jump host comes first: while its own key is not known, that one is returned.

    Args:
        device: Reached by ``ssh``.

    Raises:
        DeviceUnavailable: If it cannot be reached, or the jump host refuses.
        MissingExtra: If paramiko is not installed.
    """
    from targets.transports.ssh_link import first_unknown_key

    return first_unknown_key(device)


def accept_host_key(device: Device, fingerprint: str) -> None:
    """Trust a device's key from now on, if it is the one that was meant.

    Args:
        device: Reached by ``ssh``.
        fingerprint: ``SHA256:...``, as the device's owner gave it.

    Raises:
        UsageError: If the device shows another key, or another one is trusted already, or the file cannot be written.
        DeviceUnavailable: If it cannot be reached.
    """
    shown = scan_host_key(device)
    if shown.fingerprint != fingerprint.strip().rstrip("="):
        raise UsageError(
            f"host {printable(shown.name)} shows {printable(shown.kind)} key {shown.fingerprint}, "
            f"not {printable(fingerprint)}",
            "Nothing was accepted. Ask the device's owner for the right fingerprint.",
        )
    known = known_keys(device, shown.name)
    verdict = judge_key(shown, known)
    if verdict in ("changed", "revoked"):
        check_key(device, shown, known)
    if verdict == "unknown":
        _append(own_known_hosts(device), shown.line)


def _append(path: Path, line: str) -> None:
    """Add a line in one write and touch no byte that is there: ssh, too, adds lines to this file."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            size = os.fstat(handle).st_size
            broken = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            data = ("\n" * broken + line + "\n").encode()
            if os.write(handle, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(handle)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", "Name another known_hosts file.") from error
