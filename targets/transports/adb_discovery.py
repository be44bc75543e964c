"""Phones that are there: on this computer's USB, or behind an address."""

from __future__ import annotations

import socket

from targets.errors import DeviceUnavailable, MissingExtra, printable
from targets.extras import require

_ADB_INTERFACE = (0xFF, 0x42, 0x01)
"""USB class, subclass and protocol by which a phone offers adb."""


def usb_phones() -> list[str]:
    """Serial numbers of the phones on USB that offer adb, sorted.

    Raises:
        MissingExtra: If the USB library is not installed.
        DeviceUnavailable: If USB cannot be looked at.
    """
    usb1 = require("usb1", "adb")
    serials = set()
    try:
        with usb1.USBContext() as context:
            for device in context.getDeviceIterator(skip_on_error=True):
                if any(_offers_adb(setting) for setting in device.iterSettings()):
                    serials.add(_serial(device, usb1))
    except usb1.USBError as error:
        raise DeviceUnavailable(f"USB cannot be looked at: {error}", "Check that this host has USB at all.") from error
    return sorted(serials - {""})


def answers(host: str, port: int, timeout_s: float = 2.0) -> bool:
    """Whether something listens at an address; that it is adbd shows when it is opened.

    Args:
        host: Address.
        port: TCP port.
        timeout_s: How long to wait.
    """
    try:
        socket.create_connection((host, port), timeout=timeout_s).close()
    except OSError:
        return False
    return True


def usb_hint() -> str:
    """One line on the phones that USB shows, or on why it shows none; never raises."""
    try:
        found = usb_phones()
    except (MissingExtra, DeviceUnavailable) as error:
        return str(error)
    return f"Phones on USB: {', '.join(found)}." if found else "No phone is on USB, or its debugging is switched off."


def _offers_adb(setting: object) -> bool:
    return tuple(getattr(setting, name)() for name in ("getClass", "getSubClass", "getProtocol")) == _ADB_INTERFACE


def _serial(device: object, usb1: object) -> str:
    try:
        return printable(device.getSerialNumber() or "", 64)  # type: ignore[attr-defined]  # no types in libusb1
    except usb1.USBError:  # type: ignore[attr-defined]  # the system does not let us open that device
        return ""
