"""What every driver offers: one session, one profile, on a device that is open."""

from __future__ import annotations

from typing import Protocol

from targets.jobs import Job
from targets.records import OpProfile, SessionRecord


class Driver(Protocol):
    """Runs the jobs of one runtime on one open device.

    A driver is made with ``(device, transport)`` and does nothing on the device before its first job. It retries what
    :attr:`targets.errors.FailureKind.retryable` says, at most once, under the job's own ``session_id``: a session that
    ended on the device and whose answer was lost on the way is fetched, not measured again.
    """

    def run_session(self, job: Job) -> SessionRecord:
        """Time one session in a fresh process on the device.

        Args:
            job: A ``time`` job; its artifact's path is a file on this host.

        Raises:
            SessionFailed: If there is no result; its kind is the class of the failure.
            KitError: If the model or a setting was refused.
        """

    def run_profile(self, job: Job) -> OpProfile:
        """Take a per-op profile in a fresh process on the device (errors as :meth:`run_session`)."""

    def versions(self) -> dict[str, str]:
        """Versions of the tools on the device that do the work; the runtime's own under its registry name.

        Raises:
            DeviceUnavailable: If the device lacks the tool; the line says how to get it.
        """

    def close(self) -> None:
        """Remove what was put on the device for this opening (cached models stay) and end what still runs there."""
