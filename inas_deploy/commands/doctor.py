"""``inas-deploy doctor``: what is installed, what the host allows, what would make figures better."""

from __future__ import annotations

import json
import sys

from rich.console import Console

from inas_deploy.commands.options import Json, waiting
from inas_deploy.doctor import diagnose, render


def doctor(as_json: Json = False) -> None:
    """Check this machine: runtimes, load, clocks, inventory.

    [bold]Examples[/bold]

    inas-deploy doctor

    inas-deploy doctor --json
    """
    with waiting("checking this machine and every runtime"):
        checks = diagnose()
    if as_json:
        sys.stdout.write(json.dumps([check.model_dump(mode="json") for check in checks], indent=2) + "\n")
    else:
        render(checks, Console())
