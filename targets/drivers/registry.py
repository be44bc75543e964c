"""Which driver runs a runtime over a transport. A new way of running is a file beside this one and a line below."""

from __future__ import annotations

import importlib
from typing import cast

from targets.drivers.base import Driver
from targets.errors import UsageError
from targets.inventory import Device
from targets.records import Precision
from targets.runtimes.registry import get_runtime
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


HERE = frozenset(way for way, entry in DRIVERS.items() if entry is _WORKER)
"""Ways that run in a process of this very installation: the runtime's package must be here."""


def precisions_of(device: Device, runtime: str) -> tuple[Precision, ...]:
    """Numeric types that can be asked for: the runtime's own, and FP16 where a phone's GPU or NPU computes.

    Raises:
        UsageError: If there is no such runtime.
    """
    known = get_runtime(runtime).precisions
    half = device.transport == "adb" and device.accelerator in ("gpu", "npu") and Precision.FP16 not in known
    return (*known, Precision.FP16) if half else known


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
    if entry is _WORKER and device.accelerator not in (None, "cpu"):
        # The worker is the CPU's; ONNX Runtime's CUDA provider is the agent's, here as on any other machine.
        entry = _AGENT if (runtime, device.accelerator) == ("onnxruntime", "gpu") else None
    if entry is None:
        known = ", ".join(name for way, name in DRIVERS if way == kind)
        where = f" on its {device.accelerator}" if device.accelerator else ""
        raise UsageError(
            f"{runtime} is not run on device {device.name!r}{where}, which is reached by {kind}",
            f"Runtimes there: {known}.",
        )
    module, name = entry
    return cast(Driver, getattr(importlib.import_module(module), name)(device, transport, runtime))
