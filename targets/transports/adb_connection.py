"""One connection to adbd through adb-shell: made when needed, dropped at the first doubt, and made anew."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from targets.errors import DeviceUnavailable, printable
from targets.extras import require
from targets.inventory import Device
from targets.stand_ins import how_to_reach
from targets.transports.adb_keys import key_files
from targets.transports.adb_link import Link, LinkFlooded, LinkLate, LinkLost, LinkRefused, TcpLink, UsbLink

_FOREVER_S = 10.0**9  # adb-shell's own timeouts stay out of the way: the link's deadline ends every wait
_BANNER = b"inas-deploy"
_SLACK_BYTES = 2**20


class Refused(Exception):
    """The device answered a transfer with a refusal, quoted."""


class Unreachable(DeviceUnavailable):
    """Nobody answers now; a phone that restarts may do so soon."""


class AdbConnection:
    """The way to one phone.

    Args:
        device: From the inventory: its ``serial`` (USB) or address, its key and its connect deadline.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._adb: Any = None
        base = require("adb_shell.transport.base_transport", "adb").BaseTransport
        base.register(TcpLink)
        base.register(UsbLink)
        self._module = require("adb_shell.adb_device", "adb")
        self._errors = require("adb_shell.exceptions", "adb")
        self._signer = require("adb_shell.auth.sign_cryptography", "adb").CryptographySigner
        self._link: Link = UsbLink(device.serial) if device.serial else TcpLink(*device.address)

    @property
    def is_open(self) -> bool:
        """Whether nothing has been seen to go wrong since it was opened."""
        return self._adb is not None

    def open(self) -> None:
        """Connect and authenticate, unless that was done.

        Raises:
            DeviceUnavailable: If nobody answers, or the phone has not accepted our key.
        """
        if self._adb is not None:
            return
        try:
            signers = [self._signer(str(path)) for path in key_files(self._device.key_file)]
        except (OSError, ValueError, TypeError) as error:
            raise DeviceUnavailable(f"an adb key cannot be read: {error}", "Name another with key_file.") from error
        asked: list[bool] = []
        limit_s = self._device.connect_timeout_s
        self._link.deadline, self._link.budget_bytes = time.monotonic() + limit_s, _SLACK_BYTES
        self._link.pushing = False
        adb = self._module.AdbDevice(self._link, None, _BANNER)
        with contextlib.ExitStack() as undo:
            undo.callback(self._link.close)  # whatever goes wrong, Ctrl-C included
            try:
                with self._translated():
                    adb.connect(
                        rsa_keys=signers,
                        transport_timeout_s=_FOREVER_S,
                        auth_timeout_s=_FOREVER_S,
                        read_timeout_s=_FOREVER_S,
                        auth_callback=lambda _: asked.append(True),
                    )
            except (LinkLate, LinkLost, LinkFlooded, OSError) as error:
                raise self._not_opened(error, bool(asked)) from error
            undo.pop_all()
        adb._maxdata = min(adb._maxdata, _SLACK_BYTES)  # adb-shell sets aside as much memory as the device names
        self._adb = adb

    def drop(self) -> None:
        """Hang up; whatever runs on the phone for this connection ends then."""
        self._adb = None
        self._link.close()

    def execute(self, script: str, timeout_s: float, limit_bytes: int = _SLACK_BYTES) -> bytes:
        """Run a script and return all it prints.

        Args:
            script: For the phone's shell.
            timeout_s: Deadline.
            limit_bytes: Output expected at most.

        Raises:
            LinkLost: If the device goes away.
            LinkLate: At the deadline.
            LinkFlooded: If it prints more. The connection is dropped after each of these.
            DeviceUnavailable: If the connection has to be made first and cannot be.
        """
        with self._bounded(timeout_s, limit_bytes) as adb:
            data: bytes = adb.exec_out(script, transport_timeout_s=_FOREVER_S, read_timeout_s=_FOREVER_S, decode=False)
            return data

    def push(self, local: Path, remote: str, mode: int, timeout_s: float) -> None:
        """Copy a file to the phone as it is (errors as :meth:`execute`, and :class:`Refused`)."""
        with self._bounded(timeout_s, _SLACK_BYTES) as adb:
            self._link.pushing = True
            adb.push(str(local), remote, st_mode=mode, transport_timeout_s=_FOREVER_S, read_timeout_s=_FOREVER_S)

    def pull(self, remote: str, local: Path, size: int, timeout_s: float) -> None:
        """Copy a file of a known size from the phone (errors as :meth:`execute`, and :class:`Refused`)."""
        with self._bounded(timeout_s, size) as adb:
            adb.pull(remote, str(local), transport_timeout_s=_FOREVER_S, read_timeout_s=_FOREVER_S)

    @contextlib.contextmanager
    def _bounded(self, timeout_s: float, limit_bytes: int) -> Iterator[Any]:
        self.open()
        self._link.deadline, self._link.pushing = time.monotonic() + timeout_s, False
        self._link.budget_bytes = limit_bytes + limit_bytes // 50 + _SLACK_BYTES  # packet headers are under 2 %
        with contextlib.ExitStack() as undo:
            undo.callback(self.drop)  # on any error and on Ctrl-C: a half-read connection is good for nothing
            with self._translated():
                yield self._adb
            undo.pop_all()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        errors = self._errors
        try:
            yield
        except (LinkRefused, errors.PushFailedError, errors.AdbCommandFailureException) as error:
            raise Refused(printable(str(error), 200)) from error
        except (
            errors.InvalidChecksumError,
            errors.InvalidCommandError,
            errors.InvalidResponseError,
            errors.AdbConnectionError,
            errors.DeviceAuthError,
            KeyError,  # adb-shell looks words of the file protocol up in a table
            ValueError,  # a token to sign that is no hash, a header that is none
            struct.error,
        ) as error:
            raise LinkLost(f"the device says something that is not adb: {printable(str(error), 80)}") from error
        except errors.AdbTimeoutError as error:
            raise LinkLate(str(error)) from error

    def _not_opened(self, error: Exception, asked: bool) -> DeviceUnavailable:
        device = self._device
        host, port = device.address
        where = f"{device.name} (serial {device.serial})" if device.serial else f"{device.name} ({host}:{port})"
        if asked:
            return DeviceUnavailable(
                f"{where} has not accepted this computer's key",
                "Accept the key on the phone's screen, with 'always allow', and try again.",
            )
        if "STLS" in str(error):
            return DeviceUnavailable(
                f"{where} wants wireless debugging with pairing, which is not spoken here",
                "Connect it by USB once and run: adb tcpip 5555.",
            )
        if isinstance(error, LinkLate):
            reason = f"no answer within {device.connect_timeout_s:g} s"
        else:
            reason = getattr(error, "strerror", None) or str(error)
        return Unreachable(
            f"{where} cannot be reached by adb: {printable(reason, 160)}",
            how_to_reach(device, "Check the cable or the address, and that debugging is switched on."),
        )
