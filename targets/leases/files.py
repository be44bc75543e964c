"""Leases in small files, for all processes of one user on one host; there is no server to run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from targets.database import PATIENCE_S
from targets.leases.base import LEASE_S
from targets.leases.book import Book, ResultT, Step
from targets.leases.holders import boot_clock, boot_id
from targets.leases.ledger import Ledger, Moment
from targets.leases.locked import LockedFiles, damaged

_LEDGER = TypeAdapter(Ledger)


class FileLeases(Book):
    """A :class:`targets.leases.base.LeaseBook` in a folder.

    Times are on the clock that counts from the host's start, so setting the date neither frees nor freezes a lease,
    and a restart of the host frees all.

    Args:
        folder: Only this user's; made where it is missing.
        lease_s: Seconds after which a lease that is not renewed is anybody's.
        poll_s: Seconds after which the first in line looks again.

    Raises:
        UsageError: If the folder cannot be made, or others may write to it.
    """

    def __init__(self, folder: Path, *, lease_s: float = LEASE_S, poll_s: float = 0.1) -> None:
        super().__init__(lease_s, poll_s)
        self._files = LockedFiles(folder)

    def change(self, key: str, step: Step[ResultT], *, patience_s: float = PATIENCE_S) -> ResultT:
        """Change one device's ledger while its file is locked.

        Raises:
            KitError: If the file cannot be read, written or locked.
        """
        with self._files.changing(key, patience_s) as content:
            ledger = self._ledger(content)
            result = step(ledger, _now())
            content.update(boot=boot_id(), ledger=asdict(ledger))
            return result

    def ledgers(self) -> Iterator[tuple[str, Ledger, Moment]]:
        """All ledgers with the time.

        Raises:
            KitError: If a file cannot be read.
        """
        for key, content in self._files.contents():
            yield key, self._ledger(content), _now()

    def _ledger(self, content: dict[str, Any]) -> Ledger:
        try:
            ledger = _LEDGER.validate_python(content.get("ledger", {}))
        except ValidationError as error:
            raise damaged(self._files.folder) from error
        if content.get("boot") != boot_id():
            return Ledger(token=ledger.token)
        return ledger


def _now() -> Moment:
    return Moment(boot_clock(), time.time())
