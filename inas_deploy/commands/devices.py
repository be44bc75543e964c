"""``inas-deploy devices``: what the inventory holds."""

from __future__ import annotations

import json
import sys

from rich.console import Console
from rich.table import Table

from inas_deploy.commands.options import Inventory, Json
from targets.inventory import load_inventory


def devices(inventory: Inventory = None, as_json: Json = False) -> None:
    """List the devices you can name with --target.

    [bold]Examples[/bold]

    inas-deploy devices

    inas-deploy devices --devices lab.toml --json
    """
    known = load_inventory(inventory).devices
    if as_json:
        plain = [device.model_dump(mode="json") for device in known]
        sys.stdout.write(json.dumps(plain, indent=2) + "\n")
        return
    table = Table("device", "transport", "runtime", "precision", "threads", "tags", "stand-in")
    for device in known:
        cells = (device.transport, device.runtime, device.precision, device.threads)
        words = ["" if cell is None else str(cell) for cell in cells]
        table.add_row(device.name, *words, ", ".join(device.tags), device.stand_in or "")
    Console().print(table)
