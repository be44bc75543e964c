import itertools

import pytest

from benchmarks.chain import write_chain
from targets.errors import UnknownLayout, UsageError
from targets.inventory import LOCAL
from targets.measure import assemble, measure
from targets.onnx_files import inspect_onnx
from targets.opening import Target, open_target
from targets.plan import BenchPlan, make_variant
from targets.records import Artifact, RunSettings
from targets.store import ResultStore


def here() -> Target:
    return open_target(LOCAL)


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "chain.onnx"
    write_chain(path, 2)
    info = inspect_onnx(path)
    artifact = Artifact(
        path=str(path), format="onnx", sha256=info.sha256, source_sha256=info.sha256, inputs=info.inputs
    )
    variants = tuple(make_variant("chain", artifact, RunSettings(runtime="onnxruntime"), role=role) for role in "AB")
    return BenchPlan(variants=variants, sessions=2, seconds=0.05, profile_seconds=0.2)


@pytest.fixture
def store(tmp_path):
    with ResultStore(tmp_path / "s.sqlite") as opened:
        yield opened


def test_sessions_alternate_and_profiles_follow(plan, store):
    steps = []
    run = measure(plan, store, {"local": here()}, on_progress=steps.append)
    assert [m.stats.sessions for m in run.measurements] == [2, 2]
    assert all(m.profile is not None and m.profile.ops for m in run.measurements)
    assert [s.variant.key for s in steps if s.step == "session"] == [v.key for _, v in plan.rounds()]
    assert steps[-1].done == steps[-1].total == 6
    sessions = sorted((s for m in run.measurements for s in m.sessions), key=lambda s: s.started_at)
    assert all(a.finished_at <= b.started_at for a, b in itertools.pairwise(sessions))
    assert assemble(store, store.find(run.run_id)) == run


def test_a_profile_that_fails_costs_no_session(plan, store, monkeypatch):
    def unknown(*_):
        raise UnknownLayout("no idea what 'x_time_ms' is")

    monkeypatch.setattr(Target, "run_profile", unknown)
    run = measure(plan, store, {"local": here()})
    assert all(m.profile is None and "x_time_ms" in m.profile_failure for m in run.measurements)
    assert store.find(run.run_id).finished
    assert assemble(store, store.find(run.run_id)) == run


def test_an_interrupted_run_goes_on_and_says_it_is_not_whole(plan, store, monkeypatch):
    def stop(step):
        if step.step == "session" and step.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(plan, store, {"local": here()}, on_progress=stop)
    part = assemble(store, store.find(None))
    assert sum(m.stats.sessions for m in part.measurements) == 3
    assert any("unfinished: 1 of 2" in reason for m in part.measurements for reason in m.verdict.reasons)
    whole = measure(plan, store, {"local": here()}, resume=True)
    assert whole.run_id == part.run_id
    before = {s.session_id for m in part.measurements for s in m.sessions}
    assert before < {s.session_id for m in whole.measurements for s in m.sessions}
    assert [m.stats.sessions for m in whole.measurements] == [2, 2]


def test_the_same_thing_twice_is_refused(plan, store):
    twice = plan.model_copy(update={"variants": (plan.variants[0], plan.variants[0])})
    with pytest.raises(UsageError, match="the same thing"):
        measure(twice, store, {"local": here()})
    assert store.runs() == []
