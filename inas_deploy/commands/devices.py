"""``inas-deploy devices``: what the inventory holds, in which state it is, and what can be done about it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from inas_deploy.checkup import checked
from inas_deploy.commands.devices_add import add
from inas_deploy.commands.options import Inventory, Json, Store
from inas_deploy.new_device import stop_virtual
from inas_deploy.report.text import clean
from targets.errors import DeviceUnavailable, UsageError
from targets.health import HealthState, open_health
from targets.inventory import DEFAULT_FILE, Device, load_inventory
from targets.inventory_file import remove_entry
from targets.leases.base import LeaseState
from targets.leases.registry import open_leases
from targets.stand_ins import virtual_kind
from targets.store import DEFAULT_STORE
from targets.transports.ssh_keys import accept_host_key

app = typer.Typer(
    help="List the devices you can name with --target, add them, check them.",
    rich_markup_mode="rich",
    add_completion=False,
)
app.command()(add)

Name = Annotated[str, typer.Argument(help="Device name from the inventory.")]
Wait = Annotated[float, typer.Option(min=0, max=86_400, help="Seconds to stand in line for a device in use.")]


@dataclass(frozen=True)
class State:
    """What a device is doing now.

    Attributes:
        word: ``free``, ``in use`` or ``in quarantine``.
        detail: By whom and until when, or why; empty for a free one that never failed.
    """

    word: str
    detail: str = ""


@app.callback(invoke_without_command=True)
def devices(
    context: typer.Context, inventory: Inventory = None, store: Store = DEFAULT_STORE, as_json: Json = False
) -> None:
    """List the devices you can name with --target, and what each is doing now.

    [bold]Examples[/bold]

    inas-deploy devices

    inas-deploy devices --devices lab.toml --json

    inas-deploy devices add --virtual board

    inas-deploy devices add user@192.168.1.20

    inas-deploy devices check android
    """
    if context.invoked_subcommand is not None:
        return
    known = load_inventory(inventory).devices
    leases = {state.key: state for state in open_leases(store).states()}
    health = {state.key: state for state in open_health(store).states()}
    states = {d.name: state_of(leases.get(d.lease_key), health.get(d.lease_key)) for d in known}
    if as_json:
        plain = [_plain(device, states[device.name]) for device in known]
        sys.stdout.write(json.dumps(plain, indent=2) + "\n")
        return
    Console().print(_table(known, states))


def _table(known: Sequence[Device], states: Mapping[str, State]) -> Table:
    table = Table()
    table.add_column("device", no_wrap=True)
    table.add_column("transport", no_wrap=True)
    columns: dict[str, list[str]] = {
        "runtime": [device.runtime or "" for device in known],
        "precision": [device.precision or "" for device in known],
        "threads": [str(device.threads or "") for device in known],
        "tags": [", ".join(device.tags) for device in known],
        "stand-in": [device.label or "" for device in known],
    }
    told = {title: words for title, words in columns.items() if any(words)}
    for title in told:
        table.add_column(title)
    table.add_column("state")
    for number, device in enumerate(known):
        state = states[device.name]
        colour = {"free": "green", "in use": "yellow"}.get(state.word, "red")
        shown = f"[{colour}]{state.word}[/{colour}]" + (f": {escape(state.detail)}" if state.detail else "")
        table.add_row(device.name, device.transport, *(words[number] for words in told.values()), shown)
    return table


def state_of(lease: LeaseState | None, health: HealthState | None) -> State:
    """A device's state from what is kept of it.

    Args:
        lease: Its lease, if somebody holds one.
        health: Its failures, if it has any.
    """
    if health is not None and health.quarantined_at is not None:
        return State("in quarantine", f"since {_clock(health.quarantined_at)}: {clean(health.reason)}")
    if lease is not None:
        line = f", {lease.waiting} waiting" if lease.waiting else ""
        return State("in use", f"by {clean(lease.holder)}, renewed until {_clock(lease.expires_at)}{line}")
    if health is not None:
        return State("free", f"{health.failures} failed in a row: {clean(health.reason)}")
    return State("free")


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _plain(device: Device, state: State) -> dict[str, Any]:
    return {
        **device.model_dump(mode="json"),
        "stand_in": device.label,
        "state": state.word,
        "state_detail": state.detail,
    }


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="Device name or tag from the inventory.")],
    inventory: Inventory = None,
    store: Store = DEFAULT_STORE,
    wait: Wait = 0.0,
) -> None:
    """Try everything a bench needs of a device; a quarantine is lifted if it works. Exit code 3 if it does not.

    [bold]Examples[/bold]

    inas-deploy devices check nano

    inas-deploy devices check android --wait 60
    """
    console = Console(soft_wrap=True)
    failed = []
    for device in load_inventory(inventory).select(name):

        def tell(text: str, name: str = device.name) -> None:
            console.print(clean(f"{name}: {text}"), markup=False, highlight=False)

        if checked(device, open_leases(store), open_health(store), tell, wait_s=wait) is not None:
            failed.append(device.name)
    if failed:
        raise DeviceUnavailable(f"cannot be used now: {', '.join(failed)}", "The lines above say why.")


@app.command()
def accept(
    name: Name,
    fingerprint: Annotated[str, typer.Option(help="SHA256:... as the device itself shows it.")],
    inventory: Inventory = None,
) -> None:
    """Trust the host key of an ssh device, if it is the one that you name.

    On the device, [bold]ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub[/bold] shows the fingerprint.

    [bold]Example[/bold]

    inas-deploy devices accept nano --fingerprint SHA256:3q2+7w...
    """
    device = _one(name, inventory)
    if device.transport != "ssh":
        raise UsageError(f"{device.name} is reached by {device.transport} and has no host key", "Name an ssh device.")
    accept_host_key(device, fingerprint)
    Console(soft_wrap=True).print(f"{device.name}: its host key is trusted from now on", highlight=False)


@app.command()
def stop(
    name: Name,
    inventory: Inventory = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the entry in the inventory.")] = False,
) -> None:
    """Stop a virtual phone or board and take its entry out of the inventory.

    [bold]Example[/bold]

    inas-deploy devices stop virtual-board
    """
    device = _one(name, inventory)
    path = inventory or Path(DEFAULT_FILE)
    stop_virtual(device, path)
    if not keep:
        remove_entry(path, device.name)
    Console(soft_wrap=True).print(f"{device.name}: stopped", highlight=False)


@app.command()
def remove(name: Name, inventory: Inventory = None) -> None:
    """Take a device's entry out of the inventory; a virtual phone or board is stopped first.

    [bold]Example[/bold]

    inas-deploy devices remove nano
    """
    device = _one(name, inventory)
    path = inventory or Path(DEFAULT_FILE)
    if device.name != name:
        raise UsageError(f"{name} is a tag", f"Name the device: inas-deploy devices remove {device.name}")
    if virtual_kind(device) is not None:
        stop_virtual(device, path)
    if not path.exists() or not remove_entry(path, name):
        raise UsageError(f"{name} is this machine and stands in no inventory", "There is nothing to remove.")
    Console(soft_wrap=True).print(f"{name}: removed from {path}", markup=False, highlight=False)


def _one(name: str, inventory: Path | None) -> Device:
    found = load_inventory(inventory).select(name)
    if len(found) != 1:
        raise UsageError(f"{name} names {len(found)} devices", "Name one device.")
    return found[0]
