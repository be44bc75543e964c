"""Which transports exist. A new one is a file beside this one and a line in the table."""

from __future__ import annotations

import importlib
from typing import cast

from targets.errors import DeviceUnavailable
from targets.inventory import Device
from targets.transports.base import Transport

TRANSPORTS = {"local": ("targets.transports.local", "LocalTransport")}


def open_transport(device: Device) -> Transport:
    """Open the way to a device.

    Args:
        device: From the inventory.

    Raises:
        DeviceUnavailable: If this version has no such transport or accelerator.
    """
    if device.transport not in TRANSPORTS:
        raise DeviceUnavailable(
            f"device {device.name!r} cannot be opened: transport {device.transport!r} is not part of this version",
            f"Transports that work: {', '.join(TRANSPORTS)}.",
        )
    if device.accelerator not in (None, "cpu"):
        raise DeviceUnavailable(
            f"device {device.name!r} cannot be opened: accelerator {device.accelerator!r} is not part of this version",
            'Set accelerator = "cpu" or leave it out.',
        )
    module, name = TRANSPORTS[device.transport]
    return cast(Transport, getattr(importlib.import_module(module), name)())
