"""A lease that is held: renewed by a thread, checked against the book, noticed when lost."""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import Protocol, Self

from targets.errors import DeviceUnavailable, KitError
from targets.leases.holders import boot_clock


class Renewer(Protocol):
    """The part of a book that a held lease talks to."""

    lease_s: float

    def renew(self, key: str, claim_id: str) -> bool:
        """Prolong; ``False`` where the lease is somebody else's or nobody's. Raises ``KitError`` while out of reach."""

    def drop(self, key: str, claim_id: str) -> None:
        """Give back."""


class HeldLease:
    """See :class:`targets.leases.base.Lease`.

    Args:
        book: Where it is written down.
        key: What it is a claim on.
        claim_id: Which claim.
        token: The claim's token.
        asked_at: :func:`targets.leases.holders.boot_clock` from before it was granted.
    """

    def __init__(self, book: Renewer, key: str, claim_id: str, token: int, asked_at: float) -> None:
        self.key = key
        self.token = token
        self._book, self._claim_id = book, claim_id
        self._good_until = asked_at + book.lease_s
        self._lost = ""
        self._pid = os.getpid()
        self._talking = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease of {key}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Ask the book whether the lease is still ours; while the book is out of reach, the term we know of counts.

        Raises:
            DeviceUnavailable: If it was lost or released.
        """
        if os.getpid() != self._pid:
            raise DeviceUnavailable(f"the lease on {self.key} is its parent process's", "Take one in this process.")
        self._renew()
        if self._over.is_set():
            raise DeviceUnavailable(f"the lease on {self.key} was given back", "Open the device again.")
        if self._lost:
            what = f"the lease on {self.key} was lost: {self._lost}; what was just measured may be disturbed"
            raise DeviceUnavailable(what, "Measure again.")

    def release(self) -> None:
        """Give it back; releasing twice, or after it was lost, is harmless."""
        if self._over.is_set() or os.getpid() != self._pid:
            return
        self._over.set()
        with self._talking:
            try:
                self._book.drop(self.key, self._claim_id)
            except KitError:
                return  # the book is out of reach: the lease runs out by itself

    def _keep(self) -> None:
        pause_s = self._book.lease_s / 3
        while not self._over.wait(pause_s) and not self._lost:
            pause_s = self._book.lease_s / (3 if self._renew() else 15)

    def _renew(self) -> bool:
        """Prolong the lease; ``False`` where the book could not be asked."""
        with self._talking:
            if self._over.is_set() or self._lost:
                return True
            started = boot_clock()
            try:
                if self._book.renew(self.key, self._claim_id):
                    self._good_until = started + self._book.lease_s
                else:
                    self._lost = "it ran out while this process or its host was held up"
            except KitError as error:
                if boot_clock() >= self._good_until:
                    self._lost = f"it could not be renewed ({error.what})"
                return False
            return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
