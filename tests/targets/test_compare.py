import numpy as np
import pytest

from targets.compare import ALPHA, MIN_PAIRS, compare, refuse_unlike
from targets.errors import UsageError
from targets.records import TensorSpec
from tests.targets.making import measurement, variant

DRAW = np.random.default_rng(1)
BASE = 10.0 * (1 + 0.003 * DRAW.standard_normal(10))


@pytest.mark.parametrize(("factor", "answer"), [(1.1, "slower"), (0.9, "faster"), (1.001, "same")])
def test_three_answers(factor, answer):
    b = BASE * factor * (1 + 0.003 * DRAW.standard_normal(10))
    result = compare(measurement(BASE, "A"), measurement(b, "B"))
    assert result.answer == answer
    assert result.effect_low <= result.effect <= result.effect_high
    assert result.effect == pytest.approx(factor - 1, abs=0.01)
    assert result.more_pairs == 0


def test_a_difference_within_the_margin_never_fails_a_gate():
    b = BASE * 1.02 * (1 + 0.01 * np.array([1.0, -1.0] * 5))
    result = compare(measurement(BASE, "A"), measurement(b, "B"), margin=0.03)
    assert result.answer in {"same", "cannot tell"}
    assert compare(measurement(BASE, "A"), measurement(b, "B"), margin=0.005).answer == "slower"


def test_a_stricter_level_asks_for_more_pairs():
    with pytest.raises(UsageError, match="at least 11"):
        compare(measurement(BASE, "A"), measurement(BASE, "B"), alpha=0.001)


def test_noise_gives_cannot_tell_with_the_number_that_would_settle_it():
    b = BASE * (1 + 0.04 * DRAW.standard_normal(10))
    result = compare(measurement(BASE, "A"), measurement(b, "B"))
    assert result.answer == "cannot tell"
    assert result.more_pairs is not None
    assert result.more_pairs > 0
    assert f"{result.more_pairs} more pairs" in result.sentence


def test_hopeless_noise_says_so():
    b = BASE * np.exp([4.0, -4.0] * 5)
    result = compare(measurement(BASE, "A"), measurement(b, "B"))
    assert (result.answer, result.more_pairs) == ("cannot tell", None)
    assert "no sensible number" in result.sentence


def test_a_drift_that_hits_both_is_not_a_difference():
    drift = np.linspace(1.0, 2.0, 10)
    b = BASE * drift * (1 + 0.003 * DRAW.standard_normal(10))
    assert compare(measurement(BASE * drift, "A"), measurement(b, "B")).answer == "same"


def test_false_alarms_stay_below_the_level():
    alarms = 0
    for _ in range(300):
        noise = np.exp(0.05 * DRAW.standard_normal((2, 10)))
        alarms += compare(measurement(10 * noise[0], "A"), measurement(10 * noise[1], "B")).answer in {
            "slower",
            "faster",
        }
    assert alarms / 300 <= 3 * ALPHA


def test_too_few_pairs_are_refused():
    few = BASE[: MIN_PAIRS - 1]
    with pytest.raises(UsageError, match=f"at least {MIN_PAIRS}"):
        compare(measurement(few, "A"), measurement(few, "B"))


def test_different_rounds_are_refused():
    with pytest.raises(UsageError, match="same rounds"):
        compare(measurement(BASE, "A"), measurement(BASE[:9], "B"))


def test_unlike_settings_are_refused_unless_meant():
    a, b = variant("A"), variant("B", threads=2, runtime="openvino")
    with pytest.raises(UsageError, match=r"runtime onnxruntime against openvino; threads 1 against 2"):
        refuse_unlike(a, b)
    with pytest.raises(UsageError, match="threads"):
        refuse_unlike(a, b, meant=["runtime"])
    refuse_unlike(a, variant("B", runtime="openvino"), meant=["runtime"])


def test_sizes_are_compared_as_images_whatever_the_layout():
    a, b = variant("A"), variant("B")

    def shaped(shape, layout="NCHW"):
        spec = TensorSpec(name="x", shape=shape)
        return b.model_copy(update={"artifact": b.artifact.model_copy(update={"inputs": (spec,), "layout": layout})})

    refuse_unlike(a, shaped((1, 32, 32, 3), "NHWC"))
    with pytest.raises(UsageError, match="input shape"):
        refuse_unlike(shaped((1, 3, 32, 64)), shaped((1, 3, 64, 32)))
