"""A Target: a Device opened for use, with its transport and the drivers of its runtimes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from targets.drivers.base import Driver
from targets.drivers.registry import open_driver
from targets.errors import KitError, SessionFailed
from targets.health import HealthBook
from targets.inventory import Device
from targets.jobs import Job
from targets.leases.base import Lease
from targets.records import OpProfile, SessionRecord
from targets.transports.base import Transport
from targets.transports.recording import RecordingTransport
from targets.transports.registry import open_transport


class Target:
    """An open device; a context manager that closes itself.

    Args:
        device: From the inventory.
        transport: The open way to it.
        lease: Checked before and after each session; whoever took it gives it back. ``None`` for a stand-in that
            nobody else can want.
        health: Told of sessions that end and that fail.
    """

    def __init__(
        self, device: Device, transport: Transport, lease: Lease | None = None, health: HealthBook | None = None
    ) -> None:
        self.device = device
        self.transport = transport
        self.lease = lease
        self.health = health
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
        driver = self.driver(job.settings.runtime)
        with self._watched():
            session = driver.run_session(job)
        if isinstance(self.transport, RecordingTransport):
            self.transport.note_tools(session.versions)
        return session

    def run_profile(self, job: Job) -> OpProfile:
        """Take a per-op profile; see :meth:`run_session`."""
        driver = self.driver(job.settings.runtime)
        with self._watched():
            return driver.run_profile(job)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        if self.lease is not None:
            self.lease.check()
        try:
            yield
        except SessionFailed as error:
            if self.health is not None:
                self.health.record_failure(self.device.lease_key, error.kind, error.what)
            raise
        if self.lease is not None:
            self.lease.check()
        if self.health is not None:
            self.health.record_success(self.device.lease_key)

    def close(self) -> None:
        """Clean up on the device and close the connection; the first error is raised at the end."""
        first: KitError | None = None
        for step in (*(driver.close for driver in self._drivers.values()), self.transport.close):
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


def open_target(
    device: Device, lease: Lease | None = None, health: HealthBook | None = None, *, record: Path | None = None
) -> Target:
    """Open a device.

    Args:
        device: From the inventory.
        lease: A lease on it, held by the caller.
        health: Where its failures are counted.
        record: File that all that is said to the device, and all that it answers, is written to.

    Raises:
        DeviceUnavailable: If it cannot be reached or is not what it was.
    """
    transport = open_transport(device)
    if record is not None:
        transport = RecordingTransport(transport, record, device)
    return Target(device, transport, lease, health)
