"""Work spread over equal devices: each item runs whole on one of them, and on another if that one is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from targets.errors import DeviceUnavailable, FailureKind, KitError, SessionFailed, UsageError
from targets.health import HealthBook
from targets.inventory import Device
from targets.leases.base import Lease, LeaseBook
from targets.opening import Target, open_target

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_DECIDING = (
    *("profile", "model", "label", "runtime", "runtime_version", "precision", "threads"),
    *("accelerator", "pinned_cores", "opset", "start_below_c"),
)


def equal(devices: Sequence[Device]) -> None:
    """Refuse devices whose figures cannot be put together.

    Raises:
        UsageError: If there is none, two of them are one machine, or they differ in what decides a latency.
    """
    if not devices:
        raise UsageError("a pool needs at least one device", "Name a tag that devices have.")
    first = devices[0]
    machines: dict[str, str] = {}
    for device in devices:
        other = machines.setdefault(device.lease_key, device.name)
        if other != device.name:
            raise UsageError(f"{other} and {device.name} are one machine", "Name only one of them in a pool.")
        for key in _DECIDING:
            mine, its = getattr(first, key), getattr(device, key)
            if mine != its:
                what = f"{first.name} and {device.name} are not equal: {key} is {mine!r} and {its!r}"
                raise UsageError(what, "Put only devices of one kind under a tag that a pool uses.")


@dataclass
class _Task(Generic[ItemT]):
    index: int
    item: ItemT
    tried: list[str] = field(default_factory=list)


class Pool:
    """Equal devices that share a list of work.

    Args:
        devices: From the inventory.
        leases: Each device is leased while it works.
        health: Devices in quarantine are left out; failures and successes are written down.
        open_device: Opens a device with its lease, which the target gives back when it is closed.
        wait_s: How long to stand in line for a device that others use.
        attempts: How many devices, or times, an item is tried on.

    Raises:
        UsageError: If the devices are not equal.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        leases: LeaseBook,
        health: HealthBook,
        *,
        open_device: Callable[[Device, Lease], Target] = open_target,
        wait_s: float = 0.0,
        attempts: int = 3,
    ) -> None:
        equal(devices)
        self.devices = tuple(devices)
        self._leases, self._health, self._open_device = leases, health, open_device
        self._wait_s, self._attempts = wait_s, attempts

    def run(
        self,
        items: Sequence[ItemT],
        work: Callable[[Target, ItemT], ResultT],
        on_result: Callable[[int, ResultT], None] | None = None,
    ) -> list[ResultT]:
        """Do all items, several at a time, and return when the last has ended.

        Ctrl-C lets the item that each device is at come to its end, gives the leases back, and goes on upwards.

        Args:
            items: What to do.
            work: Does one item on an open device, whole: what it raises as lost or timed out is tried again elsewhere.
            on_result: Called with position and result as each item ends, one at a time; the place to save it.

        Returns:
            Results in the items' order.

        Raises:
            DeviceUnavailable: If no device is left; the line says what became of each.
            SessionFailed: If an item failed as often as it may, or in a way that trying again does not help.
            KitError: As ``work`` raises it.
        """
        shift: _Shift[ItemT, ResultT] = _Shift([device.name for device in self.devices], items, on_result)
        with ThreadPoolExecutor(len(self.devices), thread_name_prefix="pool") as executor:
            try:  # from the first thread on: Ctrl-C while another starts would else wait for all the work
                threads = [executor.submit(self._serve, device, shift, work) for device in self.devices]
                wait(threads)
            finally:
                shift.stop.set()
                shift.wake()
            for thread in threads:
                thread.result()
        return shift.ended()

    def _serve(self, device: Device, shift: _Shift[Any, Any], work: Callable[[Target, Any], Any]) -> None:
        """One device's thread: takes items until none is left, or until the device is out of service."""
        target: Target | None = None
        orderly = False
        try:
            while shift.has_work_for(device.name):
                target = target or self._opened(device, shift)
                if target is None:
                    break
                task = shift.take(device.name)
                if task is not None and not self._do(device, target, task, shift, work):
                    self._close(device, target)
                    target = None
                    if self._out_of_service(device, shift):
                        break
            orderly = True
        finally:
            if not orderly:  # a mistake in ``work``: nobody may wait for this thread
                shift.stop.set()
            if target is not None:
                self._close(device, target)
            shift.leave(device.name)

    def _opened(self, device: Device, shift: _Shift[Any, Any]) -> Target | None:
        """The device, leased and open; ``None`` where it cannot be had now, which ends its service."""
        try:
            self._health.check(device.lease_key, device.name)
            lease = self._leases.acquire(device.lease_key, wait_s=self._wait_s, cancelled=shift.stop)
        except DeviceUnavailable as error:
            shift.retire(device.name, error)
            return None
        except KitError as error:
            shift.fail(error)
            return None
        try:
            return self._open_device(device, lease)
        except (DeviceUnavailable, SessionFailed) as error:
            self._health.record_failure(device.lease_key, _kind_of(error), error.what)
            shift.retire(device.name, error)
        except KitError as error:
            shift.fail(error)
        return None

    def _do(
        self, device: Device, target: Target, task: _Task[Any], shift: _Shift[Any, Any], work: Callable[..., Any]
    ) -> bool:
        """Do one item; ``False`` where the device has to be opened anew."""
        try:
            result = work(target, task.item)
        except KitError as error:
            if isinstance(error, SessionFailed):
                self._health.record_failure(device.lease_key, error.kind, error.what)
            task.tried.append(device.name)
            again = error.kind.retryable if isinstance(error, SessionFailed) else isinstance(error, DeviceUnavailable)
            if again and len(task.tried) < self._attempts:
                shift.put_back(task)
            else:
                shift.fail(_last(error, task.tried))
            return False
        self._health.record_success(device.lease_key)
        shift.finish(task, result)
        return True

    def _out_of_service(self, device: Device, shift: _Shift[Any, Any]) -> bool:
        try:
            self._health.check(device.lease_key, device.name)
        except DeviceUnavailable as error:
            shift.retire(device.name, error)
            return True
        return False

    def _close(self, device: Device, target: Target) -> None:
        try:
            target.close()
        except KitError as error:  # what was measured is worth having all the same
            self._health.record_failure(device.lease_key, _kind_of(error), error.what)


