"""Which transports exist. A new one is a file beside this one and a line in the table."""

from __future__ import annotations

import importlib
from typing import cast

from targets.inventory import Device
from targets.transports.base import Transport

TRANSPORTS = {
    "local": ("targets.transports.local", "LocalTransport"),
    "ssh": ("targets.transports.ssh", "SshTransport"),
    "adb": ("targets.transports.adb", "AdbTransport"),
    "replay": ("targets.transports.replay", "ReplayTransport"),
    "simulated": ("targets.simulated.transport", "SimulatedTransport"),
}


def open_transport(device: Device) -> Transport:
    """Open the way to a device.

    Args:
        device: From the inventory.

    Raises:
        MissingExtra: If the package that speaks to it is not installed.
        DeviceUnavailable: If it cannot be reached.
    """
    module, name = TRANSPORTS[device.transport]
    return cast(Transport, getattr(importlib.import_module(module), name)(device))
