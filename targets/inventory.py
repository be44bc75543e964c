"""The devices a person can name: ``devices.toml`` plus the built-in ``local``."""

from __future__ import annotations

import difflib
import platform
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from targets.device_profiles import PROFILES
from targets.errors import KitError, UsageError
from targets.records import Accelerator, Frozen, Precision, StandIn
from targets.toml_lines import line_of

DEFAULT_FILE = "devices.toml"
MAX_FILE_BYTES = 256 * 1024

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\s\x00-\x1f-][^\x00-\x1f]*$")]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Core = Annotated[int, Field(ge=0, le=4095, strict=True)]

_REMOTE_KEYS = ("host", "port", "user", "key_file", "known_hosts", "jump", "serial", "recording", "model")
_ALLOWED_KEYS = {
    "local": (),
    "ssh": ("host", "port", "user", "key_file", "known_hosts", "jump"),
    "adb": ("host", "port", "serial", "key_file"),
    "replay": ("recording",),
    "simulated": ("model",),
}
_LABELS: dict[str, StandIn] = {"replay": "recorded", "simulated": "simulated"}


class Device(Frozen):
    """One machine of the inventory, physical or virtual.

    Two entries may name the same serial or host: one phone measured on its CPU and on its GPU is two devices.

    Attributes:
        name: What ``--target`` takes; the table's name in ``devices.toml``.
        tags: Groups it belongs to, for example ``android``; ``--target`` takes these too.
        profile: Built-in device profile (``jetson-nano``, ``galaxy-s21``, ...) that fills in what is not said here.
        transport: ``local``, ``ssh``, ``adb``, ``replay`` of a recording, or ``simulated``.
        host: Address of an ``ssh`` or networked ``adb`` device; ``HOST:PORT`` is accepted.
        port: Port, if it is not the usual one and not part of ``host``.
        user: Login name for ``ssh``.
        key_file: Private key for ``ssh`` or ``adb``.
        known_hosts: Known-hosts file for ``ssh``, instead of the user's own.
        jump: Host that ``ssh`` goes through, as ``USER@HOST:PORT``.
        serial: Serial number of an ``adb`` device on USB.
        recording: File of a recorded conversation to replay.
        model: Device that is simulated, by profile name.
        runtime: Runtime to use unless the command line says otherwise.
        runtime_version: Version of the runtime on the device where it decides flags and export (TensorRT ``"8.2"``).
        tool: Path on the device of the timing tool (``trtexec``, ``benchmark_model``), if it is not on the PATH.
        python: Python on an ``ssh`` device, if it is not ``python3`` on the PATH.
        opset: ONNX opset to export with, where the device needs another than the kit's own.
        precision: Numeric type to use unless the command line says otherwise.
        threads: Intra-op threads to use unless the command line says otherwise.
        accelerator: ``cpu``, ``gpu`` or ``npu``.
        pinned_cores: Cores to bind sessions to.
        work_folder: Folder on the device for the kit's files.
        connect_timeout_s: Deadline for opening the device, seconds.
        min_battery_percent: Charge under which a phone is not measured.
        start_below_c: Temperature that a session waits for before it starts.
        cool_down_s: Deadline of that wait, seconds.
        stand_in: How the device is not the real thing, if it is not; every record carries this label.
    """

    name: Name
    tags: tuple[Name, ...] = ()
    profile: Name | None = None
    transport: Literal["local", "ssh", "adb", "replay", "simulated"] = "local"
    host: Text | None = None
    port: Annotated[int, Field(ge=1, le=65_535, strict=True)] | None = None
    user: Text | None = None
    key_file: Text | None = None
    known_hosts: Text | None = None
    jump: Text | None = None
    serial: Text | None = None
    recording: Text | None = None
    model: Name | None = None
    runtime: Literal["onnxruntime", "openvino", "tensorrt", "tflite"] | None = None
    runtime_version: Annotated[str, StringConstraints(pattern=r"^\d{1,4}(\.\d{1,4}){0,3}$")] | None = None
    tool: Text | None = None
    python: Text | None = None
    opset: Annotated[int, Field(ge=11, le=22, strict=True)] | None = None
    precision: Precision | None = None
    threads: Annotated[int, Field(ge=1, le=1024, strict=True)] | None = None
    accelerator: Accelerator | None = None
    pinned_cores: Annotated[tuple[Core, ...], Field(min_length=1)] | None = None
    work_folder: Annotated[str, StringConstraints(pattern=r"^/[^\x00-\x1f]{1,200}$")] | None = None
    connect_timeout_s: Seconds = 10.0
    min_battery_percent: Annotated[float, Field(ge=0, le=100)] = 30.0
    start_below_c: Annotated[float, Field(gt=0, le=150)] | None = None
    cool_down_s: Seconds = 300.0
    stand_in: StandIn | None = None

    @model_validator(mode="after")
    def _address_fits_transport(self) -> Self:
        given = [key for key in _REMOTE_KEYS if getattr(self, key) is not None]
        for key in given:
            if key not in _ALLOWED_KEYS[self.transport]:
                raise ValueError(f"{key!r} means nothing with transport {self.transport!r}")
        if self.transport == "ssh" and self.host is None:
            raise ValueError("transport 'ssh' needs 'host'")
        if self.transport == "adb" and (self.host is None) == (self.serial is None):
            raise ValueError("transport 'adb' needs either 'serial' (USB) or 'host' (network), not both")
        if self.transport == "replay" and self.recording is None:
            raise ValueError("transport 'replay' needs 'recording'")
        if self.transport == "simulated" and self.model is None:
            raise ValueError("transport 'simulated' needs 'model'")
        if self.name == "local" and self.transport != "local":
            raise ValueError("the device named 'local' is this machine and cannot have another transport")
        for key, name in (("profile", self.profile), ("model", self.model)):
            if name is not None and name not in PROFILES:
                raise ValueError(f"{key!r} {name!r} is no built-in profile; there are: {', '.join(PROFILES)}")
        label = _LABELS.get(self.transport)
        if label is not None and self.stand_in not in (None, label):
            raise ValueError(f"'stand_in' of a device with transport {self.transport!r} is {label!r}")
        return self

    @property
    def label(self) -> StandIn | None:
        """How this is not the real thing, which for recordings and simulations needs no saying."""
        return _LABELS.get(self.transport, self.stand_in)

    @property
    def lease_key(self) -> str:
        """Names the physical machine: two entries with one address share a lease."""
        if self.transport == "local":
            return f"local:{platform.node()}"
        host, port = self.address
        where = self.serial or self.recording or self.model or f"{host}:{port}"
        return f"{self.transport}:{where}"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, the transport's usual port where none is given; ``("", 0)`` without a host."""
        if self.host is None:
            return "", 0
        host, port = split_address(self.host)
        return host, self.port or port or {"ssh": 22, "adb": 5555}.get(self.transport, 0)


