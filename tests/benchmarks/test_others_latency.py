import numpy as np
import pytest

from benchmarks.others_latency import Results, drift_of, products_base, without_drift


def test_drift_is_found_from_the_neighbours_alone():
    rng = np.random.default_rng(0)
    true = np.where((np.arange(400) > 150) & (np.arange(400) < 220), 0.2, 0.0)
    seen = np.sort(rng.permutation(400)[:300])
    found = drift_of(true[seen] + rng.normal(0, 0.01, len(seen)), seen, 400)
    assert found.shape == (400,)
    clear = np.minimum(np.abs(np.arange(400) - 150), np.abs(np.arange(400) - 220)) > 12
    assert np.abs(found - true)[clear].max() < 0.02


def test_no_drift_is_found_where_there_is_none():
    errors = np.random.default_rng(1).normal(0, 0.02, 200)
    assert np.abs(drift_of(errors, np.arange(200), 200)).max() < 0.03


def test_a_line_and_its_drift_are_taken_off():
    rng = np.random.default_rng(3)
    sums = rng.uniform(30, 90, 120)
    drift = np.where(np.arange(120) > 60, 0.15, 0.0)
    measured = (2 + 1.1 * sums) * np.exp(drift)
    errors = np.abs(without_drift(sums, measured) / measured - 1)
    assert errors[np.abs(np.arange(120) - 60) > 10].max() < 0.05
    before = measured.copy()
    measured[20] *= 3  # what is predicted does not depend on its own measurement
    assert without_drift(sums, measured)[20] == pytest.approx(without_drift(sums, before)[20])


def test_products_find_what_is_a_sum_of_them():
    pytest.importorskip("scipy", reason="scipy is not installed")
    features = np.random.default_rng(2).uniform(1, 9, (60, 3))
    latency = 2 + features @ [1.0, 0.0, 3.0]
    seen = np.arange(0, 60, 2)
    assert products_base(features, seen, latency[seen]) == pytest.approx(latency, rel=0.01)


def test_an_error_above_its_bar_is_a_failure():
    results, measured = Results(), np.array([1.0, 2.0, 4.0])
    assert results.add("data", "good", measured * 1.01, measured, 0.02) == pytest.approx(0.01)
    assert results.failed == []
    results.add("data", "free", measured * 2, measured)
    results.add("data", "bad", measured * 1.03, measured, 0.02)
    assert results.failed == ["data, bad: 3.00%"]
