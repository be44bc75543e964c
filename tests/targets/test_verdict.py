import pytest

from targets.records import RunSettings
from targets.statistics import latency_stats
from targets.verdict import judge
from tests.targets.making import QUIET, session


def verdict_of(sessions):
    return judge(sessions, latency_stats(sessions))


def test_quiet_sessions_are_valid():
    verdict = verdict_of([session(i) for i in range(5)])
    assert (verdict.status, verdict.reasons) == ("valid", ())


WEAK = {
    "too few sessions": [session(0), session(1)],
    "too few inferences": [session(i, samples=[10.0] * 4) for i in range(3)],
    "host contention: other processes": [
        session(i, host=QUIET.model_copy(update={"other_cpu_share": 0.5})) for i in range(3)
    ],
    "steal": [session(i, host=QUIET.model_copy(update={"steal_share": 0.05})) for i in range(3)],
    "clock ramp": [
        session(i, host=QUIET.model_copy(update={"clock_mhz_before": 1000.0, "clock_mhz_after": 2000.0}))
        for i in range(3)
    ],
    "not steady": [session(i, steady=i > 0) for i in range(3)],
    "spread": [session(0, 10.0), session(1, 11.0), session(2, 10.5)],
    "drift": [session(i, ms) for i, ms in enumerate((10.0, 10.1, 10.5, 10.6))],
    "two modes": [
        session(i, ms, settings=RunSettings(runtime="onnxruntime", threads=2))
        for i, ms in enumerate((10.0, 10.0, 18.0))
    ],
}


@pytest.mark.parametrize("reason", WEAK)
def test_each_weakness_is_named(reason):
    verdict = verdict_of(WEAK[reason])
    assert verdict.status == "weak"
    assert any(reason in text for text in verdict.reasons), verdict.reasons
    assert verdict.advice


def test_one_sustained_session_is_what_was_asked_for():
    sustained = session(0, settings=RunSettings(runtime="onnxruntime", mode="sustained"))
    assert verdict_of([sustained]).status == "valid"
    assert verdict_of([session(0)]).status == "weak"


def test_fewer_sessions_than_planned_are_named():
    sessions = [session(i) for i in range(3)]
    assert "unfinished: 3 of 20" in judge(sessions, latency_stats(sessions), planned=20).reasons[0]


def test_a_session_that_shares_its_core_is_named():
    sessions = [session(i).model_copy(update={"cpu_per_wall": 0.5}) for i in range(3)]
    assert any("only 50%" in reason for reason in verdict_of(sessions).reasons)
