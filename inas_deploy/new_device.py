"""From an address, a plugged-in phone, a recording or a wish for a virtual device to an inventory entry."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError

from inas_deploy.model_cache import cache_folder
from targets.device_profiles import PROFILES, DeviceProfile, recognised
from targets.errors import DeviceUnavailable, UsageError, printable
from targets.inventory import Device, did_you_mean, split_address
from targets.inventory_file import Value, entry_of
from targets.stand_ins import virtual_kind
from targets.transports.base import Transport
from targets.transports.registry import open_transport
from targets.transports.ssh_auth import is_public_key

Entry = dict[str, Value]
_NAMES = "Use up to 64 letters, digits, '.', '_' and '-'."
_ORDER = ("tensorrt", "openvino", "onnxruntime", "tflite")
_ADDRESS = re.compile(r"(?:(?P<user>[^@\s]+)@)?(?P<host>\[[^\]\s]+\](?::\d{1,5})?|[^@\s:]+(?::\d{1,5})?)")


def ssh_entry(text: str) -> Entry:
    """Keys for ``[USER@]HOST[:PORT]``.

    Raises:
        UsageError: If it does not read like that.
    """
    return _address(text, "USER@HOST or USER@HOST:PORT")


def _address(text: str, how: str) -> Entry:
    found = _ADDRESS.fullmatch(text)
    if found is None or text.startswith("-"):
        raise UsageError(f"{text[:80]!r} is not an address", f"Write {how}.")
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
    entry = _address(text, "HOST or HOST:PORT")
    if "user" in entry:
        raise UsageError(f"{text[:80]!r}: a phone has no login name", "Write HOST or HOST:PORT.")
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
        python = device.python or "python3"
        raise DeviceUnavailable(
            f"{device.name}: none of {', '.join(_ORDER)} is found by {python} on the device ({title})",
            f"Name another Python with --python ~/venv/bin/python, or install one there ({python} -m pip install "
            "onnxruntime), or name what is not found with --runtime.",
        )
    return {"runtime": runtimes[0]}, title


def simulated_entry(model: str, runtime: str | None) -> Entry:
    """Keys for a simulated device.

    Args:
        model: Name of the profile.
        runtime: The runtime that was asked for, if one was.

    Raises:
        UsageError: If there is no such profile, or that runtime is not simulated on it.
    """
    profile = PROFILES.get(model)
    if profile is None:
        raise _unknown("profile", model, PROFILES)
    if runtime not in (None, profile.runtime):
        raise UsageError(
            f"the simulated {profile.title} runs {profile.runtime}, not {printable(str(runtime))}",
            "Leave --runtime out.",
        )
    return {"transport": "simulated", "model": model}


def check_wishes(name: str | None, wishes: Mapping[str, Value]) -> None:
    """Refuse a name or an option that no device can have, before one is opened or started.

    Args:
        name: The device's name, if one is given.
        wishes: Keys of the entry that the command line gives.

    Raises:
        UsageError: Naming the option.
    """
    if name == "local":
        raise UsageError("the device named 'local' is always this machine", "Take another --name.")
    profile, runtime = str(wishes.get("profile", "")), str(wishes.get("runtime", ""))
    if profile and profile not in PROFILES:
        raise _unknown("profile", profile, PROFILES)
    if runtime and runtime not in _ORDER:
        raise _unknown("runtime", runtime, _ORDER)
    if "key_file" in wishes:
        _check_key_file(Path(str(wishes["key_file"])))
    # An address, so that options of an ssh device are in place; the real one is looked at when it is known.
    checked_device(name or "device", {"transport": "ssh", "host": "localhost"}, wishes)


def checked_device(name: str, entry: Mapping[str, Value], wishes: Mapping[str, Value]) -> Device:
    """The device that an entry and the wishes for it describe.

    Raises:
        UsageError: If they describe none; the option or key is named.
    """
    try:
        return Device.model_validate({"name": name, **entry, **wishes})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        why = first["msg"].removeprefix("Value error, ")
        key = str(first["loc"][0]) if first["loc"] else ""
        option = {"name": "--name", "tags": "--tag"}.get(key, f"--{key.replace('_', '-')}" if key in wishes else key)
        if not option:
            raise UsageError(why, "Correct the command.") from error
        what = f"{option} {printable(str(first['input']), 60)!r} is refused"
        if first["type"] == "string_pattern_mismatch":
            why = "It begins with neither '-' nor a blank, and has no control characters"
        fix = _NAMES if key in ("name", "tags") else f"{why}."
        raise UsageError(what, fix) from error


def _check_key_file(path: Path) -> None:
    if not path.expanduser().is_file():
        raise UsageError(f"there is no key file {printable(str(path))}", "Check --key-file.")
    if is_public_key(path.expanduser()):
        raise UsageError(f"{printable(str(path))} is the public half of a key", "Name the private one.")


def _unknown(what: str, text: str, known: Iterable[str]) -> UsageError:
    known = list(known)
    return UsageError(
        f"there is no built-in {what} {printable(text, 60)!r}", f"{did_you_mean(text, known)}Take: {', '.join(known)}."
    )


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


def virtual_is_running(kind: str, inventory: Path, name: str) -> bool:
    """Whether a virtual device runs; see :func:`start_virtual`."""
    return _virtual(kind)[2](virtual_folder(inventory, name))


def end_virtual(kind: str, inventory: Path, name: str) -> None:
    """Stop what :func:`start_virtual` started, whether an entry names it or not; one that does not run is left."""
    _virtual(kind)[1](virtual_folder(inventory, name))


def stop_virtual(device: Device, inventory: Path) -> None:
    """Stop a virtual device that :func:`start_virtual` started.

    Raises:
        UsageError: If the device is not a virtual one.
    """
    kind = virtual_kind(device)
    if kind is None:
        raise UsageError(
            f"{device.name} is no virtual device",
            f"To take its entry out of the inventory: inas-deploy devices remove {device.name}",
        )
    end_virtual(kind, inventory, device.name)


def _virtual(kind: str) -> tuple[Callable[[Path, str], Device], Callable[[Path], None], Callable[[Path], bool]]:
    if kind == "board":
        from targets.virtual.board import board_is_running, start_board, stop_board

        return start_board, stop_board, board_is_running
    from targets.virtual.phone import phone_is_running, start_phone, stop_phone

    return start_phone, stop_phone, phone_is_running
