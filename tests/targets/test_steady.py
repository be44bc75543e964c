import time

import numpy as np

from targets.steady import is_steady, warm_up


def test_constant_latency_is_steady():
    assert is_steady([10_000_000] * 10)


def test_a_ramp_is_not_steady():
    assert not is_steady(list(np.linspace(20e6, 10e6, 10)))


def test_a_few_slow_runs_of_a_loaded_host_do_not_hide_the_steady_state():
    samples = [10_000_000] * 20
    for i in (3, 8, 12, 17):
        samples[i] = 30_000_000
    assert is_steady(samples)


def test_too_few_samples_are_not_steady():
    assert not is_steady([])
    assert not is_steady([1_000_000] * 5)


def test_warm_up_ends_soon_when_steady():
    outcome = warm_up(lambda: time.sleep(0.005), min_seconds=0.05, max_seconds=5)
    assert outcome.steady
    assert len(outcome.samples_ns) < 500


def test_warm_up_gives_up_at_the_deadline_and_says_so():
    durations = iter(np.geomspace(0.01, 1e-4, 400))
    outcome = warm_up(lambda: time.sleep(next(durations)), min_seconds=0.01, max_seconds=0.15)
    assert not outcome.steady


def test_a_slow_model_gets_the_time_that_two_windows_need():
    outcome = warm_up(lambda: time.sleep(0.05), min_seconds=0.01, max_seconds=0.1)
    assert outcome.steady
    assert len(outcome.samples_ns) >= 10
