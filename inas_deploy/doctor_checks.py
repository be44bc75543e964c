"""What one finding of the doctor looks like."""

from __future__ import annotations

from typing import Literal

from targets.records import Frozen

Status = Literal["ok", "warn", "missing"]


class Check(Frozen):
    """One thing that was tried out, and what came of it.

    Attributes:
        area: ``installed``, ``virtual`` (devices that can be acted here), ``host``, ``now`` or ``files``.
        name: What was tried.
        status: ``ok``; ``warn``: works, and figures suffer; ``missing``: not there, or hidden by the host.
        detail: What was found, with the figures.
        fix: What to do; empty where nothing needs or helps.
    """

    area: Literal["installed", "virtual", "host", "now", "files"]
    name: str
    status: Status
    detail: str
    fix: str = ""
