"""What the pytest plugin does once a test uses a device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from inas_deploy.commands.compare import variant_from_spec
from inas_deploy.commands.running import opened
from inas_deploy.gate import open_gate
from inas_deploy.pytest_plugin import PROPERTY
from targets import compare as comparing
from targets.against_baseline import Judged
from targets.errors import KitError, UsageError
from targets.inventory import Device, Inventory, load_inventory
from targets.measure import measure
from targets.opening import Target
from targets.plan import BenchPlan
from targets.records import BenchRun, Comparison, Measurement, Variant
from targets.store import DEFAULT_STORE, ResultStore

if TYPE_CHECKING:
    import pytest


class Measured:
    """Measures models on one open device and notes what it found as properties of the test.

    Models are written as on the command line: ``MODEL``, ``MODEL@RUNTIME`` or ``MODEL@RUNTIME:PRECISION``.

    Args:
        target: The device.
        store: Where sessions are kept.
        item: The test.
    """

    def __init__(self, target: Target, store: str, item: pytest.Item) -> None:
        self.target = target
        self._store = store
        self._item = item
        self._count = 0

    def __call__(
        self,
        model: str | Path,
        *,
        sessions: int = 3,
        seconds: float = 0.5,
        threads: int | None = None,
        shape: Sequence[str] = (),
        per_op: bool = False,
    ) -> Measurement:
        """Measure one model.

        Args:
            model: What to measure.
            sessions: Fresh processes.
            seconds: Timed part of each.
            threads: Intra-op threads; the device's own by default.
            shape: Static input shapes, as ``image=1x3x224x224``.
            per_op: Whether to take a per-op profile too.

        Returns:
            Sessions, statistics and verdict.

        Raises:
            KitError: If the model is refused or a session fails.
        """
        variant = self._variant("", model, threads, shape)
        plan = BenchPlan(variants=(variant,), sessions=sessions, seconds=seconds, per_op=per_op)
        return self._run(plan).measurements[0]

    def compare(
        self,
        a: str | Path,
        b: str | Path,
        *,
        pairs: int = 10,
        seconds: float = 0.5,
        margin: float = comparing.MARGIN,
        threads: int | None = None,
        shape: Sequence[str] = (),
    ) -> Comparison:
        """Compare two models in alternating sessions.

        Args:
            a: The baseline.
            b: The candidate.
            pairs: Pairs of sessions.
            seconds: Timed part of each session.
            margin: Relative difference that does not matter.
            threads: As in a measurement.
            shape: As in a measurement.

        Returns:
            The answer: ``slower``, ``faster``, ``same`` or ``cannot tell``.

        Raises:
            KitError: If the two are unlike, a model is refused or a session fails.
        """
        variants = tuple(self._variant(role, text, threads, shape) for role, text in (("A", a), ("B", b)))
        comparing.refuse_unlike(*variants, meant=["runtime", "precision"] if "@" in f"{a}{b}" else [])
        plan = BenchPlan(kind="compare", variants=variants, sessions=pairs, seconds=seconds, per_op=False)
        return comparing.compare(*self._run(plan).measurements, margin=margin)

    def gate(
        self,
        model: str | Path,
        *,
        sessions: int | None = None,
        seconds: float = 0.5,
        margin: float = comparing.MARGIN,
        threads: int | None = None,
        shape: Sequence[str] = (),
    ) -> Judged:
        """Hold a model against the ``--baseline`` of this test run; skips the test where none is given.

        Args:
            model: The candidate.
            sessions: Fresh processes a variant; enough for the test by default.
            seconds: Timed part of each.
            margin: Relative difference that does not matter.
            threads: As in a measurement.
            shape: As in a measurement.

        Returns:
            The answer; ``slower`` is a proven regression.

        Raises:
            KitError: If the baseline holds nothing like the model, a model is refused or a session fails.
        """
        place = self._item.config.getoption("inas_baseline")
        if place is None:
            _skip("no --baseline FILE is given")
        variant = self._variant("", model, threads, shape)
        gate = open_gate(Path(place), [variant], margin)
        plan = BenchPlan(
            variants=(variant, *gate.extra), sessions=gate.sessions(sessions), seconds=seconds, per_op=False
        )
        return gate.judge(self._run(plan)).judged[0]

    def _variant(self, role: str, model: str | Path, threads: int | None, shape: Sequence[str]) -> Variant:
        return variant_from_spec(role, str(model), self.target.device, threads, shape)

    def _run(self, plan: BenchPlan) -> BenchRun:
        with ResultStore(self._store) as store:
            run = measure(plan, store, {self.target.device.name: self.target})
        for measurement in run.measurements:
            self._note(measurement)
        return run

    def _note(self, measurement: Measurement) -> None:
        self._count += 1
        number = f".{self._count}" if self._count > 1 else ""
        stats, verdict = measurement.stats, measurement.verdict
        versions = {f"{k} {v}": None for s in measurement.sessions for k, v in sorted(s.versions.items())}
        told: dict[str, Any] = {
            "variant": measurement.variant.label,
            "versions": ", ".join(versions),
            "verdict": "; ".join([verdict.status, *verdict.reasons]),
            f"{stats.headline}_ms": f"{stats.headline_ms:.6g}",
        }
        if stats.p50_ms is not None:
            told["p50_ms"] = f"{stats.p50_ms:.6g}"
        self._item.user_properties += [(f"{PROPERTY}{key}{number}", value) for key, value in told.items()]


@contextmanager
def open_for(item: pytest.Item, name: str | None) -> Iterator[Target]:
    """The first device that a test may use and that can be opened; a marked test skips where there is none.

    Args:
        item: The test.
        name: The device it was parametrised with, if it was.
    """
    marker = item.get_closest_marker("device")
    leases = item.config.getoption("inas_store") or DEFAULT_STORE
    with ExitStack() as stack:
        reasons = []
        for device in _candidates(item.config, marker, name):
            try:
                target = stack.enter_context(opened([device], leases))[device.name]
            except KitError as error:
                reasons.append(str(error))
                continue
            item.user_properties.append((f"{PROPERTY}device", device.name))
            if device.label:
                item.user_properties.append((f"{PROPERTY}stand_in", device.label))
            yield target
            return
        if marker is None:
            _fail("; ".join(reasons))
        _skip("; ".join(reasons))


def check_device(item: pytest.Item) -> None:
    """Open and close the device of a marked test that does not use ``target``; skips where it cannot be had."""
    with open_for(item, None):
        pass


def check_options(config: pytest.Config) -> None:
    """See that ``--device`` names devices.

    Raises:
        UsageError: pytest's own, if the inventory cannot be read or knows no such device.
    """
    import pytest

    try:
        inventory = _inventory(config)
        for text in config.getoption("inas_device"):
            inventory.select(text)
    except KitError as error:
        raise pytest.UsageError(str(error)) from None


def named_devices(config: pytest.Config, marker: pytest.Mark | None) -> list[str]:
    """Names of the devices that ``--device`` names and the marker, if any, allows.

    Raises:
        CollectError: If the inventory cannot be read or knows no such device.
    """
    try:
        inventory = _inventory(config)
        named = {d.name: None for text in config.getoption("inas_device") for d in inventory.select(text)}
        return [name for name in named if marker is None or name in _wanted(inventory, marker)]
    except KitError as error:
        import pytest

        raise pytest.Collector.CollectError(str(error)) from None


def _candidates(config: pytest.Config, marker: pytest.Mark | None, name: str | None) -> list[Device]:
    try:
        inventory = _inventory(config)
        if name is not None:
            return inventory.select(name)
        only = config.getoption("inas_device")
        if marker is None:
            return [device for text in only or ["local"] for device in inventory.select(text)]
        found = inventory.select(_name(marker))
    except UsageError as error:
        if marker is None:
            _fail(str(error))
        _skip(str(error))
    allowed = named_devices(config, marker) if only else [device.name for device in found]
    if not allowed:
        _skip(f"--device {' '.join(only)} leaves no device called or tagged {_name(marker)!r}")
    return [device for device in found if device.name in allowed]


def _wanted(inventory: Inventory, marker: pytest.Mark) -> set[str]:
    try:
        return {device.name for device in inventory.select(_name(marker))}
    except UsageError:
        return set()  # said again, as the reason of a skip, when the test is set up


def _name(marker: pytest.Mark) -> str:
    if len(marker.args) != 1 or marker.kwargs or not isinstance(marker.args[0], str):
        _fail('the marker device takes one name or tag: @pytest.mark.device("android")')
    return str(marker.args[0])


def _inventory(config: pytest.Config) -> Inventory:
    place = config.getoption("inas_devices")
    return load_inventory(Path(place) if place else None)


def _skip(reason: str) -> NoReturn:
    import pytest

    pytest.skip(reason)


def _fail(reason: str) -> NoReturn:
    import pytest

    pytest.fail(reason, pytrace=False)
