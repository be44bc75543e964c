"""A reference that takes turns: what slows the machine cancels; real sessions and profiles on every runtime here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets.errors import KitError
from targets.extras import installed
from targets.jobs import Job
from targets.profiles import timing
from targets.profiles.timing import Pace, TimedRuns
from targets.records import RunSettings
from targets.runtimes.registry import get_runtime
from targets.session import run_profile, run_session
from targets.tflite_files import tflite_artifact
from targets.transports.local import LocalTransport
from tests.targets.tiny_models import artifact_of, one_op, save, tiny_model

FIXTURES = Path(__file__).parent / "fixtures" / "tflite"
OPS_US = np.array([40.0, 100.0, 260.0])
RUNTIMES = [
    pytest.param(name, marks=pytest.mark.skipif(not installed(package), reason=f"{package} is not installed"))
    for name, package in (("onnxruntime", "onnxruntime"), ("openvino", "openvino"), ("tflite", "ai_edge_litert"))
]


class Machine:
    """A machine whose clock only its models move: 200 us the reference, 400 us the measured one, at full speed."""

    def __init__(self, monkeypatch):
        self.ns, self.factor = 0, 1.0
        monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter_ns=lambda: self.ns))
        quiet = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: SimpleNamespace(ru_nivcsw=0))
        monkeypatch.setattr(timing, "resource", quiet)

    def work(self, us):
        def run():
            self.ns += round(us * 1e3 * self.factor)

        return run

    def run(self, factors, *, paced=True):
        """Four runs at each speed, and the pace they had."""
        pace = Pace(self.work(200.0))
        runs = TimedRuns(self.work(OPS_US.sum()), pace if paced else None)
        for self.factor in factors:
            if not paced:
                pace.beat()
            runs.burst(4)
        return runs, pace


@pytest.fixture
def machine(monkeypatch):
    return Machine(monkeypatch)


def slowed(share, bursts=40):
    """Speeds of a machine that is 30 % slower for a share of the time."""
    return [1.0] * (bursts - round(share * bursts)) + [1.3] * round(share * bursts)


def ops_of(runs):
    """What each operation took in each run: the run shared out."""
    return np.array(runs.wall_us)[:, None] * (OPS_US / OPS_US.sum())


def test_a_machine_that_slows_for_half_of_the_runs_gives_the_figures_of_one_that_does_not(machine):
    steady, _ = machine.run(slowed(0.0))
    half, pace = machine.run(slowed(0.5))
    assert max(half.wall_us) == pytest.approx(1.3 * min(half.wall_us))
    assert pace.typical_us == pytest.approx(200.0)
    assert half.fast_us == pytest.approx(steady.fast_us)
    assert half.mean_us(half.wall_us) == pytest.approx(steady.mean_us(steady.wall_us))
    assert half.mean_us([0.9 * us for us in half.wall_us]) == pytest.approx(0.9 * steady.fast_us)
    assert half.op_times_us(ops_of(half)) == pytest.approx(steady.op_times_us(ops_of(steady)))
    assert half.op_times_us(ops_of(half)) == pytest.approx(OPS_US)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.95, 1.0])
def test_relative_to_the_reference_it_does_not_matter_how_long_the_machine_was_slow(machine, share):
    runs, pace = machine.run(slowed(share))
    assert runs.fast_us / pace.typical_us == pytest.approx(2.0)
    assert runs.op_times_us(ops_of(runs)) / pace.typical_us == pytest.approx(OPS_US / 200)


def test_without_a_pace_it_does_matter(machine):
    """Fast runs of a model and of a reference need not be of the same moments."""
    runs, pace = machine.run(slowed(0.95), paced=False)
    assert runs.fast_us / pace.typical_us < 0.9 * 2.0
    assert runs.op_times_us(ops_of(runs)).sum() / pace.typical_us < 0.9 * 2.0


def test_the_middle_of_the_paced_runs_counts_and_those_that_lost_their_core_do_not(machine):
    runs, _ = machine.run([1.0] * 10)
    runs.wall_us[:4] = [800.0] * 4  # a stall that the reference did not see
    runs.wall_us[4:8] = [100.0] * 4  # and a reference that stalled alone
    assert runs.fast_us == pytest.approx(400.0)
    runs.undisturbed = list(range(8))
    assert set(runs.fast(runs.wall_us)) <= set(range(8))


def test_the_middle_is_that_of_the_divided_runs(machine):
    """A run at full speed that stalled is no faster than a whole one of the slow machine."""
    runs, _ = machine.run(slowed(0.5))
    runs.wall_us[:36] = [480.0] * 36
    assert runs.fast_us == pytest.approx(400.0)


def test_an_operation_counts_by_its_own_middle_half(machine):
    """What is left once the machine's speed is divided out lies to both sides, stalls and runs that were cut short."""
    runs, _ = machine.run([1.0] * 10)
    times_us = ops_of(runs)
    times_us[:9, 0], times_us[9:18, 1] = 1.0, 900.0
    assert runs.op_times_us(times_us) == pytest.approx(OPS_US)


