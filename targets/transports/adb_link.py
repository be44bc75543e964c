"""The bytes between us and adbd, over TCP or USB: one deadline for everything, and an end that is noticed.

adb-shell's own TCP transport spins on a closed connection, drops what a full send buffer did not take, and lets the
device announce packets of any size. These links stand in for it through adb-shell's public transport interface.
"""

from __future__ import annotations

import select
import socket
import time
from typing import Any, Protocol

from targets.errors import DeviceUnavailable
from targets.extras import require

MAX_PACKET_BYTES = 2**20
"""Largest packet a device may announce; adbd's own bound."""

_USB_TIMEOUT = -7  # libusb's LIBUSB_ERROR_TIMEOUT
_KEEP_ALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 30_000))


class LinkLost(ConnectionError):
    """The device went away, or what it says is not adb."""


class LinkLate(TimeoutError):
    """The deadline passed."""


class LinkFlooded(Exception):
    """The device sends more than it was asked for."""


class LinkRefused(Exception):
    """adbd refused the file that is being pushed, in words that adb-shell drops while it still sends."""


class Link(Protocol):
    """What adb-shell wants of a transport, with our bounds beside it.

    Attributes:
        deadline: ``time.monotonic()`` after which every call raises :class:`LinkLate`.
        budget_bytes: What may still be received before :class:`LinkFlooded`.
        pushing: Whether a file is being pushed: a refusal then raises :class:`LinkRefused` at once.
    """

    deadline: float
    budget_bytes: int
    pushing: bool

    def close(self) -> None:
        """Hang up; closing twice is harmless."""

    def connect(self, transport_timeout_s: float | None) -> None:
        """Reach the device; the argument is adb-shell's and is not used."""

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
        """Receive at most ``numbytes``, at least one."""

    def bulk_write(self, data: bytes, transport_timeout_s: float | None) -> int:
        """Send all of it."""


class _Bounded:
    def __init__(self) -> None:
        self.deadline = time.monotonic()
        self.budget_bytes = MAX_PACKET_BYTES
        self.pushing = False

    def _left_s(self) -> float:
        left_s = self.deadline - time.monotonic()
        if left_s <= 0:
            raise LinkLate("the deadline passed")
        return left_s

    def _allow(self, wanted: int) -> None:
        if wanted > MAX_PACKET_BYTES:
            raise LinkLost(f"the device announces a packet of {wanted} bytes")
        if self.budget_bytes <= 0:
            raise LinkFlooded("the device sends without end")

    def _received(self, data: bytes) -> bytes:
        self.budget_bytes -= len(data)
        if self.pushing and data.startswith(b"FAIL"):  # packets are read header first, so this is how one's data starts
            # The words may still be under way: what is known is that the file was refused.
            raise LinkRefused(data[8:].decode("utf-8", "replace") or "it did not get to say why; is its disk full?")
        return data


class TcpLink(_Bounded):
    """A TCP connection to adbd.

    Args:
        host: Its address.
        port: Its port.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self._address = host, port
        self._socket: socket.socket | None = None

    def close(self) -> None:
        """Hang up; adbd then ends what it runs for us."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def connect(self, transport_timeout_s: float | None) -> None:
        """Call the device.

        Raises:
            OSError: If nobody answers there.
            LinkLate: At the deadline.
        """
        self.close()
        self._socket = socket.create_connection(self._address, timeout=self._left_s())
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE:
            if hasattr(socket, name):  # not every system has all of them
                self._socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._socket.setblocking(False)

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
        """Receive at most ``numbytes``, at least one (errors: see the exceptions of this module)."""
        self._allow(numbytes)
        end = self._ready(reading=True)
        try:
            data = end.recv(numbytes)
        except OSError as error:
            raise LinkLost(f"the connection broke: {error.strerror}") from error
        if not data:
            raise LinkLost("the device closed the connection")
        return self._received(data)

    def bulk_write(self, data: bytes, transport_timeout_s: float | None) -> int:
        """Send all of it (errors: see the exceptions of this module)."""
        left = memoryview(data)
        while left:
            end = self._ready(reading=False)
            try:
                left = left[end.send(left) :]
            except OSError as error:
                raise LinkLost(f"the connection broke: {error.strerror}") from error
        return len(data)

    def _ready(self, *, reading: bool) -> socket.socket:
        end = self._socket
        if end is None:
            raise LinkLost("the connection is closed")
        mine = [end]
        found = select.select(mine if reading else [], [] if reading else mine, [], self._left_s())
        if not any(found):
            raise LinkLate("the deadline passed")
        return end


class UsbLink(_Bounded):
    """A phone on this computer's USB.

    Args:
        serial: Its serial number.

    Raises:
        MissingExtra: If the USB library is not installed.
    """

    def __init__(self, serial: str) -> None:
        super().__init__()
        self._serial = serial
        self._module = require("adb_shell.transport.usb_transport", "adb")
        self._errors = require("adb_shell.exceptions", "adb")
        self._usb: Any = None

    def close(self) -> None:
        """Release the phone's USB interface."""
        if self._usb is not None:
            self._usb.close()
            self._usb = None

    def connect(self, transport_timeout_s: float | None) -> None:
        """Claim the phone's USB interface.

        Raises:
            DeviceUnavailable: If it is not there, or another program (the adb server) holds it.
        """
        self.close()
        try:
            self._usb = self._module.UsbTransport.find_adb(self._serial, None, self._left_s())
            self._usb.connect(self._left_s())
        except self._errors.UsbDeviceNotFoundError as error:
            raise DeviceUnavailable(
                f"no phone with serial {self._serial!r} is on USB", "Plug it in and switch USB debugging on."
            ) from error
        except self._module.usb1.USBError as error:
            self._usb = None
            raise DeviceUnavailable(
                f"the phone {self._serial!r} cannot be opened on USB ({error})",
                "End the adb server, which holds it: adb kill-server. On Linux a udev rule must give you the device.",
            ) from error

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
        """As :meth:`TcpLink.bulk_read`."""
        self._allow(numbytes)
        return self._received(bytes(self._guarded("bulk_read", numbytes)))

    def bulk_write(self, data: bytes, transport_timeout_s: float | None) -> int:
        """As :meth:`TcpLink.bulk_write`."""
        self._guarded("bulk_write", data)
        return len(data)

    def _guarded(self, call: str, what: bytes | int) -> Any:
        if self._usb is None:
            raise LinkLost("the connection is closed")
        try:
            return getattr(self._usb, call)(what, self._left_s())
        except (self._errors.UsbReadFailedError, self._errors.UsbWriteFailedError) as error:
            if getattr(error.args[-1], "value", None) == _USB_TIMEOUT:
                raise LinkLate("the deadline passed") from error
            raise LinkLost(f"the USB connection broke: {error}") from error
