"""``inas-deploy devices add``: find a device, see what runs there, write its entry, check it."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from inas_deploy import new_device
from inas_deploy.checkup import checked
from inas_deploy.commands.options import Inventory, waiting
from inas_deploy.new_device import Entry
from inas_deploy.report.text import clean
from targets.device_profiles import PROFILES
from targets.errors import DeviceUnavailable, UsageError, printable
from targets.files import check_writable
from targets.health import open_health
from targets.inventory import DEFAULT_FILE, Device, load_inventory
from targets.inventory_file import add_entry, put_entry
from targets.leases.registry import open_leases
from targets.stand_ins import virtual_kind
from targets.store import DEFAULT_STORE

_WAYS = (
    "Name one: USER@HOST for ssh, --adb HOST:PORT for a phone on the network, --virtual phone or board to try the kit, "
    "--simulated PROFILE, or --recording FILE."
)


class Virtual(StrEnum):
    """Kinds of virtual devices."""

    PHONE = "phone"
    BOARD = "board"


def add(
    address: Annotated[str | None, typer.Argument(help="USER@HOST or USER@HOST:PORT of an ssh device.")] = None,
    adb: Annotated[str | None, typer.Option(help="HOST:PORT of a phone on the network.")] = None,
    usb: Annotated[str | None, typer.Option(help="Serial number of a phone on USB, where several are.")] = None,
    virtual: Annotated[Virtual | None, typer.Option(help="Start a virtual device on this machine.")] = None,
    simulated: Annotated[str | None, typer.Option(help=f"Compute figures of: {', '.join(PROFILES)}.")] = None,
    recording: Annotated[Path | None, typer.Option(help="Replay what 'bench --record' wrote.")] = None,
    name: Annotated[str | None, typer.Option(help="Its name; one is made up otherwise.")] = None,
    profile: Annotated[str | None, typer.Option(help="Built-in profile, where the device does not tell.")] = None,
    runtime: Annotated[str | None, typer.Option(help="onnxruntime, openvino, tensorrt or tflite.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Group it belongs to. Repeatable.")] = None,
    key_file: Annotated[str | None, typer.Option(help="Private key, for ssh or adb.")] = None,
    python: Annotated[str | None, typer.Option(help="Python of an ssh device, if it is not python3.")] = None,
    jump: Annotated[str | None, typer.Option(help="USER@HOST:PORT that ssh goes through.")] = None,
    fingerprint: Annotated[str | None, typer.Option(help="Host key to trust: SHA256:...")] = None,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Also run the health check.")] = True,
    inventory: Inventory = None,
) -> None:
    """Add a device to devices.toml: a phone on USB or the network, an ssh host, a virtual or simulated one.

    The device is opened, what runs there is found out, the entry is written (everything else in the file stays as
    it is), and a health check follows.

    [bold]Examples[/bold]

    inas-deploy devices add

    inas-deploy devices add nvidia@192.168.1.20 --name nano

    inas-deploy devices add --adb 192.168.1.7:5555

    inas-deploy devices add --virtual phone

    inas-deploy devices add --simulated jetson-nano
    """
    path = inventory or Path(DEFAULT_FILE)
    given = [way for way in (address, adb, usb, virtual, simulated, recording) if way is not None]
    if len(given) > 1:
        raise UsageError("more than one device is named", _WAYS)
    asked = {"profile": profile, "runtime": runtime, "tags": tag, "key_file": key_file, "python": python, "jump": jump}
    wishes: Entry = {key: value for key, value in asked.items() if value}
    new_device.check_wishes(name, wishes)
    if virtual is not None:
        device = _add_virtual(virtual, path, name or f"virtual-{virtual.value}", wishes)
    elif simulated is not None:
        device = _add(path, name or f"simulated-{simulated}", new_device.simulated_entry(simulated, runtime), wishes)
    elif recording is not None:
        device = _add(path, name or "recorded", new_device.recording_entry(recording), wishes)
    else:
        entry = _found(address, adb, usb)
        device = _add_real(path, name or _made_up(entry, path), entry, wishes, fingerprint)
    if check:
        _check(device)


def _add_virtual(kind: Virtual, path: Path, name: str, wishes: Entry) -> Device:
    before = next((d for d in _known(path) if d.name == name), None)
    if before is not None and virtual_kind(before) != kind.value:
        raise UsageError(
            f"{path} has a device {name!r} already, and it is no virtual {kind.value}", "Take another --name."
        )
    check_writable(path)
    with ExitStack() as undo:  # on Ctrl-C, too: nothing is left running that no entry names
        if before is None or not new_device.virtual_is_running(kind.value, path, name):
            undo.callback(new_device.end_virtual, kind.value, path, name)
        with waiting(f"starting {name} (a virtual phone is fetched once and kept)"):
            entry = new_device.start_virtual(kind.value, path, name)
        # In place of the entry of one that was stopped or lost with a reboot: its port may be another now.
        device = put_entry(path, name, {**entry, **wishes})
        undo.pop_all()
    return _told(path, device)


def _found(address: str | None, adb: str | None, usb: str | None) -> Entry:
    if address is not None:
        return new_device.ssh_entry(address)
    if adb is not None:
        return new_device.adb_entry(adb)
    from targets.transports.adb_discovery import usb_phones

    serials = usb_phones()
    if usb is not None and usb not in serials:
        raise DeviceUnavailable(f"no phone {printable(usb)!r} is on USB", f"There are: {', '.join(serials) or 'none'}.")
    if usb is None and len(serials) != 1:
        what = "no phone is on USB, or its debugging is switched off" if not serials else "several phones are on USB"
        raise UsageError(f"{what}: {', '.join(serials)}" if serials else what, _WAYS if not serials else "Pass --usb.")
    return {"transport": "adb", "serial": usb or serials[0]}


def _made_up(entry: Entry, path: Path) -> str:
    """A name that is free: the host's, or ``phone``."""
    host = str(entry.get("host", "phone"))
    stem = "".join(c if c.isascii() and c.isalnum() else "-" for c in host).strip("-")[:40] or "device"
    stem = f"{'phone' if entry['transport'] == 'adb' else 'host'}-{stem}" if stem[0].isdigit() else stem
    taken = {device.name for device in _known(path)} | {tag for device in _known(path) for tag in device.tags}
    names = [stem, *(f"{stem}-{number}" for number in range(2, 1000))]
    return next(name for name in names if name not in taken)


