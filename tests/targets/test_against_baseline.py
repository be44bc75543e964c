import math

import numpy as np
import pytest

from targets.against_baseline import (
    DRIFT_ALLOWANCE,
    REFERENCE_ALLOWANCE,
    GateResult,
    changed_tools,
    decide,
    judge_in_turns,
    judge_old_figures,
    judge_same_file,
    other_machine,
)
from targets.compare import ALPHA, MARGIN
from targets.records import Environment, HostSnapshot
from targets.verdict import judge
from tests.targets.making import measurement

ENVIRONMENT = Environment(cpu_model="Made", cores=2, memory_gb=1, os="Linux", python="3.11", versions={})


def noisy(draw, base_ms, sessions, *, drift=1.0, spread=0.01):
    return [base_ms * drift * math.exp(draw.normal(0, spread)) for _ in range(sessions)]


def told(one, **facts):
    """The same measurement, its sessions telling ``device`` or ``versions``."""
    sessions = tuple(session.model_copy(update=facts) for session in one.sessions)
    return one.model_copy(update={"sessions": sessions})


def by_reference(draw, *, slower=1.0, drift=1.0, residual=0.0, sessions=(5, 10), changed=()):
    """Judge a run whose host drifted between the two, the model by a residual more than the reference."""
    old, new = (
        measurement(noisy(draw, 10.0, sessions[0])),
        measurement(noisy(draw, 10.0 * slower, sessions[1], drift=drift * (1 + residual))),
    )
    references = (measurement(noisy(draw, 3.0, sessions[0])), measurement(noisy(draw, 3.0, sessions[1], drift=drift)))
    return judge_old_figures(old, new, references, changed, MARGIN, ALPHA)


def test_in_turns_is_the_paired_answer():
    draw = np.random.default_rng(0)
    old = measurement([5.0] * 3)
    again, same = measurement(noisy(draw, 10, 10)), measurement(noisy(draw, 10, 10))
    assert judge_in_turns(old, again, same, MARGIN, ALPHA).answer == "same"
    slower = judge_in_turns(old, again, measurement(noisy(draw, 12, 10)), MARGIN, ALPHA)
    assert slower.answer == "slower"
    assert slower.effect == pytest.approx(0.2, abs=0.03)
    assert slower.comparison is not None
    assert slower.sentence.startswith("It is slower than the baseline by")


def test_the_same_file_needs_no_figures_but_the_same_tools():
    one = measurement([5.0] * 3)
    assert judge_same_file(one, one, [], MARGIN, ALPHA).answer == "same"
    changed = judge_same_file(one, one, ["onnxruntime went from 1.22 to 1.23"], MARGIN, ALPHA)
    assert changed.answer == "cannot tell"
    assert "onnxruntime went from 1.22 to 1.23" in changed.sentence


def test_a_drifted_host_is_no_regression_and_a_regression_shows_through_drift():
    draw = np.random.default_rng(1)
    assert by_reference(draw, drift=1.5).answer == "same"
    found = by_reference(draw, drift=1.5, slower=1.2)
    assert found.answer == "slower"
    assert found.effect == pytest.approx(0.2, abs=0.04)
    assert by_reference(draw, drift=0.7, slower=0.8).answer == "faster"


def test_figures_alone_can_show_only_what_no_drift_makes():
    draw = np.random.default_rng(2)
    old = measurement(noisy(draw, 10, 5))
    answers = {
        factor: judge_old_figures(old, measurement(noisy(draw, 10 * factor, 10)), None, (), MARGIN, ALPHA)
        for factor in (0.3, 1.0, 1.5, 3.0)
    }
    assert {factor: one.answer for factor, one in answers.items()} == {
        0.3: "faster",
        1.0: "cannot tell",
        1.5: "cannot tell",
        3.0: "slower",
    }
    assert answers[1.5].limit == DRIFT_ALLOWANCE
    assert "--save-baseline" in answers[1.0].sentence


