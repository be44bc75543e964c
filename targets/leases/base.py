"""What every keeper of leases offers: an expiring claim on a device, renewed while its holder lives."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

LEASE_S = 30.0
"""Seconds after which a lease that is not renewed is anybody's."""


@dataclass(frozen=True)
class LeaseState:
    """A lease as others see it.

    Attributes:
        key: :attr:`targets.inventory.Device.lease_key`.
        holder: Host, process and user that hold it.
        since: When it was taken, UTC.
        expires_at: When it ends unless renewed, UTC.
        waiting: Number of others in line.
    """

    key: str
    holder: str
    since: datetime
    expires_at: datetime
    waiting: int = 0


class Lease(Protocol):
    """A claim on a device that is held; a background thread renews it until it is released.

    Attributes:
        key: What it is a claim on.
        token: Grows with every holder of this key: a later holder has the larger one.
    """

    key: str
    token: int

    def check(self) -> None:
        """Raise ``DeviceUnavailable`` unless the lease is still ours."""

    def release(self) -> None:
        """Give it back; releasing twice, or after it was lost, is harmless."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LeaseBook(Protocol):
    """Keeps the leases of one host or one lab."""

    def acquire(self, key: str, *, wait_s: float = 0.0, cancelled: threading.Event | None = None) -> Lease:
        """Claim a device, in order of asking.

        Args:
            key: :attr:`targets.inventory.Device.lease_key`.
            wait_s: How long to stand in line; 0 refuses at once.
            cancelled: Ends the wait when another thread sets it.

        Raises:
            DeviceUnavailable: If somebody else holds it that long; the line names the holder and how to wait.
        """

    def states(self) -> list[LeaseState]:
        """Leases that are held now."""