class _Shift(Generic[ItemT, ResultT]):
    """The state that the threads of one run share."""

    def __init__(
        self, names: Sequence[str], items: Sequence[ItemT], on_result: Callable[[int, ResultT], None] | None
    ) -> None:
        self.stop = threading.Event()
        self._changed = threading.Condition()
        self._waiting = [_Task(index, item) for index, item in enumerate(items)]
        self._missing = len(self._waiting)
        self._results: dict[int, ResultT] = {}
        self._serving = set(names)
        self._retired: list[str] = []
        self._error: KitError | None = None
        self._on_result = on_result
        if not self._missing:
            self.stop.set()

    def has_work_for(self, name: str) -> bool:
        """Wait until there is an item for a device, as long as others may hand one back; ``False`` at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self.stop.is_set() or self._next(name) is not None)
            return not self.stop.is_set()

    def take(self, name: str) -> _Task[ItemT] | None:
        """The next item for a device, if nobody was faster."""
        with self._changed:
            task = None if self.stop.is_set() else self._next(name)
            if task is not None:
                self._waiting.remove(task)
            return task

    def _next(self, name: str) -> _Task[ItemT] | None:
        """The first item that was not tried on this device, or that was tried on all."""
        fitting = (task for task in self._waiting if name not in task.tried or self._serving <= set(task.tried))
        return next(fitting, None)

    def put_back(self, task: _Task[ItemT]) -> None:
        """Hand an item back, to be the next."""
        with self._changed:
            self._waiting.insert(0, task)
            self._changed.notify_all()

    def finish(self, task: _Task[ItemT], result: ResultT) -> None:
        """Note a result."""
        with self._changed:
            self._results[task.index] = result
            self._missing -= 1
            if self._on_result is not None:
                self._on_result(task.index, result)
            if not self._missing:
                self.stop.set()  # for those who still stand in line for a device
            self._changed.notify_all()

    def fail(self, error: KitError) -> None:
        """End the run with an error, the first of several."""
        with self._changed:
            self._error = self._error or error
            self.stop.set()
            self._changed.notify_all()

    def retire(self, name: str, error: KitError) -> None:
        """Note why a device does no more."""
        with self._changed:
            self._retired.append(f"{name}: {error.what}")

    def leave(self, name: str) -> None:
        """Note that a device's thread has ended."""
        with self._changed:
            self._serving.discard(name)
            self._changed.notify_all()

    def wake(self) -> None:
        """Let waiting threads look whether to stop."""
        with self._changed:
            self._changed.notify_all()

    def ended(self) -> list[ResultT]:
        """The results, or the error."""
        if self._error is not None:
            raise self._error
        if self._missing:
            what = f"no device is left for {self._missing} of the items ({'; '.join(sorted(self._retired))})"
            raise DeviceUnavailable(what, "See the devices' state with: inas-deploy devices")
        return [self._results[index] for index in range(len(self._results))]


def _kind_of(error: KitError) -> FailureKind:
    return error.kind if isinstance(error, SessionFailed) else FailureKind.LOST_DEVICE


def _last(error: KitError, tried: Sequence[str]) -> KitError:
    if len(tried) > 1 and isinstance(error, SessionFailed):
        return SessionFailed(f"{error.what} (tried on {', '.join(tried)})", error.kind, error.fix)
    return error
