import pytest

from targets.profiles.assemble import Joined, Row, fastest_tenth, finished


def profile_of(*times_us, unprofiled_us=100.0):
    rows = [Row(f"op{i}", "Conv", "", time, Joined(module="m" if i else None)) for i, time in enumerate(times_us)]
    return finished("onnxruntime", rows, runs=1, unprofiled_us=unprofiled_us, profiled_us=110.0, notes=["first"])


def test_operations_add_up_to_the_unprofiled_total_and_the_residual_is_from_before():
    profile = profile_of(30.0, 60.0)
    assert sum(op.latency_us for op in profile.ops) == pytest.approx(100.0)
    assert profile.sum_us == 90.0
    assert profile.residual_share == pytest.approx(-0.1)
    assert profile.attributed_share == pytest.approx(2 / 3)
    assert any("beyond 5%" in note for note in profile.notes)


def test_a_small_residual_needs_no_warning():
    assert profile_of(40.0, 58.0).notes == ("first",)


def test_the_share_joined_by_the_modules_around_is_told():
    rows = [Row(f"op{i}", "Conv", "", 50.0, Joined(module="m", guessed=bool(i))) for i in range(2)]
    profile = finished("onnxruntime", rows, runs=1, unprofiled_us=100.0, profiled_us=110.0, notes=[])
    assert len(profile.notes) == 1
    assert "50.0% of the time" in profile.notes[0] and "module around them" in profile.notes[0]


@pytest.mark.parametrize("times_us", [(0.0, 0.0), (-1.0, -0.5), ()])
def test_operations_too_short_to_see_have_no_share(times_us):
    profile = profile_of(*times_us)
    assert [op.share for op in profile.ops] == [0.0] * len(times_us)
    assert profile.attributed_share == 0.0
    assert "too short" in profile.notes[-1]


def test_the_estimator_leaves_out_runs_that_other_load_lengthened():
    values = [10.0] * 50 + [30.0] * 50
    assert len(fastest_tenth(values)) == 10
    assert {values[i] for i in fastest_tenth(values)} == {10.0}
    assert len(fastest_tenth([1.0, 2.0, 3.0, 4.0])) == 3
