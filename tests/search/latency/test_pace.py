"""Figures told at one speed of the machine, and how they are measured: in turns with a reference where it can be."""

from __future__ import annotations

import json
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from search.latency.joining import SourceModules
from search.latency.measuring import Measurer
from search.latency.observations import Observation
from search.latency.pace import Reference, at_one_speed, reference_arch, usual_reference_us
from search.latency.tabulate import table_of
from targets.errors import UsageError
from targets.records import OpProfile, OpTime
from tests.search.latency.fitted import CONDITIONS, SIZE, SPACE, block_us, drawn, network_ms
from tests.targets.making import ARTIFACT, session

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
ARCH = drawn(1, 0)[0]


def observed(arch, role="carrier", *, factor=1.0, reference_us=None, number=0):
    blocks = {spec.name: block_us(spec) * factor for spec in arch.blocks(SIZE)} if role == "carrier" else {}
    return Observation(
        role=role,
        arch=json.loads(arch.to_json()),
        at=BEGIN + timedelta(seconds=number),
        total_us=1e3 * network_ms(arch) * factor,
        device_s=2.0,
        blocks_us=blocks,
        unattributed_us=7.0 * factor if blocks else 0.0,
        straddling_us=3.0 * factor if blocks else 0.0,
        reference_us=None if reference_us is None else reference_us * factor,
    )


def test_observations_are_told_at_the_references_usual_speed():
    factors = (1.0, 1.3, 0.8)
    found = at_one_speed([observed(ARCH, factor=f, reference_us=500.0) for f in factors])
    plain = observed(ARCH, reference_us=500.0)
    for one in found:
        assert one.reference_us == pytest.approx(500.0)
        assert one.total_us == pytest.approx(plain.total_us)
        assert one.blocks_us == pytest.approx(plain.blocks_us)
        assert (one.unattributed_us, one.straddling_us) == pytest.approx((7.0, 3.0))
    (told,) = at_one_speed([plain], reference_us=1000.0)
    assert told.total_us == pytest.approx(2 * plain.total_us)
    assert told.residual_share == plain.residual_share


def test_those_without_a_reference_stay_as_they_are():
    some = [observed(ARCH, factor=1.2), observed(ARCH, "interval")]
    assert usual_reference_us(some) is None
    assert at_one_speed(some) == tuple(some)
    mixed = at_one_speed([*some, observed(ARCH, reference_us=10.0), observed(ARCH, factor=3.0, reference_us=10.0)])
    assert mixed[:2] == tuple(some)
    assert [one.reference_us for one in mixed[2:]] == pytest.approx([20.0, 20.0])
    assert at_one_speed([]) == ()


TIMES = st.floats(1.0, 1e7)


@given(st.lists(st.tuples(TIMES, TIMES | st.none()), max_size=12), TIMES | st.none())
def test_quotients_are_kept_and_a_second_time_changes_nothing(figures, reference_us):
    plain = observed(ARCH, "interval")
    before = [plain.model_copy(update={"total_us": total, "reference_us": usual}) for total, usual in figures]
    after = at_one_speed(before, reference_us)
    for one, other in zip(before, after, strict=True):
        if one.reference_us is None:
            assert other == one
        else:
            assert other.total_us / other.reference_us == pytest.approx(one.total_us / one.reference_us)
    assert len({one.reference_us for one in after} - {None}) <= 1
    again = at_one_speed(after, reference_us)
    assert [one.total_us for one in again] == pytest.approx([one.total_us for one in after])
    assert [one.reference_us for one in again] == [one.reference_us for one in after]


def test_a_table_of_a_machine_that_changes_its_speed_is_that_of_a_steady_one():
    archs, factors = drawn(9, 1), [1.0, 1.4, 1.3, 0.95, 1.2, 0.9, 1.0, 0.98, 1.0]
    steady = table_of(CONDITIONS, [observed(arch, number=n) for n, arch in enumerate(archs)])
    runs = zip(archs, factors, strict=True)
    beside = [observed(arch, factor=f, reference_us=500.0, number=n) for n, (arch, f) in enumerate(runs)]
    for observations in (beside, at_one_speed(beside)):
        table = table_of(CONDITIONS, observations)
        assert table.rows.keys() == steady.rows.keys()
        for key, row in steady.rows.items():
            assert table.rows[key].p50_us == pytest.approx(row.p50_us)
        assert "at the speed at which that takes 0.50 ms" in " ".join(table.header.notes)


