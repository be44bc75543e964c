"""What keepers of leases share: standing in line, taking, renewing; each keeper adds where the ledgers lie."""

from __future__ import annotations

import random
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from targets.database import PATIENCE_S
from targets.errors import DeviceUnavailable, KitError, printable
from targets.leases.base import LEASE_S, LeaseState
from targets.leases.held import HeldLease
from targets.leases.holders import boot_clock, holder_name, process_identity
from targets.leases.ledger import Claim, Ledger, Moment

ResultT = TypeVar("ResultT")
Step = Callable[[Ledger, Moment], ResultT]

_LONGEST_PAUSE_S = 2.0  # well under the life of a place in line
_SHORT_S = 2.0  # patience where waiting longer would hold somebody up, and what is not done now runs out by itself


class Book(ABC):
    """A :class:`targets.leases.base.LeaseBook` over ledgers that are kept somewhere.

    Args:
        lease_s: Seconds after which a lease that is not renewed is anybody's. All users of a book need the same.
        poll_s: Seconds after which the first in line looks again.
    """

    def __init__(self, lease_s: float = LEASE_S, poll_s: float = 0.1) -> None:
        self.lease_s = lease_s
        self._poll_s = poll_s

    @abstractmethod
    def change(self, key: str, step: Step[ResultT], *, patience_s: float = PATIENCE_S) -> ResultT:
        """Change one device's ledger while nobody else can.

        Args:
            key: Which device's.
            step: Makes the change; done twice, it gives the same.
            patience_s: How long to try again while the ledger is out of reach.

        Raises:
            KitError: If the ledger cannot be read or written.
        """

    @abstractmethod
    def ledgers(self) -> Iterable[tuple[str, Ledger, Moment]]:
        """All ledgers, as they are, each with the time.

        Raises:
            KitError: If they cannot be read.
        """

    def acquire(self, key: str, *, wait_s: float = 0.0, cancelled: threading.Event | None = None) -> HeldLease:
        """Claim a device; see :meth:`targets.leases.base.LeaseBook.acquire`.

        Raises:
            DeviceUnavailable: If somebody else holds it that long, or waiting was cancelled.
            KitError: If the book cannot be read or written.
        """
        claim = Claim(uuid.uuid4().hex, holder_name(), process_identity())
        deadline = time.monotonic() + wait_s
        granted = False
        try:
            while True:
                asked_at = boot_clock()
                token, ledger = self.change(key, self._asking(claim))
                if token is not None:
                    lease = HeldLease(self, key, claim.claim_id, token, asked_at)
                    granted = True
                    return lease
                left_s = deadline - time.monotonic()
                if left_s <= 0 or (cancelled is not None and cancelled.is_set()):
                    raise _refusal(key, ledger, claim.claim_id, wait_s)
                _pause(min(left_s, self._pause_s(ledger, claim)), cancelled)
        finally:
            if not granted:
                self._leave(key, claim.claim_id)

    def states(self) -> list[LeaseState]:
        """Leases that are held now.

        Raises:
            KitError: If the book cannot be read.
        """
        states = []
        for key, ledger, now in self.ledgers():
            ledger.tidy(now, self.lease_s)
            if ledger.held is not None:
                left = timedelta(seconds=ledger.held.expires_at - now.steady_s)
                since = datetime.fromtimestamp(ledger.held.taken_at, UTC)
                until = datetime.fromtimestamp(now.since_1970_s, UTC) + left
                states.append(LeaseState(key, ledger.held.holder, since, until, len(ledger.line)))
        return sorted(states, key=lambda state: state.key)

    def renew(self, key: str, claim_id: str) -> bool:
        """Prolong a lease; ``False`` where it is not that claim's any more.

        Raises:
            KitError: If the book cannot be read or written.
        """
        patience_s = min(_SHORT_S, self.lease_s / 4)  # the holder asks again
        return self.change(key, lambda ledger, now: ledger.renew(claim_id, now, self.lease_s), patience_s=patience_s)

    def drop(self, key: str, claim_id: str) -> None:
        """Give a lease back, or leave the line.

        Raises:
            KitError: If the book cannot be read or written.
        """
        self.change(key, lambda ledger, _: ledger.drop(claim_id), patience_s=_SHORT_S)

    def _asking(self, claim: Claim) -> Step[tuple[int | None, Ledger]]:
        return lambda ledger, now: (ledger.ask(claim, now, self.lease_s), ledger.copy())

    def _pause_s(self, ledger: Ledger, claim: Claim) -> float:
        place = ledger.place(claim.claim_id) or 0
        return min(self._poll_s * (1 + place), _LONGEST_PAUSE_S) * random.uniform(0.7, 1.0)

    def _leave(self, key: str, claim_id: str) -> None:
        try:
            self.drop(key, claim_id)
        except KitError:
            return  # the place in line runs out by itself


def _pause(seconds: float, cancelled: threading.Event | None) -> None:
    if cancelled is None:
        time.sleep(seconds)
    else:
        cancelled.wait(seconds)


def _refusal(key: str, ledger: Ledger, claim_id: str, wait_s: float) -> DeviceUnavailable:
    others = [ticket for ticket in ledger.line if ticket.claim_id != claim_id]
    waited = f", still so after {wait_s:g} s in line" if wait_s > 0 else ""
    fix = "Wait longer" if wait_s > 0 else "Stand in line for it"
    if ledger.held is not None:
        since = datetime.fromtimestamp(ledger.held.taken_at, UTC)
        who = f"in use by {printable(ledger.held.holder)} since {since:%H:%M:%S} UTC"
    else:
        who = f"promised to {printable(others[0].holder)}" if others else "being given back"
    line = f", {len(others)} more in line" if others else ""
    return DeviceUnavailable(f"{key} is {who}{line}{waited}", f"{fix} with --wait SECONDS.")