LOCAL = Device(name="local")


def split_address(text: str) -> tuple[str, int | None]:
    """Split ``HOST``, ``HOST:PORT``, ``[IPV6]`` or ``[IPV6]:PORT``; an unbracketed IPv6 address has no port."""
    found = re.fullmatch(r"\[([^\]]+)\](?::(\d{1,5}))?|([^:]+):(\d{1,5})", text)
    if not found:
        return text, None
    port = found[2] or found[4]
    return found[1] or found[3], int(port) if port else None


@dataclass(frozen=True)
class Inventory:
    """All devices a request can name.

    Attributes:
        devices: ``local`` first, then the file's in the file's order.
        path: The file they were read from; ``None`` where there is none.
    """

    devices: tuple[Device, ...] = (LOCAL,)
    path: Path | None = None

    def select(self, text: str) -> list[Device]:
        """Devices with this name or, if no device is called that, with this tag.

        Args:
            text: A device name or a tag.

        Raises:
            UsageError: If nothing has that name or tag; close matches and all that exists are listed.
        """
        chosen = [d for d in self.devices if d.name == text] or [d for d in self.devices if text in d.tags]
        if chosen:
            return chosen
        names = [device.name for device in self.devices]
        tags = sorted({tag for device in self.devices for tag in device.tags})
        known = f"Devices: {', '.join(names)}." + (f" Tags: {', '.join(tags)}." if tags else "")
        if self.path is None:
            known += f" No inventory was read; describe devices in {DEFAULT_FILE} or pass --devices FILE."
        hint = did_you_mean(text, [*names, *tags]) or _how_to_add(text)
        raise UsageError(f"no device or tag is called {text[:80]!r}", f"{hint}{known}")


def _how_to_add(text: str) -> str:
    """Where the word is a kind of device the kit knows: how to get one."""
    profile = next((p for p in PROFILES.values() if text == p.name or text in p.tags), None)
    if profile is None:
        return ""
    real = "plug one in and run 'inas-deploy devices add'"
    if profile.transport == "ssh":
        real = f"run 'inas-deploy devices add USER@HOST --profile {profile.name}'"
    virtual = "phone" if profile.transport == "adb" else "board"
    return f"To add one, {real}; to try without, 'inas-deploy devices add --virtual {virtual}'. "


def did_you_mean(text: str, known: Iterable[str]) -> str:
    """``"Did you mean 'x'? "`` for a close match, else an empty string."""
    close = difflib.get_close_matches(text[:80], list(known), n=1)
    return f"Did you mean {close[0]!r}? " if close else ""