def _known(path: Path) -> tuple[Device, ...]:
    return load_inventory(path).devices if path.exists() else ()


def _add_real(path: Path, name: str, entry: Entry, wishes: Entry, fingerprint: str | None) -> Device:
    _refuse_taken(path, name)
    device = new_device.checked_device(name, entry, wishes)
    if device.transport == "ssh":
        _meet(device, fingerprint)
    with waiting(f"looking at {name}"):
        keys, title = new_device.looked_up(device)
    _say(f"{name}: {title}")
    return _add(path, name, {**entry, **keys}, wishes)


def _refuse_taken(path: Path, name: str) -> None:
    if any(device.name == name for device in _known(path)):
        raise UsageError(
            f"{path} has a device {name!r} already",
            f"Take another --name, or remove it: inas-deploy devices remove {name}",
        )


def _meet(device: Device, fingerprint: str | None) -> None:
    """See that the host's key is known, or make it known: named on the command line, or confirmed by the person."""
    from targets.transports.ssh_keys import accept_host_key, judge_key, known_keys, scan_host_key

    shown = scan_host_key(device)
    if judge_key(shown, known_keys(device, shown.name)) != "unknown":
        return  # known, or changed or revoked, which opening it refuses
    if fingerprint is None:
        what = f"host {printable(shown.name)} shows an unknown {printable(shown.kind)} key {shown.fingerprint}"
        how = "Compare it with: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub on the device"
        if not sys.stdin.isatty():
            raise DeviceUnavailable(what, f"{how}; then add --fingerprint {shown.fingerprint}")
        _say(f"{what}. {how}.")
        typer.confirm("Is it the same?", abort=True)
    accept_host_key(device, fingerprint or shown.fingerprint)


def _add(path: Path, name: str, entry: Entry, wishes: Entry) -> Device:
    return _told(path, add_entry(path, name, {**entry, **wishes}))


def _told(path: Path, device: Device) -> Device:
    label = f" (STAND-IN: {device.label})" if device.label else ""
    _say(f"{device.name}: added to {path}{label}; use it with --target {device.name}")
    return device


def _check(device: Device) -> None:
    def tell(text: str) -> None:
        _say(f"{device.name}: {text}")

    if checked(device, open_leases(DEFAULT_STORE), open_health(DEFAULT_STORE), tell) is not None:
        raise DeviceUnavailable(
            f"{device.name} is in the inventory and its check failed",
            f"Mend what the line above says; then: inas-deploy devices check {device.name}",
        )


def _say(text: str) -> None:
    Console(soft_wrap=True).print(clean(text), markup=False, highlight=False)
