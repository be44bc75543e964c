"""Is this machine ready to measure? What is installed, what the host allows, what would help right now."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from inas_deploy.doctor_checks import Check
from inas_deploy.doctor_host import host_checks, now_checks
from inas_deploy.doctor_software import software_checks
from inas_deploy.doctor_virtual import virtual_checks
from targets.errors import KitError
from targets.files import check_writable
from targets.inventory import DEFAULT_FILE, load_inventory
from targets.store import DEFAULT_STORE, ResultStore

__all__ = ["Check", "diagnose", "render"]

_STYLES = {"ok": "green", "warn": "yellow", "missing": "dim"}
_AREAS = {
    "installed": "Installed",
    "virtual": "Virtual devices (devices add --virtual)",
    "host": "What this host allows",
    "now": "Right now",
    "files": "Files",
}


def diagnose(inventory: Path | None = None, store: str = DEFAULT_STORE) -> list[Check]:
    """Try out this machine; takes some seconds, because packages are really imported and models really run.

    Args:
        inventory: Inventory file; ``devices.toml`` in the working folder by default, if it is there.
        store: Result store to check.

    Returns:
        All findings, in the order to read them.
    """
    now = list(now_checks())  # first: our own probes would be part of what is measured
    return [*software_checks(), *virtual_checks(), *host_checks(), *now, *_file_checks(inventory, store)]


def render(checks: Sequence[Check], console: Console) -> None:
    """Print findings as tables, the way out below each problem.

    Args:
        checks: What :func:`diagnose` found.
        console: Where to.
    """
    for area, title in _AREAS.items():
        rows = [check for check in checks if check.area == area]
        if not rows:
            continue
        table = Table(title=title, title_justify="left", box=None, show_header=False, pad_edge=False, expand=False)
        table.add_column(width=7)
        table.add_column(no_wrap=True, min_width=28)
        table.add_column(overflow="fold")
        for check in rows:
            detail = Text(check.detail)
            if check.fix:
                detail.append(f"\n-> {check.fix}", style="bold")
            table.add_row(Text(check.status, style=_STYLES[check.status]), Text(check.name), detail)
        console.print(table)
        console.print()
    counts = ", ".join(f"{sum(c.status == status for c in checks)} {status}" for status in _STYLES)
    console.print(Text(f"{len(checks)} checks: {counts}"))


def _file_checks(inventory: Path | None, store: str) -> Iterator[Check]:
    try:
        found = load_inventory(inventory)
    except KitError as error:
        yield Check(area="files", name="inventory", status="warn", detail=error.what, fix=error.fix)
    else:
        names = ", ".join(device.name for device in found.devices)
        where = str(found.path) if found.path else f"no {DEFAULT_FILE} in this folder"
        yield Check(area="files", name="inventory", status="ok", detail=f"{where}; devices: {names}")
    yield _store(store)


def _store(store: str) -> Check:
    path = Path(store)
    try:
        if "://" in store or path.exists():
            with ResultStore(store):
                pass
        else:
            check_writable(path)
            with tempfile.NamedTemporaryFile(dir=path.absolute().parent, prefix=".inas-doctor-") as file:
                file.write(b"probe")
    except KitError as error:
        return Check(area="files", name="result store", status="warn", detail=error.what, fix=error.fix)
    except OSError as error:
        detail = f"{path.absolute().parent} cannot be written: {error.strerror}"
        return Check(area="files", name="result store", status="warn", detail=detail, fix="Name another with --store.")
    return Check(area="files", name="result store", status="ok", detail=f"{store} can be written")