@given(
    factors=st.lists(st.floats(0.5, 3.0), min_size=1, max_size=30),
    ops=st.lists(st.floats(0.5, 500.0), min_size=1, max_size=6),
    seed=st.integers(0, 2**16),
    paced=st.booleans(),
)
def test_operations_add_up_to_the_fast_runs(factors, ops, seed, paced):
    with pytest.MonkeyPatch.context() as patch:
        runs, _ = Machine(patch).run(factors, paced=paced)
    noise = np.random.default_rng(seed).uniform(0.8, 1.5, (len(runs.wall_us), len(ops)))
    times_us = np.array(ops) * noise
    found = runs.op_times_us(times_us)
    assert found.shape == (len(ops),)
    assert (found > 0).all()
    assert found.sum() == pytest.approx(runs.mean_us(times_us.sum(axis=1).tolist()))


@given(factors=st.lists(st.floats(0.5, 3.0), min_size=1, max_size=30), ops=st.lists(st.floats(1.0, 500.0), min_size=1))
def test_any_change_of_speed_cancels(factors, ops):
    with pytest.MonkeyPatch.context() as patch:
        runs, pace = Machine(patch).run(factors)
    times_us = np.repeat(factors, 4)[:, None] * np.array(ops)
    assert runs.fast_us / pace.typical_us == pytest.approx(2.0, rel=1e-4)
    assert runs.op_times_us(times_us) / pace.typical_us == pytest.approx(np.array(ops) / 200, rel=1e-4)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """What is measured and a reference, by runtime."""
    folder = tmp_path_factory.mktemp("models")
    measured = artifact_of(save(tiny_model(), folder / "tiny.onnx"))
    reference = artifact_of(save(one_op("Sigmoid", shape=(1, 4, 32, 32)), folder / "one.onnx"), (1, 4, 32, 32))
    lite = (tflite_artifact(FIXTURES / "tiny.tflite"), tflite_artifact(FIXTURES / "two.tflite"))
    return {"onnxruntime": (measured, reference), "openvino": (measured, reference), "tflite": lite}


def job(runtime, task, artifact, reference):
    settings = RunSettings(runtime=runtime)
    return Job(task=task, artifact=artifact, settings=settings, reference=reference, seconds=0.1)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_session_tells_the_references_inferences_beside_its_own(models, runtime):
    artifact, reference = models[runtime]
    with LocalTransport() as transport:
        alone = run_session(transport, job(runtime, "time", artifact, None))
        paced = run_session(transport, job(runtime, "time", artifact, reference))
    assert alone.reference_ns == ()
    assert len(paced.reference_ns) == len(paced.samples_ns) >= 10
    assert paced.actual == alone.actual
    assert paced.settings == alone.settings


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_profile_tells_the_references_latency_and_still_adds_up(models, runtime):
    artifact, reference = models[runtime]
    with LocalTransport() as transport:
        alone = run_profile(transport, job(runtime, "profile", artifact, None))
        paced = run_profile(transport, job(runtime, "profile", artifact, reference))
    assert alone.reference_us is None
    assert paced.reference_us > 0
    assert sum(op.latency_us for op in paced.ops) == pytest.approx(paced.unprofiled_us)
    assert any("relative to the reference" in note for note in paced.notes) == (runtime == "onnxruntime")
    assert not any("relative to the reference" in note for note in alone.notes)
    assert paced.attributed_share == pytest.approx(alone.attributed_share, abs=0.05)


class Slow(Pace):
    """A reference that says that the machine was a hundred times as slow as it usually is."""

    def factors(self, beats):
        return np.full(len(beats), 100.0)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_figure_of_a_profile_is_divided_by_the_pace(models, runtime):
    artifact, _ = models[runtime]
    alone, paced = (
        get_runtime(runtime).profile(artifact, RunSettings(runtime=runtime), seconds=0.1, pace=pace)
        for pace in (None, Slow(lambda: None))
    )
    for name in ("unprofiled_us", "profiled_us", "sum_us"):
        assert getattr(paced, name) < getattr(alone, name) / 20, name


@pytest.mark.parametrize("task", ["time", "profile"])
def test_a_reference_that_is_no_model_is_refused_by_name(models, tmp_path, task):
    artifact, _ = models["onnxruntime"]
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x09 nonsense")
    asked = job("onnxruntime", task, artifact, artifact_of(tmp_path / "broken.onnx"))
    run = run_session if task == "time" else run_profile
    with LocalTransport() as transport, pytest.raises(KitError, match=r"broken\.onnx"):
        run(transport, asked)
