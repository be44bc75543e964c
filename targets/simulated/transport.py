"""The way to a device that is not there: a folder in memory, one command, a clock of its own, and faults on demand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from targets.errors import DeviceUnavailable, FailureKind, SessionFailed, UsageError
from targets.files import write_atomic
from targets.inventory import Device
from targets.simulated.faults import Fault, FaultPlan
from targets.transports.base import Completed

PROGRAM = "simulate"
"""The only command there is; what it does is told with :meth:`SimulatedTransport.install`."""
Program = Callable[[bytes], bytes]


class SimulatedTransport:
    """A transport without a wire.

    Args:
        device: A device with transport ``simulated``.
        faults: Which calls fail; none do by default.

    Attributes:
        now: The device's own clock, UTC; simulated work moves it on without anybody waiting.
    """

    def __init__(self, device: Device, *, faults: FaultPlan | None = None) -> None:
        self.work_folder = device.work_folder or "/simulated"
        self.now = datetime.now(UTC)
        self._faults = faults or FaultPlan()
        self._files: dict[str, bytes] = {}
        self._program: Program | None = None
        self._open = True

    def install(self, program: Program) -> None:
        """Say what :data:`PROGRAM` answers to its input."""
        self._program = program

    def pass_time(self, seconds: float) -> None:
        """Move the device's clock on."""
        self.now += timedelta(seconds=seconds)

    def run(
        self,
        argv: Sequence[str],
        *,
        input_bytes: bytes = b"",
        timeout_s: float,
        env: Mapping[str, str] | None = None,
        keep_input_open: bool = False,
    ) -> Completed:
        """Run :data:`PROGRAM`; see :class:`targets.transports.base.Transport`."""
        fault = self._fault()
        if not argv or argv[0] != PROGRAM or self._program is None:
            name = argv[0] if argv else ""
            raise SessionFailed(f"cannot start {name!r}: a simulated device has no programs", FailureKind.TOOL_ERROR)
        if fault is Fault.SLOW_SHELL:
            self.pass_time(timeout_s)
            text = f"{PROGRAM} was stopped at its deadline of {timeout_s:g} s (simulated)"
            raise SessionFailed(text, FailureKind.TIMEOUT, "Give it more time or less to do.")
        printed = self._program(input_bytes)
        if fault is Fault.LOST_ANSWER:
            _lost()
        if fault is Fault.TRUNCATED:
            printed = printed[: len(printed) // 2]
        return Completed(0, printed, b"")

    def push(self, local: Path, remote: str) -> None:
        """Keep a file's content."""
        fault = self._fault()
        if not local.is_file():
            raise UsageError(f"cannot push {local}: no such file", "Check the path.")
        data = local.read_bytes()
        if fault is Fault.TRUNCATED:
            text = f"the copy of {local} on the device differs from the file (simulated)"
            raise SessionFailed(text, FailureKind.TOOL_ERROR, "Try again.")
        self._files[remote] = data
        if fault is Fault.LOST_ANSWER:
            _lost()

    def pull(self, remote: str, local: Path) -> None:
        """Write back what was pushed."""
        fault = self._fault()
        if remote not in self._files:
            raise SessionFailed(f"cannot pull {remote}: no such file on the device", FailureKind.TOOL_ERROR)
        if fault is Fault.TRUNCATED:
            text = f"the copy of {remote} differs from the file on the device (simulated)"
            raise SessionFailed(text, FailureKind.TOOL_ERROR, "Try again.")
        write_atomic(local, self._files[remote])

    def checksum(self, remote: str) -> str | None:
        """Hash of a pushed file."""
        self._fault()
        data = self._files.get(remote)
        return None if data is None else hashlib.sha256(data).hexdigest()

    def remove(self, remote: str) -> None:
        """Forget a pushed file or folder."""
        self._fault()
        if ".." in Path(remote).parts or Path(self.work_folder) not in Path(remote).parents:
            raise UsageError(f"{remote} is not under {self.work_folder}", "Only the kit's own files are removed.")
        for name in [name for name in self._files if name == remote or name.startswith(f"{remote}/")]:
            del self._files[name]

    def close(self) -> None:
        """Refuse further calls."""
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fault(self) -> Fault | None:
        if not self._open:
            raise DeviceUnavailable("the simulated device is closed", "Open the device again.")
        fault = self._faults.next_fault()
        if fault is Fault.DISCONNECT:
            _lost()
        return fault


def _lost() -> NoReturn:
    raise SessionFailed("the connection was lost (simulated)", FailureKind.LOST_DEVICE, "Try again.")
