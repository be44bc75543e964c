"""Which book keeps the leases that go with a store of results."""

from __future__ import annotations

from pathlib import Path

from targets.database import is_shared
from targets.leases.base import LeaseBook
from targets.leases.database import DatabaseLeases
from targets.leases.files import FileLeases
from targets.leases.locked import state_folder


def open_leases(store: str | Path) -> LeaseBook:
    """The book of leases for whoever uses a store.

    Args:
        store: A PostgreSQL URL, whose users then share its leases; for anything else, files of this user on this host.

    Raises:
        KitError: If the book cannot be opened.
    """
    return DatabaseLeases(str(store)) if is_shared(store) else FileLeases(state_folder("leases"))
