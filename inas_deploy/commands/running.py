"""Run a plan from the command line: devices opened, progress shown, an interruption explained."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from inas_deploy.commands.options import waiting
from inas_deploy.progress import BenchProgress
from targets.errors import DeviceUnavailable, KitError, UsageError
from targets.health import HealthBook, open_health
from targets.inventory import Device
from targets.leases.base import Lease, LeaseBook
from targets.leases.registry import open_leases
from targets.measure import measure
from targets.opening import Target, open_target
from targets.plan import BenchPlan
from targets.records import BenchRun
from targets.store import ResultStore

_REAL = (None, "virtual")
"""Stand-ins that are a machine: a recording or a simulation can be used by any number at once."""


@contextmanager
def opened(
    devices: Iterable[Device],
    store: str,
    *,
    wait_s: float = 0.0,
    optional: Container[str] = (),
    record: Path | None = None,
) -> Iterator[Mapping[str, Target]]:
    """The devices opened for use, by name, in the order given; closed at the end.

    Args:
        devices: From the inventory.
        store: The result store; a lab's database keeps its leases too.
        wait_s: How long to stand in line for a device that somebody else uses.
        optional: Names of devices that are left out with a warning where they cannot be used now.
        record: File to record the one device's conversation in.

    Raises:
        UsageError: If several devices are to be recorded.
        DeviceUnavailable: If one of the others cannot be used now, or none can.
    """
    devices = list(devices)
    if record is not None and len(devices) != 1:
        raise UsageError(f"--record with {len(devices)} devices", "Name one device with --target.")
    with ExitStack() as stack:
        doors = _Doors(open_leases(store), open_health(store), wait_s, stack, record)
        targets: dict[str, Target] = {}
        refusals: list[DeviceUnavailable] = []
        # In one order everywhere, so that two who want the same two devices do not wait for each other.
        for device in sorted(devices, key=lambda device: device.lease_key):
            try:
                targets[device.name] = doors.open(device)
            except DeviceUnavailable as error:
                if device.name not in optional:
                    raise
                refusals.append(error)
        if refusals and not targets:
            raise refusals[0]
        for refusal in refusals:
            Console(stderr=True, soft_wrap=True).print(f"left out: {refusal}", markup=False, highlight=False)
        yield {device.name: targets[device.name] for device in devices if device.name in targets}


@dataclass
class _Doors:
    book: LeaseBook
    health: HealthBook
    wait_s: float
    stack: ExitStack
    record: Path | None
    leases: dict[str, Lease] = field(default_factory=dict)

    def open(self, device: Device) -> Target:
        if device.label not in _REAL:
            return self.stack.enter_context(open_target(device))
        key = device.lease_key
        self.health.check(key, device.name)
        if key not in self.leases:
            self.leases[key] = self.stack.enter_context(self._lease(device))
        return self.stack.enter_context(open_target(device, self.leases[key], self.health, record=self.record))

    def _lease(self, device: Device) -> Lease:
        with waiting(f"waiting for {device.name}" if self.wait_s else f"opening {device.name}"):
            return self.book.acquire(device.lease_key, wait_s=self.wait_s)


def run_plan(plan: BenchPlan, targets: Mapping[str, Target], store: str, *, resume: bool, quiet: bool) -> BenchRun:
    """Measure a plan, showing progress on the standard error stream.

    Args:
        plan: What to measure.
        targets: By device name.
        store: Where results go.
        resume: Go on with an unfinished run of an equal plan.
        quiet: Show no progress unless it is drawn on a terminal.

    Raises:
        KitError: As :func:`targets.measure.measure`; what was measured is kept.
    """
    console = Console(stderr=True)
    with ResultStore(store) as results, BenchProgress(console, quiet=quiet and not console.is_terminal) as progress:
        try:
            return measure(plan, results, targets, resume=resume, on_progress=progress)
        except (KeyboardInterrupt, KitError) as stop:
            if not progress.saved and isinstance(stop, KeyboardInterrupt):
                console.print("stopped before the first session was done; nothing was kept", highlight=False)
            replayed = any(variant.stand_in == "recorded" for variant in plan.variants)
            if progress.saved and not replayed:  # a recording is played from its beginning, so nothing goes on
                console.print(
                    f"stopped: {progress.saved} of {progress.total} steps are kept in {store}; "
                    "go on by repeating the command with --resume",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
            raise
