"""The rules of leasing one device, apart from where they are written down: who holds it, and who stands in line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated

from pydantic import Field

from targets.leases.holders import is_gone

TICKET_S = 10.0
"""Seconds after which somebody in line who does not ask again is skipped."""


Seconds = Annotated[float, Field(ge=0, lt=1e11, allow_inf_nan=False)]


@dataclass(frozen=True)
class Claim:
    """A place in line or, for the first, the lease.

    Attributes:
        claim_id: Unique; 32 hexadecimal digits.
        holder: From :func:`targets.leases.holders.holder_name`.
        process: From :func:`targets.leases.holders.process_identity`.
        taken_at: When it was made, seconds since 1970 on the book's clock; for people only.
        expires_at: When it ends unless renewed, seconds on the book's steady clock.
    """

    claim_id: str
    holder: str
    process: str
    taken_at: Seconds = 0.0
    expires_at: Seconds = 0.0


@dataclass(frozen=True)
class Moment:
    """What time it is where the book is kept.

    Attributes:
        steady_s: Seconds on the clock that decides what has expired.
        since_1970_s: Seconds on the clock that people read.
    """

    steady_s: float
    since_1970_s: float


@dataclass
class Ledger:
    """Everything known of one device's lease.

    Attributes:
        token: Of the present or last holder.
        held: The holder's claim.
        line: Who waits, in order of asking.
    """

    token: int = 0
    held: Claim | None = None
    line: list[Claim] = field(default_factory=list)

    def copy(self) -> Ledger:
        """A ledger that can be changed without changing this one."""
        return replace(self, line=list(self.line))

    def ask(self, claim: Claim, now: Moment, lease_s: float, *, ticket_s: float = TICKET_S) -> int | None:
        """Ask for the device, or again after a while, or again because an answer was lost.

        Args:
            claim: Who asks; its times are set here.
            now: The time.
            lease_s: How long a lease lasts unless renewed.
            ticket_s: How long a place in line lasts unless renewed.

        Returns:
            The holder's new token, or ``None`` for one who has to wait and now stands in line.
        """
        self.tidy(now, lease_s)
        if self.held is not None and self.held.claim_id == claim.claim_id:
            return self.token
        place = self.place(claim.claim_id)
        if self.held is None and (place == 0 or not self.line):
            self.held = replace(claim, taken_at=now.since_1970_s, expires_at=now.steady_s + lease_s)
            self.line = self.line[1:]
            self.token += 1
            return self.token
        ticket = replace(claim, taken_at=now.since_1970_s, expires_at=now.steady_s + ticket_s)
        if place is None:
            self.line.append(ticket)
        elif self.line[place].expires_at < now.steady_s + ticket_s / 2:  # seldom, since every renewal is a write
            self.line[place] = replace(self.line[place], expires_at=ticket.expires_at)
        return None

    def renew(self, claim_id: str, now: Moment, lease_s: float) -> bool:
        """Prolong a lease; ``False`` where it is not the claim's any more. One that ran out and that nobody took is."""
        if self.held is None or self.held.claim_id != claim_id:
            return False
        self.held = replace(self.held, expires_at=now.steady_s + lease_s)
        return True

    def drop(self, claim_id: str) -> None:
        """Give a lease back, or leave the line."""
        if self.held is not None and self.held.claim_id == claim_id:
            self.held = None
        self.line = [ticket for ticket in self.line if ticket.claim_id != claim_id]

    def place(self, claim_id: str) -> int | None:
        """How many are before a claim in line; ``None`` where it is not in line."""
        return next((place for place, ticket in enumerate(self.line) if ticket.claim_id == claim_id), None)

    def tidy(self, now: Moment, lease_s: float, gone: Callable[[str], bool] = is_gone) -> None:
        """Take out whoever ran out of time or has ended.

        A claim far in the future was written before the clock was set back: it gets a usual term from now on, in
        which its holder, if alive, renews it.
        """

        def alive(claim: Claim) -> Claim | None:
            if claim.expires_at <= now.steady_s or gone(claim.process):
                return None
            return replace(claim, expires_at=min(claim.expires_at, now.steady_s + 2 * max(lease_s, TICKET_S)))

        self.held = alive(self.held) if self.held else None
        self.line = [kept for ticket in self.line if (kept := alive(ticket))]
