import numpy as np
import pytest

from targets.errors import UsageError
from training.metrics.csnet import SaliencyMetric, quantise


def test_two_images_worked_by_hand():
    # Image 1: mask covers pixels 200 and 100; image 2: mask covers pixel 50, pixel 250 is a false alarm.
    metric = SaliencyMetric()
    metric.update(np.array([[200, 100, 0, 0]], np.uint8), np.array([[255, 255, 0, 0]], np.uint8))
    metric.update(np.array([[50, 250, 0, 0]], np.uint8), np.array([[255, 0, 0, 0]], np.uint8))
    score = metric.score()
    # Thresholds 0-49: image 1 P 1 R 1, image 2 P 1/2 R 1. Averages .75 and 1: F = 1.3*.75/(.3*.75+1) = .7959
    # 50-99: image 1 P 1 R 1, image 2 P 0 R 0: averages .5 and .5: F = 1.3*.25/(.65) = .5. Higher ones are lower.
    assert score.max_f == pytest.approx(1.3 * 0.75 / (0.3 * 0.75 + 1), abs=1e-3)
    assert score.best_threshold <= 49
    # MAE: image 1 (55 + 155)/4/255, image 2 (205 + 250)/4/255, averaged.
    assert score.mae == pytest.approx(((55 + 155) + (205 + 250)) / 4 / 255 / 2)
    assert score.images == 2


def test_f_of_averages_is_not_the_average_of_f():
    first = (np.array([[255, 0]], np.uint8), np.array([[255, 255]], np.uint8))
    second = (np.array([[255, 255]], np.uint8), np.array([[255, 0]], np.uint8))
    both, alone = SaliencyMetric(), []
    for saliency, mask in (first, second):
        both.update(saliency, mask)
        one = SaliencyMetric()
        one.update(saliency, mask)
        alone.append(one.score().max_f)
    assert both.score().max_f == pytest.approx(0.75, abs=1e-3)
    assert abs(np.mean(alone) - both.score().max_f) > 0.02


def brute(saliency, mask):
    precision, recall = np.zeros(256), np.zeros(256)
    for s, m in zip(saliency, mask, strict=True):
        for t in range(256):
            a, b = s > t, m > 128
            precision[t] += ((a & b).sum() + 1e-4) / (a.sum() + 1e-4) / len(saliency)
            recall[t] += ((a & b).sum() + 1e-4) / (b.sum() + 1e-4) / len(saliency)
    return (1.3 * precision * recall / (0.3 * precision + recall)).max()


def test_histograms_equal_the_definition():
    generator = np.random.default_rng(0)
    saliency = generator.integers(0, 256, (5, 9, 7), dtype=np.uint8)
    mask = generator.integers(0, 256, (5, 9, 7), dtype=np.uint8)
    mask[3] = 0
    metric = SaliencyMetric(empty_precision=1)
    for s, m in zip(saliency, mask, strict=True):
        metric.update(s, m)
    assert metric.score().max_f == pytest.approx(brute(saliency, mask), abs=1e-12)


def test_mask_threshold_is_half_scale():
    for value, missed in ((128, False), (129, True)):
        metric = SaliencyMetric()
        metric.update(np.array([[0, 255]], np.uint8), np.array([[value, 255]], np.uint8))
        assert (metric.score().max_f < 0.99) is missed


def test_perfect_and_inverted():
    mask = np.zeros((8, 8), np.uint8)
    mask[2:5, 2:6] = 255
    good, bad = SaliencyMetric(), SaliencyMetric()
    good.update(mask, mask)
    bad.update(255 - mask, mask)
    assert (good.score().max_f, good.score().mae) == (pytest.approx(1), 0)
    assert bad.score().mae == 1
    assert bad.score().max_f < 0.3


def test_quantise_rounds():
    assert quantise(np.array([0.0, 0.999, 1.0, -0.1, 1.5, 0.5, 0.0019])).tolist() == [0, 255, 255, 0, 255, 128, 0]


def test_choice_for_images_without_a_prediction():
    strict, released = SaliencyMetric(), SaliencyMetric(empty_precision=1)
    for metric in (strict, released):
        metric.update(np.array([[255, 0]], np.uint8), np.array([[255, 0]], np.uint8))
        metric.update(np.array([[0, 0]], np.uint8), np.array([[255, 0]], np.uint8))
    # Both: recall 1/2. Precision 1/2 where the empty map counts 0, 1 where it counts 1.
    assert strict.score().max_f == pytest.approx(0.5, abs=1e-3)
    assert released.score().max_f == pytest.approx(1.3 * 0.5 / (0.3 + 0.5), abs=1e-3)


def test_bad_input_is_said():
    metric = SaliencyMetric()
    with pytest.raises(UsageError, match="no image"):
        metric.score()
    with pytest.raises(UsageError, match="8-bit"):
        metric.update(np.zeros((2, 2)), np.zeros((2, 2), np.uint8))
    with pytest.raises(UsageError, match="equal"):
        metric.update(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8))
