"""From an address, a plugged-in phone, a recording or a wish for a virtual device to an inventory entry."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from inas_deploy.model_cache import cache_folder
from targets.device_profiles import PROFILES, DeviceProfile, recognised
from targets.errors import DeviceUnavailable, UsageError, printable
from targets.inventory import Device, split_address
from targets.inventory_file import Value, entry_of
from targets.transports.base import Transport
from targets.transports.registry import open_transport

Entry = dict[str, Value]
_ORDER = ("tensorrt", "openvino", "onnxruntime", "tflite")
_ADDRESS = re.compile(r"(?:(?P<user>[^@\s]+)@)?(?P<host>\[[^\]\s]+\](?::\d{1,5})?|[^@\s:]+(?::\d{1,5})?)")


def ssh_entry(text: str) -> Entry:
    """Keys for ``[USER@]HOST[:PORT]``.

    Raises:
        UsageError: If it does not read like that.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None or text.startswith("-"):
        raise UsageError(f"{text[:80]!r} is not an address", "Write USER@HOST or USER@HOST:PORT.")
    host, port = split_address(found["host"])
    entry: Entry = {"transport": "ssh", "host": host.strip("[]")}
    if port is not None:
        entry["port"] = port
    if found["user"]:
        entry["user"] = found["user"]
    return entry


def adb_entry(text: str) -> Entry:
    """Keys for a phone at ``HOST[:PORT]``.

    Raises:
        UsageError: If it does not read like that.
    """
    entry = ssh_entry(text)
    if "user" in entry:
        raise UsageError(f"{text[:80]!r}: a phone has no login name", "Write HOST:PORT.")
    return {**entry, "transport": "adb"}


def recording_entry(path: Path) -> Entry:
    """Keys for a recording: what it was recorded with, so that the same is asked again.

    Raises:
        UsageError: If it is no recording.
    """
    from targets.transports.conversation import read_conversation

    header, _ = read_conversation(path)
    return {"transport": "replay", "recording": str(path), **header.entry}


def looked_up(device: Device) -> tuple[Entry, str]:
    """Open a device and find out what it is and what runs there.

    Args:
        device: With its address; a profile or runtime that it names is left as it is.

    Returns:
        The keys to add, and what the device calls itself.

    Raises:
        DeviceUnavailable: If it cannot be reached, or nothing runs there.
    """
    with open_transport(device) as transport:
        if device.transport == "adb":
            done = transport.run(["getprop", "ro.product.model"], timeout_s=30)
            model = done.stdout.decode(errors="replace").strip()
            return _phone_keys(device, recognised(model)), printable(model)
        return _board_keys(device, transport)


def _phone_keys(device: Device, profile: DeviceProfile | None) -> Entry:
    if device.profile:
        return {}
    return {"profile": profile.name} if profile else {"runtime": "tflite", "tags": ["android"]}


def _board_keys(device: Device, transport: Transport) -> tuple[Entry, str]:
    from targets.drivers.agent import AgentDriver

    driver = AgentDriver(device, transport, "onnxruntime")
    try:
        about = driver.about()
    finally:
        driver.close()
    names = [about.facts.get("machine", ""), about.texts.get("nvidia-smi", "").partition(",")[0]]
    names.append(about.facts.get("cpu", ""))
    title = printable(", ".join(" ".join(name.split()) for name in names if name.strip()))
    there = {name.replace("ai-edge-litert", "tflite").replace("tflite-runtime", "tflite") for name in about.versions}
    there -= {"tensorrt"}  # its Python package alone times nothing
    there |= {"tensorrt"} if "trtexec" in about.tools else set()
    runtimes = [name for name in _ORDER if name in there]
    if device.runtime is not None:
        return {}, title
    profile = PROFILES.get(device.profile or "") or recognised(title)
    if profile is not None and profile.runtime in there:
        return ({} if device.profile else {"profile": profile.name}), title
    if not runtimes:
        raise DeviceUnavailable(
            f"{device.name}: none of {', '.join(_ORDER)} is on the device ({title})",
            "Install one there (python3 -m pip install onnxruntime), or name what is not found with --runtime.",
        )
    return {"runtime": runtimes[0]}, title


def virtual_folder(inventory: Path, name: str) -> Path:
    """Where a virtual device of an inventory keeps its keys and files."""
    place = hashlib.sha256(os.fsencode(inventory.resolve())).hexdigest()[:12]
    return cache_folder() / "virtual" / f"{place}-{name}"


def start_virtual(kind: str, inventory: Path, name: str) -> Entry:
    """Start a virtual phone or board that outlives this process.

    Args:
        kind: ``phone`` or ``board``.
        inventory: The file it will stand in.
        name: Its name there.

    Raises:
        DeviceUnavailable: If this host cannot run it; the line says what is missing.
    """
    return entry_of(_virtual(kind)[0](virtual_folder(inventory, name), name))


def stop_virtual(device: Device, inventory: Path) -> None:
    """Stop a virtual device that :func:`start_virtual` started.

    Raises:
        UsageError: If the device is not a virtual one.
    """
    if device.stand_in != "virtual" or device.transport not in ("ssh", "adb"):
        raise UsageError(f"{device.name} is no virtual device", "Only what 'devices add --virtual' started is stopped.")
    _virtual("board" if device.transport == "ssh" else "phone")[1](virtual_folder(inventory, device.name))


def _virtual(kind: str) -> tuple[Callable[[Path, str], Device], Callable[[Path], None]]:
    if kind == "board":
        from targets.virtual.board import start_board, stop_board

        return start_board, stop_board
    from targets.virtual.phone import start_phone, stop_phone

    return start_phone, stop_phone
