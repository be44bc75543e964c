"""Staleness and intervals: what chance allows, and how far an interval must reach."""

from __future__ import annotations

import numpy as np
import pytest

from search.latency.intervals import Interval, learn_interval
from search.latency.model import Prediction
from search.latency.staleness import check_staleness
from targets.errors import UsageError


def predicted(count, half=0.02):
    return Interval(half_width=half, count=40, source="apart").around(np.linspace(10, 50, count))


def test_measurements_inside_are_fresh_and_far_outside_are_stale():
    found = predicted(5)
    fresh = check_staleness(found, found.latency_ms * 1.01)
    assert (fresh.status, fresh.inside, fresh.count) == ("fresh", 5, 5)
    stale = check_staleness(found, found.latency_ms * 1.1)
    assert (stale.status, stale.inside) == ("stale", 0)
    assert stale.shift == pytest.approx(0.1)
    assert "10.0% above" in stale.sentence
    assert "0 of 5" in stale.sentence


def test_one_measurement_proves_nothing():
    found = predicted(1)
    assert check_staleness(found, found.latency_ms * 2).status == "cannot tell"


def test_a_predictor_that_holds_is_called_stale_at_most_one_time_in_twenty():
    rng = np.random.default_rng(0)
    found = predicted(12, half=1.6449 * 0.01)
    stale = sum(
        check_staleness(found, found.latency_ms * np.exp(rng.normal(0, 0.01, 12))).status == "stale" for _ in range(400)
    )
    assert stale / 400 <= 0.05


def test_what_cannot_be_checked_is_refused():
    found = predicted(3)
    for prediction, measured, said in (
        (found, [1.0], "1 measurements for 3"),
        (Prediction.exact(found.latency_ms), [1.0, 2, 3], "without an interval"),
        (found, [1.0, float("nan"), 2.0], "positive number"),
    ):
        with pytest.raises(UsageError, match=said):
            check_staleness(prediction, measured)


@pytest.mark.parametrize("errors", ["normal", "heavy"])
def test_intervals_cover_what_they_say_on_average(errors):
    rng = np.random.default_rng(0)

    def draw(count):
        noise = rng.normal(size=count) if errors == "normal" else rng.standard_t(3, size=count)
        return np.exp(0.01 * noise)

    covered = []
    for _ in range(200):
        interval = learn_interval(np.ones(40), draw(40), apart=True)
        fresh = np.abs(np.log(draw(200)))
        covered.append(np.mean(fresh <= interval.half_width))
    assert 0.88 < np.mean(covered) < 0.93


def test_few_left_out_errors_give_a_wider_interval_and_none_gives_none():
    errors = np.exp(np.array([0.01, -0.01] * 5))
    few, many = (learn_interval(np.ones(n), np.tile(errors, n // 10), apart=False) for n in (10, 1000))
    assert few.half_width > many.half_width > 0.01
    assert few.source == "left out"
    assert learn_interval(np.ones(1), np.ones(1), apart=False).coverage == 0
    steady = learn_interval(np.ones(40), np.ones(40), apart=True, repeatability=0.01)
    assert steady.half_width == pytest.approx(0.0164, abs=1e-4)
