"""From the words behind ``--target`` to devices: names, tags, and phones that are simply plugged in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from targets.errors import MissingExtra, UsageError
from targets.inventory import Device, Inventory

PHONES = "android"


@dataclass(frozen=True)
class Chosen:
    """Devices that were asked for.

    Attributes:
        devices: Each once, in the order asked for.
        optional: Names of those that came by a tag beside others: one that cannot be used is left out with a warning.
    """

    devices: tuple[Device, ...]
    optional: frozenset[str]


def choose(known: Inventory, texts: Sequence[str]) -> Chosen:
    """Find devices by name or tag.

    Args:
        known: The inventory.
        texts: Names and tags; ``android`` also takes every phone on USB that the inventory does not name.

    Raises:
        UsageError: If a word names nothing.
    """
    found: dict[str, Device] = {}
    named: set[str] = set()
    for text in texts:
        plugged = phones_on_usb(known) if text == PHONES else []
        try:
            selected = known.select(text)
        except UsageError:
            if not plugged:
                raise
            selected = []
        together = [*selected, *plugged]
        found |= {device.name: device for device in together}
        if len(together) == 1 or text in {device.name for device in together}:
            named |= {device.name for device in together}
    return Chosen(tuple(found.values()), frozenset(found) - named)


def phones_on_usb(known: Inventory) -> list[Device]:
    """Phones that are plugged in and that the inventory does not name, as ``usb-SERIAL``."""
    from targets.transports.adb_discovery import usb_phones

    try:
        serials = usb_phones()
    except MissingExtra:
        return []
    taken = {device.serial for device in known.devices}
    return [
        Device(
            name="usb-" + re.sub(r"[^A-Za-z0-9._-]", "-", serial)[:60],
            tags=(PHONES,),
            transport="adb",
            serial=serial,
            runtime="tflite",
        )
        for serial in serials
        if serial not in taken
    ]
