"""Sessions on this machine: the kit's own worker process."""

from __future__ import annotations

from targets.inventory import Device
from targets.jobs import Job
from targets.records import OpProfile, SessionRecord
from targets.runtimes.registry import get_runtime
from targets.session import run_profile, run_session
from targets.transports.base import Transport


class WorkerDriver:
    """Runs :mod:`targets.worker`; see :class:`targets.drivers.base.Driver`.

    Args:
        device: A device with transport ``local``.
        transport: The way to it.
        runtime: Registry name of the runtime.
    """

    def __init__(self, device: Device, transport: Transport, runtime: str) -> None:
        self._transport = transport
        self._runtime = runtime

    def run_session(self, job: Job) -> SessionRecord:
        """Time one session in a fresh process."""
        return run_session(self._transport, job)

    def run_profile(self, job: Job) -> OpProfile:
        """Take a per-op profile in a fresh process."""
        return run_profile(self._transport, job)

    def versions(self) -> dict[str, str]:
        """Versions of the runtime's packages."""
        return get_runtime(self._runtime).versions()

    def close(self) -> None:
        """Nothing is held between sessions."""
