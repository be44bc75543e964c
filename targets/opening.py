"""A Target: a Device opened for use, with its lease, its transport and the drivers of its runtimes."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from targets.drivers.base import Driver
from targets.drivers.registry import open_driver
from targets.errors import KitError
from targets.inventory import Device
from targets.jobs import Job
from targets.leases.base import Lease
from targets.records import OpProfile, SessionRecord
from targets.transports.base import Transport
from targets.transports.registry import open_transport


class Target:
    """An open device; a context manager that closes itself.

    Args:
        device: From the inventory.
        transport: The open way to it.
        lease: Held for as long as the target is open; given back at the end. ``None`` for a caller that holds its own.
    """

    def __init__(self, device: Device, transport: Transport, lease: Lease | None = None) -> None:
        self.device = device
        self.transport = transport
        self.lease = lease
        self._drivers: dict[str, Driver] = {}

    def driver(self, runtime: str) -> Driver:
        """The driver of a runtime on this device, made when first asked for.

        Raises:
            UsageError: If that runtime is not run on such a device.
        """
        if runtime not in self._drivers:
            kind = getattr(self.transport, "recorded_transport", None)
            self._drivers[runtime] = open_driver(self.device, self.transport, runtime, kind=kind)
        return self._drivers[runtime]

    def run_session(self, job: Job) -> SessionRecord:
        """Time one session; see :meth:`targets.drivers.base.Driver.run_session`.

        Raises:
            DeviceUnavailable: If the lease was lost, before or while it ran: somebody else may have measured too.
        """
        self._check_lease()
        session = self.driver(job.settings.runtime).run_session(job)
        self._check_lease()
        return session

    def run_profile(self, job: Job) -> OpProfile:
        """Take a per-op profile; see :meth:`run_session`."""
        self._check_lease()
        profile = self.driver(job.settings.runtime).run_profile(job)
        self._check_lease()
        return profile

    def _check_lease(self) -> None:
        if self.lease is not None:
            self.lease.check()

    def close(self) -> None:
        """Clean up on the device, close the connection, give the lease back; the first error is raised at the end."""
        first: KitError | None = None
        steps = [driver.close for driver in self._drivers.values()]
        steps += [self.transport.close, *([self.lease.release] if self.lease else [])]
        for step in steps:
            try:
                step()
            except KitError as error:
                first = first or error
        self._drivers.clear()
        if first is not None:
            raise first

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except KitError:
            if error is None:  # the error that ended the work says more than one met while clearing up
                raise


def open_target(device: Device, lease: Lease | None = None) -> Target:
    """Open a device.

    Args:
        device: From the inventory.
        lease: A lease on it that is held already; the target gives it back when it closes, or here if opening fails.

    Raises:
        DeviceUnavailable: If it cannot be reached or is not what it was.
    """
    try:
        return Target(device, open_transport(device), lease)
    except KitError:
        if lease is not None:
            lease.release()
        raise
