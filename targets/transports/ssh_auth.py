"""Private keys for ``ssh``: which are tried, and which are refused before they are used."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from targets.errors import DeviceUnavailable
from targets.extras import require
from targets.inventory import Device

_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
_MAX_KEY_BYTES = 2**20


class Locked(DeviceUnavailable):
    """A private key asks for a passphrase."""


@dataclass
class Identities:
    """The keys to try at one login, in order; a key is read when its turn comes.

    Attributes:
        device: Its ``key_file`` is the only one tried, if it names one.
        tried: Names of the keys handed out so far, and of those passed over with the reason.
    """

    device: Device
    tried: list[str] = field(default_factory=list)
    _agent: Any = None

    def candidates(self) -> Iterator[Any]:
        """Keys that can sign.

        Raises:
            DeviceUnavailable: If the device's own key file cannot be used; the line says why.
        """
        if self.device.key_file is not None:
            yield from self._own(Path(self.device.key_file).expanduser())
            return
        yield from self._from_agent(lambda key: True)
        for path in (Path("~/.ssh").expanduser() / name for name in _DEFAULT_KEYS):
            if path.is_file():
                try:
                    key = load_key(path)
                except DeviceUnavailable as error:
                    reason = "asks for a passphrase" if isinstance(error, Locked) else "cannot be used"
                    self.tried.append(f"{path.name} ({reason})")
                else:
                    self.tried.append(path.name)
                    yield key

    def close(self) -> None:
        """Let go of the ssh agent."""
        if self._agent is not None:
            self._agent.close()

    def _own(self, path: Path) -> Iterator[Any]:
        try:
            key = load_key(path)
        except Locked:
            public = _public_blob(path)
            found = False
            for key in self._from_agent(lambda candidate: candidate.asbytes() == public):
                found = True
                yield key
            if not found:
                raise
            return
        self.tried.append(path.name)
        yield key

    def _from_agent(self, wanted: Callable[[Any], bool]) -> Iterator[Any]:
        paramiko = require("paramiko", "ssh")
        try:
            self._agent = paramiko.Agent()
            keys = self._agent.get_keys()
        except (paramiko.SSHException, OSError, EOFError):  # an agent that went away is as good as none
            return
        for key in keys:
            if wanted(key):
                self.tried.append(f"a key of the ssh agent ({key.get_name()})")
                yield key


def load_key(path: Path) -> Any:
    """Read a private key.

    Args:
        path: An OpenSSH or PEM file.

    Raises:
        Locked: If it asks for a passphrase.
        DeviceUnavailable: If others may read it, or it is no such file; nothing of its content is shown.
    """
    paramiko = require("paramiko", "ssh")
    exceptions = require("cryptography.exceptions", "ssh")
    try:
        status = path.stat()
        if is_public_key(path):
            raise DeviceUnavailable(f"{path} is the public half of a key", "Name the private one as key_file.")
        if status.st_mode & 0o077:
            raise DeviceUnavailable(f"private key {path} can be used by others", f"Run: chmod 600 {path}")
        if status.st_size > _MAX_KEY_BYTES:
            raise DeviceUnavailable(f"{path} is too large for a private key", "Name the private key as key_file.")
        return paramiko.PKey.from_path(path)
    except OSError as error:
        raise DeviceUnavailable(f"private key {path} cannot be read: {error.strerror}", "Check key_file.") from error
    except (TypeError, paramiko.PasswordRequiredException) as error:  # the first: what cryptography says for it
        raise Locked(f"private key {path} asks for a passphrase", f"Unlock it first: ssh-add {path}") from error
    except (paramiko.SSHException, paramiko.UnknownKeyType, exceptions.UnsupportedAlgorithm, ValueError):
        raise DeviceUnavailable(  # "from None": those errors may quote the file
            f"{path} is no private key that can be used", "Make one: ssh-keygen -t ed25519"
        ) from None


def is_public_key(path: Path) -> bool:
    """Whether a file is the public half of a key, which a private one must not be mixed up with."""
    try:
        with path.open("rb") as file:
            return re.match(rb"(?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+ AAAA", file.read(200)) is not None
    except OSError:
        return False


def _public_blob(path: Path) -> bytes:
    """The public half that lies beside a private key, in the protocol's form; empty where there is none."""
    try:
        return base64.b64decode(path.with_name(f"{path.name}.pub").read_text(encoding="utf-8").split()[1])
    except (OSError, IndexError, ValueError, binascii.Error):
        return b""
