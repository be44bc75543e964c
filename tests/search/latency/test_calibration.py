"""Calibration: recovers lines, keeps to the simplest form, is not bent by one slow session; networks by design."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.latency.calibration import Calibration, choose_archs, fit_calibration, left_out
from targets.errors import UsageError

PARTS = ("stem", "stages", "head")


def part_sums(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform([0.5, 5, 1], [0.6, 40, 12], (count, 3))


def noisy(latency_ms, sd, seed=1):
    return latency_ms * np.exp(np.random.default_rng(seed).normal(0, sd, len(latency_ms)))


def test_a_line_is_recovered_from_ten_noisy_networks():
    sums, others = part_sums(10), part_sums(200, 5)
    fitted = fit_calibration(sums, noisy(2.0 + 1.2 * sums.sum(1), 0.003), PARTS)
    assert fitted.form == "line"
    error = np.abs(fitted.apply(others) / (2.0 + 1.2 * others.sum(1)) - 1)
    assert error.mean() < 0.005
    assert fitted.error < 0.01


def test_proportional_sums_keep_one_slope():
    sums = part_sums(10)
    fitted = fit_calibration(sums, 1.3 * sums.sum(1), PARTS)
    assert fitted.form == "slope"
    assert fitted.slopes == pytest.approx((1.3,) * 3)
    assert fitted.intercept_ms == 0


def test_parts_that_differ_get_slopes_of_their_own():
    sums, others = part_sums(10), part_sums(200, 5)
    slopes = np.array([1.0, 1.0, 1.8])
    fitted = fit_calibration(sums, noisy(sums @ slopes, 0.002), PARTS)
    assert fitted.form == "parts"
    assert np.abs(fitted.apply(others) / (others @ slopes) - 1).mean() < 0.01


def test_one_slow_session_does_not_bend_the_line():
    sums = part_sums(10)
    measured = noisy(2.0 + 1.2 * sums.sum(1), 0.002)
    measured[3] *= 1.6
    fitted = fit_calibration(sums, measured, PARTS)
    others = part_sums(200, 5)
    assert np.abs(fitted.apply(others) / (2.0 + 1.2 * others.sum(1)) - 1).mean() < 0.015


def test_one_and_two_networks_give_a_slope_without_an_error():
    for count in (1, 2):
        sums = part_sums(count)
        fitted = fit_calibration(sums, 1.3 * sums.sum(1), PARTS)
        assert (fitted.form, fitted.error, fitted.count) == ("slope", None, count)
        assert left_out(sums, 1.3 * sums.sum(1), fitted) == pytest.approx(1.3 * sums.sum(1))


@settings(max_examples=25)
@given(st.integers(1, 10), st.integers(0, 1000), st.floats(0.01, 100), st.floats(0.001, 0.3))
def test_slopes_are_positive_and_scale_with_the_unit(count, seed, unit, sd):
    sums = part_sums(count, seed)
    measured = noisy(1.0 + sums.sum(1), sd, seed)
    first, second = fit_calibration(sums, measured, PARTS), fit_calibration(sums * unit, measured * unit, PARTS)
    assert min(first.slopes) > 0
    assert second.apply(sums * unit) == pytest.approx(first.apply(sums) * unit, rel=1e-4)


@pytest.mark.parametrize(
    ("sums", "measured", "said"),
    [
        (np.empty((0, 3)), np.empty(0), "at least one"),
        (part_sums(3), np.array([1.0, -1.0, 2.0]), "measured latency"),
        (part_sums(3), np.array([1.0, np.nan, 2.0]), "measured latency"),
        (part_sums(3) * 0, np.ones(3), "block sum"),
        (part_sums(3), np.ones(4), "do not fit"),
    ],
)
def test_what_makes_no_calibration_is_refused(sums, measured, said):
    with pytest.raises(UsageError, match=said):
        fit_calibration(sums, measured, PARTS)


def test_latency_that_falls_where_the_sum_rises_is_refused():
    sums = part_sums(10)[:, 1:2]
    with pytest.raises(UsageError, match="faster as their blocks get slower"):
        fit_calibration(sums, 100 - sums.sum(1), ("all",), form="line")


def test_json_round_trip_and_damage():
    fitted = fit_calibration(part_sums(10), 2 + part_sums(10).sum(1), PARTS)
    assert Calibration.model_validate_json(fitted.model_dump_json()) == fitted
    for damage in ({"slopes": (1.0,)}, {"slopes": (0.0,) * 3}, {"intercept_ms": float("nan")}):
        with pytest.raises(ValueError, match=r"slopes|intercept"):
            Calibration.model_validate(fitted.model_dump() | damage)


def test_the_design_holds_both_ends_and_spreads_latency_and_shares():
    sums = part_sums(300)
    total = sums.sum(1)
    chosen = choose_archs(list(range(300)), sums, 10, random.Random(0))
    assert chosen == choose_archs(list(range(300)), sums, 10, random.Random(0))
    assert len(set(chosen)) == 10
    assert {int(total.argmin()), int(total.argmax())} <= set(chosen)
    assert np.diff(total[chosen]).max() < np.ptp(total) / 3
    uniform = [np.linalg.cond(sums[random.Random(seed).sample(range(300), 10)] / sums.mean(0)) for seed in range(20)]
    assert np.linalg.cond(sums[chosen] / sums.mean(0)) < np.median(uniform)
    assert choose_archs([7, 8], sums[:2], 10, random.Random(0)) in ([7, 8], [8, 7])
