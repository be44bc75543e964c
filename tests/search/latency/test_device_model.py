"""The device as a latency model: sessions interleaved, each network once, computed figures kept out."""

from __future__ import annotations

import json

import pytest

from search.latency.models import DeviceModel
from search.latency.pace import Reference
from search.spaces.registry import find_space
from targets.errors import FailureKind, SessionFailed, UsageError
from tests.search.latency.fitted import CONDITIONS, drawn, network_ms
from tests.targets.making import ARTIFACT, session


class Runner:
    """Answers jobs from the truth, one in a hundred slower each session; can fail at a job."""

    def __init__(self, fails_at=None):
        self.jobs, self.fails_at, self.versions = [], fails_at, {}

    def run_session(self, job):
        if len(self.jobs) == self.fails_at:
            self.fails_at = None
            raise SessionFailed("lost", FailureKind.LOST_DEVICE)
        self.jobs.append(job)
        ms = float(job.artifact.path) * (1 + job.index / 100)
        return session(job.index, ms, name=job.artifact.path).model_copy(update={"versions": self.versions})


def make_artifact(arch):
    return ARTIFACT.model_copy(update={"path": str(network_ms(arch))})


def test_networks_are_timed_in_turns_and_once():
    runner, archs, told = Runner(), drawn(3, 0), []
    model = DeviceModel(runner, make_artifact, CONDITIONS, on_session=lambda done, total, _: told.append((done, total)))
    found = model.predict([*archs, archs[0]])
    truth = [network_ms(arch) for arch in archs]
    assert found.latency_ms == pytest.approx([1.01 * ms for ms in (*truth, truth[0])], rel=1e-5)
    assert (found.low_ms < found.latency_ms).all()
    assert (found.latency_ms < found.high_ms).all()
    assert [job.index for job in runner.jobs] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert told[-1] == (9, 9)
    assert all(job.settings == CONDITIONS.settings for job in runner.jobs)
    model.predict(archs[:2])
    assert len(runner.jobs) == 9
    assert model.sessions_ms(archs[1]) == pytest.approx([truth[1] * (1 + n / 100) for n in range(3)], rel=1e-5)


def test_sessions_before_a_failure_are_kept():
    runner, archs = Runner(fails_at=4), drawn(3, 0)
    model = DeviceModel(runner, make_artifact, CONDITIONS)
    with pytest.raises(SessionFailed):
        model.predict(archs)
    model.predict(archs)
    assert len(runner.jobs) == 9


def test_computed_figures_and_foreign_networks_are_refused():
    runner = Runner()
    runner.versions = {"simulated": "1"}
    with pytest.raises(UsageError, match="computed figures"):
        DeviceModel(runner, make_artifact, CONDITIONS).predict(drawn(1, 0))
    runner.jobs.clear()
    with pytest.raises(UsageError):
        DeviceModel(runner, make_artifact, CONDITIONS).predict([find_space("inas").smallest()])
    assert runner.jobs == []


class SharedRunner(Runner):
    """A machine that others slow from session to session; networks take turns with the reference where it can."""

    def __init__(self, factors, *, turns=lambda number: True):
        super().__init__()
        self.factors, self.turns = factors, turns

    def run_session(self, job):
        number = len(self.jobs)
        self.jobs.append(job)
        factor = self.factors[number % len(self.factors)]
        found = session(job.index, float(job.artifact.path) * factor, name=job.artifact.path)
        if job.reference is None or not self.turns(number):
            return found
        return found.model_copy(update={"reference_ns": (int(float(job.reference.path) * factor * 1e6),) * 20})


def reference_of(arch, slower=1.0):
    """As a run noted it that ran so many times as fast as the truth."""
    return Reference(arch=json.loads(arch.to_json()), latency_ms=network_ms(arch) / slower)


def test_latencies_are_told_at_the_references_speed():
    *archs, reference = drawn(4, 1)
    runner = SharedRunner([1.3, 1.1, 1.25, 1.2])
    model = DeviceModel(runner, make_artifact, CONDITIONS, reference=reference_of(reference))
    found = model.predict(archs)
    truth = [network_ms(arch) for arch in archs]
    assert found.latency_ms == pytest.approx(truth, rel=1e-5)
    assert found.high_ms - found.low_ms == pytest.approx(0, abs=1e-4)
    assert {job.reference.path for job in runner.jobs} == {str(network_ms(reference))}
    assert model.sessions_ms(archs[0]) == pytest.approx([truth[0]] * 3, rel=1e-5)
    assert model.slowdown == pytest.approx(0.25, abs=1e-4)
    once = DeviceModel(SharedRunner([1.0]), make_artifact, CONDITIONS, reference=reference_of(reference, slower=1.25))
    assert once.predict(archs).latency_ms == pytest.approx([ms / 1.25 for ms in truth], rel=1e-5)
    assert once.slowdown == pytest.approx(0.25, abs=1e-4)


@pytest.mark.parametrize("turns", [lambda number: False, lambda number: number != 1])
def test_sessions_that_tell_no_reference_count_by_their_p10(turns):
    arch, reference = drawn(2, 2)
    model = DeviceModel(
        SharedRunner([1.2, 1.0, 1.1], turns=turns), make_artifact, CONDITIONS, reference=reference_of(reference)
    )
    assert model.slowdown is None
    assert model.predict([arch]).latency_ms == pytest.approx([1.1 * network_ms(arch)], rel=1e-5)
    assert model.sessions_ms(arch) == pytest.approx([f * network_ms(arch) for f in (1.2, 1.0, 1.1)], rel=1e-5)


def test_without_a_reference_nothing_is_said_of_the_machines_speed():
    arch = drawn(1, 3)[0]
    model = DeviceModel(SharedRunner([1.5]), make_artifact, CONDITIONS)
    assert model.predict([arch]).latency_ms == pytest.approx([1.5 * network_ms(arch)], rel=1e-5)
    assert model.slowdown is None
    assert len(model.predict([]).latency_ms) == 0