def test_too_few_sessions_and_changed_tools_cannot_tell():
    draw = np.random.default_rng(3)
    few = by_reference(draw, slower=2.0, sessions=(2, 3))
    assert few.answer == "cannot tell"
    assert few.effect is None
    assert "too few sessions" in few.sentence
    short = by_reference(draw, slower=2.0, sessions=(3, 3))
    assert (short.answer, short.effect_low) == ("cannot tell", None)
    assert short.effect == pytest.approx(1.0, abs=0.1)
    changed = by_reference(draw, slower=2.0, changed=["driver went from 1 to 2"])
    assert (changed.answer, changed.effect) == ("cannot tell", None)
    assert "driver went from 1 to 2" in changed.sentence


def rounds(draw, sessions, shift=0.0):
    """Log ratios of a model to its reference, one a round."""
    return draw.normal(shift, 0.015, sessions)


def test_a_loaded_host_cannot_tell_between_runs():
    quiet, loaded = measurement([10.0] * 5), measurement([25.0] * 10)
    host = HostSnapshot(other_cpu_share=0.8, steal_share=0.0)
    sessions = tuple(session.model_copy(update={"host": host}) for session in loaded.sessions)
    loaded = loaded.model_copy(update={"sessions": sessions, "verdict": judge(sessions, loaded.stats)})
    judged = judge_old_figures(quiet, loaded, None, (), MARGIN, ALPHA)
    assert judged.answer == "cannot tell"
    assert "this run is weak (host contention" in judged.sentence


@pytest.mark.parametrize("residual", [-REFERENCE_ALLOWANCE, 0.0, REFERENCE_ALLOWANCE])
def test_false_alarms_stay_within_the_promise(residual):
    draw, shift = np.random.default_rng(4), math.log1p(residual)
    trials = [decide(rounds(draw, 5), rounds(draw, 10, shift), REFERENCE_ALLOWANCE, ALPHA)[0] for _ in range(2000)]
    alarms = sum(answer in {"slower", "faster"} for answer in trials)
    assert alarms <= 20 + 14  # the promise, and three standard errors; seeds are fixed


def test_a_planted_seventh_is_found():
    draw, shift = np.random.default_rng(5), math.log1p(0.15)
    found = [decide(rounds(draw, 5), rounds(draw, 10, shift), REFERENCE_ALLOWANCE, ALPHA)[0] for _ in range(200)]
    assert found.count("slower") >= 160


def test_other_hardware_and_changed_tools_are_told_apart():
    one = measurement([5.0] * 3)
    elsewhere = ENVIRONMENT.model_copy(update={"cpu_model": "Other"})
    assert other_machine(one, ENVIRONMENT, one, ENVIRONMENT) == []
    assert other_machine(one, ENVIRONMENT, one, elsewhere) == ["processor Made then, Other now"]
    phone = told(one, device={"soc": "kirin810", "os": "Android 10"}, versions={"tflite": "2.17"})
    newer = told(one, device={"soc": "kirin810", "os": "Android 12"}, versions={"tflite": "2.18"})
    assert other_machine(phone, ENVIRONMENT, newer, elsewhere) == []  # the host is not the device
    assert changed_tools(phone, ENVIRONMENT, newer, elsewhere) == [
        "os went from Android 10 to Android 12",
        "tflite went from 2.17 to 2.18",
    ]
    other = told(one, device={"soc": "exynos2100", "os": "Android 10"})
    assert other_machine(phone, ENVIRONMENT, other, ENVIRONMENT) == ["soc kirin810 then, exynos2100 now"]


def test_one_slower_variant_is_a_regression():
    draw = np.random.default_rng(6)
    same, slower = by_reference(draw), by_reference(draw, slower=1.3)
    assert not GateResult(baseline="b.json", run_id="1", judged=(same,)).regressed
    assert GateResult(baseline="b.json", run_id="1", judged=(same, slower)).regressed
