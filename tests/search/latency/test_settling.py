"""When sessions agree, and what they say then."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.latency.settling import FEWEST, MOST, disagreement, settled, undisturbed_ms

TIMES = st.lists(st.floats(0.1, 1e4), min_size=1, max_size=MOST)


def test_slow_sessions_ask_for_more_until_two_fast_ones_agree():
    assert not settled([50.0])
    assert not settled([50.0, 61.0])
    assert settled([50.0, 61.0, 50.3])
    assert undisturbed_ms([50.0, 61.0, 50.3]) == pytest.approx(50.15)


def test_no_more_than_so_many_are_asked_for():
    never = [50.0 * 1.05**number for number in range(MOST)]
    assert not settled(never[:-1])
    assert settled(never)
    assert settled(never[:3], most=3)


def test_disagreement_is_that_of_the_two_fastest():
    assert disagreement([[50.0, 90.0, 51.0], [30.0, 30.6], [7.0]]) == pytest.approx(0.00991, rel=0.01)
    assert disagreement([[7.0]]) is None


@given(TIMES)
def test_a_slower_session_changes_nothing_once_there_are_two(times):
    slower = [*times, max(times) * 2]
    assert (undisturbed_ms(slower) == undisturbed_ms(times)) == (len(times) >= FEWEST)
    assert min(times) <= undisturbed_ms(times) <= max(times)
