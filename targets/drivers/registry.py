"""Which driver runs a runtime over a transport. A new way of running is a file beside this one and a line below."""

from __future__ import annotations

import importlib
from typing import cast

from targets.drivers.base import Driver
from targets.errors import UsageError
from targets.inventory import Device
from targets.transports.base import Transport

_WORKER = ("targets.drivers.worker", "WorkerDriver")
_AGENT = ("targets.drivers.agent", "AgentDriver")
_PHONE = ("targets.drivers.phone", "PhoneDriver")
_SIMULATED = ("targets.simulated.driver", "SimulatedDriver")

DRIVERS: dict[tuple[str, str], tuple[str, str]] = {
    ("local", "onnxruntime"): _WORKER,
    ("local", "openvino"): _WORKER,
    ("local", "tflite"): _WORKER,
    ("local", "tensorrt"): _AGENT,
    ("ssh", "onnxruntime"): _AGENT,
    ("ssh", "openvino"): _AGENT,
    ("ssh", "tflite"): _AGENT,
    ("ssh", "tensorrt"): _AGENT,
    ("adb", "tflite"): _PHONE,
    ("simulated", "onnxruntime"): _SIMULATED,
    ("simulated", "openvino"): _SIMULATED,
    ("simulated", "tensorrt"): _SIMULATED,
    ("simulated", "tflite"): _SIMULATED,
}


def open_driver(device: Device, transport: Transport, runtime: str, *, kind: str | None = None) -> Driver:
    """The driver of a runtime on an open device.

    Args:
        device: From the inventory.
        transport: The open way to it.
        runtime: Registry name of the runtime.
        kind: Transport whose driver is wanted where it is not the device's own: a replay runs what was recorded.

    Raises:
        UsageError: If that runtime is not run over that transport.
    """
    kind = kind or device.transport
    entry = DRIVERS.get((kind, runtime))
    if entry is None:
        known = ", ".join(name for way, name in DRIVERS if way == kind)
        raise UsageError(
            f"{runtime} is not run on device {device.name!r}, which is reached by {kind}", f"Take one of: {known}."
        )
    module, name = entry
    return cast(Driver, getattr(importlib.import_module(module), name)(device, transport, runtime))
