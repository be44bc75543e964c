import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats as reference

from targets.records import SessionRecord
from targets.statistics import (
    detectable_effect,
    latency_stats,
    middle_of,
    paced_ms,
    paired_effect,
    paired_permutation_p,
    pairs_for,
    signed_rank_cdf,
    smallest_sample,
    t975,
)
from tests.targets.making import session

DIFFERENCES = st.lists(
    st.floats(-10, 10, allow_nan=False).filter(lambda v: abs(v) > 1e-6), min_size=5, max_size=12, unique_by=abs
)


@given(DIFFERENCES)
def test_p_value_is_the_exact_signed_rank_test(differences):
    expected = reference.wilcoxon(differences, method="exact").pvalue
    assert paired_permutation_p(differences) == pytest.approx(expected, abs=1e-12)


def test_null_distribution_counts_every_sign_assignment():
    sums = [
        sum(rank for rank, sign in zip(range(1, 7), signs, strict=True) if sign) for signs in product((0, 1), repeat=6)
    ]
    expected = [sum(s <= w for s in sums) / 64 for w in range(22)]
    assert signed_rank_cdf(tuple(range(1, 7))) == pytest.approx(expected)


def test_no_difference_is_no_evidence():
    assert paired_permutation_p([0.0] * 10) == 1.0


def test_ties_are_exact_too():
    for signs in product((-1.0, 1.0), repeat=6):
        smaller = min(sum(s > 0 for s in signs), sum(s < 0 for s in signs))
        exact = min(1.0, 2 * sum(math.comb(6, k) for k in range(smaller + 1)) / 64)
        assert paired_permutation_p(signs) == pytest.approx(exact)


@given(DIFFERENCES, st.floats(-3, 3))
def test_interval_holds_exactly_the_shifts_the_test_does_not_reject(differences, shift):
    _, low, high = paired_effect(differences, 0.1)
    moved = [d - shift for d in differences]
    if min(abs(np.add.outer(moved, moved)).flat) < 1e-9:
        return  # a shift on a Walsh average makes ties, where the two differ by construction
    assert (low < shift < high) == (paired_permutation_p(moved) > 0.1)


def test_too_few_pairs_give_an_open_interval():
    assert paired_effect([0.1, 0.2, 0.3], 0.01)[1:] == (-math.inf, math.inf)


@pytest.mark.parametrize("degrees", [1, 2, 5, 30])
def test_t_table(degrees):
    assert t975(degrees) == pytest.approx(reference.t.ppf(0.975, degrees), abs=1e-4)


@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.001])
def test_smallest_sample_is_the_first_that_can_reject(alpha):
    pairs = smallest_sample(alpha)
    assert 2 / 2**pairs <= alpha < 2 / 2 ** (pairs - 1)


def test_power_is_what_it_says():
    """With the stated number of pairs, an effect is found about 80 % of the time."""
    pairs = pairs_for(0.05, 0.05, 0.01)
    assert detectable_effect(0.05, pairs, 0.01) <= 0.05
    draw = np.random.default_rng(0)
    found = np.mean([paired_permutation_p(draw.normal(0.05, 0.05, pairs)) <= 0.01 for _ in range(400)])
    assert 0.7 < found < 0.92


def test_figures_are_medians_over_sessions():
    sessions = [session(i, samples=np.arange(1, 101) * factor) for i, factor in enumerate((1.0, 1.1, 3.0))]
    stats = latency_stats(sessions)
    assert stats.p50_ms == pytest.approx(50.5 * 1.1)
    assert stats.p10_ms == pytest.approx(10.9 * 1.1, rel=1e-6)
    assert stats.headline_low_ms < stats.p10_ms < stats.headline_high_ms
    assert (stats.sessions, stats.samples) == (3, 300)


def test_one_session_claims_no_interval_of_its_own():
    stats = latency_stats([session()])
    assert stats.headline_low_ms == stats.p10_ms == stats.headline_high_ms


def paced(samples_ms, reference_ms):
    """A session whose model took turns with a reference."""
    found = session(samples=samples_ms)
    return found.model_copy(update={"reference_ns": tuple(int(ms * 1e6) for ms in reference_ms)})


def test_drift_of_the_machine_cancels_against_a_reference():
    draw = np.random.default_rng(0)
    drift, noise = np.linspace(1.0, 1.5, 200), np.exp(draw.normal(0, 0.02, (2, 200)))
    steady, drifting = (paced(10 * f * noise[0], 2 * f * noise[1]) for f in (np.ones(200), drift))
    (steady_ms, steady_reference_ms), (latency_ms, reference_ms) = paced_ms(steady), paced_ms(drifting)
    assert steady_ms == pytest.approx(10, rel=0.05)
    assert steady_ms / steady_reference_ms == pytest.approx(5, rel=0.05)
    assert latency_ms / reference_ms == pytest.approx(steady_ms / steady_reference_ms, rel=0.005)
    assert reference_ms == pytest.approx(np.percentile(drifting.reference_ns, 10) / 1e6)


@given(st.floats(0.2, 5.0))
def test_the_quotient_of_a_session_is_that_of_a_slower_machine(factor):
    times = np.random.default_rng(1).uniform(1, 2, (2, 30))
    (plain_ms, plain_reference_ms), (slow_ms, slow_reference_ms) = (
        paced_ms(paced(*(times * f))) for f in (1.0, factor)
    )
    assert slow_ms / slow_reference_ms == pytest.approx(plain_ms / plain_reference_ms, rel=1e-4)
    assert slow_ms == pytest.approx(plain_ms * factor, rel=1e-4)


def test_a_session_without_a_reference_has_no_pace():
    assert paced_ms(session()) is None


@pytest.mark.parametrize("count", [1, 19, 21])
def test_a_reference_inference_belongs_to_each_sample(count):
    values = session().model_dump()
    assert SessionRecord.model_validate(values | {"reference_ns": (5,) * 20}).reference_ns == (5,) * 20
    with pytest.raises(ValidationError, match="belongs to each sample"):
        SessionRecord.model_validate(values | {"reference_ns": (5,) * count})
    with pytest.raises(ValidationError, match="greater than 0"):
        SessionRecord.model_validate(values | {"reference_ns": (0,) * 20})


def test_the_middle_of_figures_is_that_of_sessions():
    values_ms = [10.0, 10.2, 10.9]
    stats = latency_stats([session(i, ms) for i, ms in enumerate(values_ms)])
    found = (stats.headline_ms, stats.headline_low_ms, stats.headline_high_ms)
    assert middle_of(values_ms) == pytest.approx(found)
    assert middle_of([3.0]) == (3.0, 3.0, 3.0)