def load_inventory(path: Path | None = None) -> Inventory:
    """Read an inventory file.

    Args:
        path: The file; by default ``devices.toml`` in the working folder, if there is one.

    Returns:
        The built-in ``local`` (replaced by the file's own ``[devices.local]``, if any) and the file's devices.

    Raises:
        UsageError: If the file cannot be read or says something unknown; the line names file, line and key.
    """
    if path is None:
        path = Path(DEFAULT_FILE)
        if not path.exists():
            return Inventory()
    text = _read(path)
    try:
        data = tomllib.loads(text)
    except RecursionError as error:
        raise UsageError(f"{path} is nested too deeply", "Write one flat table a device.") from error
    except ValueError as error:  # includes tomllib's own error, and integers longer than Python reads
        raise _syntax_error(path, text, str(error)) from error
    devices = _devices(path, text, data)
    local = next((d for d in devices if d.name == "local"), LOCAL)
    return Inventory((local, *(d for d in devices if d.name != "local")), path)


def _read(path: Path) -> str:
    if not path.exists():
        raise UsageError(f"inventory {path} does not exist", "Check --devices.")
    if not path.is_file():
        raise UsageError(f"inventory {path} is not a file", "Name a TOML file with --devices.")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise UsageError(f"inventory {path} is larger than {MAX_FILE_BYTES} bytes", "Split it.")
        return raw.decode("utf-8")
    except OSError as error:
        raise UsageError(f"inventory {path} cannot be read: {error.strerror}", "Check its permissions.") from error
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UsageError(f"{path}:{line}: is not UTF-8 text", "Save the file as UTF-8.") from error


def _syntax_error(path: Path, text: str, message: str) -> UsageError:
    found = re.search(r"\(at line (\d+), column \d+\)", message)
    place = f"{path}:{found[1]}" if found else f"{path}"
    if "(at end of document)" in message:
        place = f"{path}:{len(text.rstrip().split(chr(10)))}"
    reason = message.replace(found[0], "").strip() if found else message
    return UsageError(f"{place}: is not valid TOML: {reason[:200]}", "Correct the line.")


def _devices(path: Path, text: str, data: dict[str, Any]) -> list[Device]:
    for key in data:
        if key != "devices":
            hint = did_you_mean(key, ["devices"]) or "Devices are tables called [devices.NAME]."
            raise _at(path, text, (key,), "unknown key", hint)
    tables = data.get("devices", {})
    if not isinstance(tables, dict):
        raise _at(path, text, ("devices",), "must be a table", "Write [devices.NAME].")
    devices = []
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise _at(path, text, ("devices", name), "must be a table", f"Write [devices.{name[:64]}].")
        if "name" in table:
            raise _at(path, text, ("devices", name, "name"), "unknown key", "The name stands in [devices.NAME].")
        try:
            devices.append(Device.model_validate({**_profile_defaults(table, tables), **table, "name": name}))
        except ValidationError as error:
            raise _refused(path, text, name, error) from error
    for device in devices:
        for tag in device.tags:
            if any(tag == other.name for other in (LOCAL, *devices)):
                where = ("devices", device.name, "tags")
                raise _at(path, text, where, f"tag {tag!r} is also a device's name", "Rename one of them.")
    return devices


def _profile_defaults(table: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """What the entry's profile, or that of the device it simulates, fills in; never a tag that is a device's name."""
    name = table.get("profile", table.get("model"))
    profile = PROFILES.get(name) if isinstance(name, str) else None
    if profile is None:
        return {}
    taken = {"local", *names}
    return {**profile.defaults(), "tags": [tag for tag in profile.tags if tag not in taken]}


def _refused(path: Path, text: str, name: str, error: ValidationError) -> KitError:
    first = error.errors(include_url=False)[0]
    loc = [str(part) for part in first["loc"] if part != "name"]
    keys = ("devices", name, *loc[:1])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = [key for key in Device.model_fields if key != "name"]
        hint = did_you_mean(loc[0], known) or f"Known keys: {', '.join(known)}."
        return _at(path, text, keys, f"unknown key{more}", hint)
    if first["loc"][:1] == ("name",):
        return _at(path, text, keys, "is not a device name", "Use up to 64 letters, digits, '.', '_' and '-'.")
    if first["type"] == "value_error":
        problem = first["msg"].removeprefix("Value error, ")
        blamed = re.match(r"'(\w+)'", problem)
        return _at(path, text, (*keys, blamed[1]) if blamed else keys, f"{problem}{more}", "Remove or correct it.")
    problem = f"{str(first['input'])[:60]!r} is refused: {first['msg']}{more}"
    return _at(path, text, keys, problem, "Tags are letters, digits, '.', '_' and '-'." if loc[0] == "tags" else "")


def _at(path: Path, text: str, keys: tuple[str, ...], problem: str, fix: str) -> UsageError:
    line = line_of(text, keys)
    place = f"{path}:{line}" if line is not None else f"{path}"
    dotted = ".".join(key if key.isprintable() else repr(key) for key in keys)
    return UsageError(f"{place}: {dotted[:200]}: {problem}", fix.strip())
