"""The device as a latency model: sessions interleaved, each network once, computed figures kept out."""

from __future__ import annotations

import pytest

from search.latency.models import DeviceModel
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