def test_the_reference_is_drawn_from_the_runs_seed():
    assert reference_arch(SPACE, 3) == reference_arch(SPACE, 3)
    assert reference_arch(SPACE, 3) != reference_arch(SPACE, 4)


@pytest.mark.parametrize("arch", [{}, {"space": "nowhere"}, {"space": ["inas"]}, {**ARCH.model_dump(), "stem": -1}])
def test_a_reference_that_is_no_network_says_so(arch):
    reference = Reference(arch=arch, latency_ms=1.0)
    with pytest.raises(UsageError) as caught:
        _ = reference.architecture
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("latency_ms", [0.0, -1.0, float("nan"), float("inf")])
def test_a_reference_takes_a_time(latency_ms):
    with pytest.raises(ValidationError):
        Reference(arch=json.loads(ARCH.to_json()), latency_ms=latency_ms)


class Device:
    """An open device; whether it can take turns is told."""

    device = SimpleNamespace(label=None, name="local", transport="local")

    def __init__(self, *, takes_turns):
        self.takes_turns, self.jobs = takes_turns, []

    def run_session(self, job):
        self.jobs.append(job)
        found = session(samples=[6.0, 9.0, 12.0])
        turns = (2_000_000, 3_000_000, 4_000_000) if self.takes_turns and job.reference else ()
        return found.model_copy(update={"reference_ns": turns})

    def run_profile(self, job):
        self.jobs.append(job)
        op = OpTime(name="a", op_type="Conv", latency_us=100.0, share=1.0, module="stem")
        return OpProfile(
            runtime="onnxruntime", ops=(op,), runs=3, unprofiled_us=100.0, profiled_us=100.0, sum_us=100.0,
            residual_share=0, attributed_share=1, layout_share=0,
            reference_us=50.0 if self.takes_turns and job.reference else None,
        )  # fmt: skip


def measurer(device, reference, monkeypatch):
    monkeypatch.setattr("search.latency.measuring.SourceModules.of", lambda artifact: SourceModules())
    exporter = SimpleNamespace(
        artifact=lambda arch: ARTIFACT.model_copy(update={"path": arch.sha256()}),
        files=SimpleNamespace(input_size=SIZE),
        paused=nullcontext,
    )
    return Measurer(device, CONDITIONS.settings, exporter, reference=reference)


def test_a_measurer_has_the_reference_take_turns_and_notes_what_it_took(monkeypatch):
    device, (arch, reference) = Device(takes_turns=True), drawn(2, 5)
    found = measurer(device, reference, monkeypatch)
    timed, profiled = found.session(arch, "interval", 4), found.profile(arch, "carrier")
    assert [job.reference.path for job in device.jobs] == [reference.sha256()] * 2
    assert [job.artifact.path for job in device.jobs] == [arch.sha256()] * 2
    assert [job.task for job in device.jobs] == ["time", "profile"]
    assert device.jobs[0].index == 4
    assert timed.headline == profiled.headline == "paced"
    assert timed.reference_us == pytest.approx(2200.0)
    assert timed.total_us == pytest.approx(3 * timed.reference_us)
    assert (profiled.reference_us, profiled.total_us) == (50.0, 100.0)


@pytest.mark.parametrize(("takes_turns", "asked"), [(False, True), (True, False)])
def test_a_device_that_takes_no_turns_is_measured_as_ever(monkeypatch, takes_turns, asked):
    device, (arch, reference) = Device(takes_turns=takes_turns), drawn(2, 5)
    found = measurer(device, reference if asked else None, monkeypatch)
    timed, profiled = found.session(arch, "interval"), found.profile(arch, "carrier")
    assert [job.reference is None for job in device.jobs] == [not asked] * 2
    assert (timed.headline, timed.reference_us) == ("p10", None)
    assert timed.total_us == pytest.approx(6600.0)
    assert (profiled.headline, profiled.reference_us) == ("fastest tenth", None)
