"""Saliency metrics in the convention of the CSNet paper (its released ``SalMetric`` counter).

Maximum F-measure: for each threshold t = 0 ... 255 a pixel is predicted where the 8-bit map is above t, precision and
recall are averaged over the *data set* per threshold, F is taken of the averages with beta^2 = 0.3, and the maximum
over thresholds counts. An F averaged per image, or thresholds set per image, gives other numbers. The mask is
binarised at half scale for F; the mean absolute error uses both at full depth and is averaged over images.

One choice moves the maximum: the precision of an image in which nothing lies above the threshold. The released counter
makes it 1 (through its epsilon), which rewards empty maps; counting it as 0 is the stricter reading and the default
here. Name the choice beside a figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from targets.errors import UsageError

BETA_SQUARED = 0.3
"""Weight of precision against recall in F (Achanta et al., CVPR 2009)."""
EPSILON = 1e-4
"""Added to both sides of each quotient, as in the released counter; so an empty mask has recall 1."""
LEVELS = 256


@dataclass(frozen=True)
class SaliencyScore:
    """Figures of one data set.

    Attributes:
        max_f: Maximum F-measure, 0 to 1.
        mean_f: F-measure averaged over thresholds.
        mae: Mean absolute error, 0 to 1.
        best_threshold: 8-bit threshold that gives ``max_f``.
        images: Number of images.
    """

    max_f: float
    mean_f: float
    mae: float
    best_threshold: int
    images: int


class SaliencyMetric:
    """Accumulates maps one by one; memory does not grow with their number.

    Args:
        empty_precision: Precision of an image where nothing is predicted at a threshold: 0, or 1 as in the released
            counter.
    """

    def __init__(self, *, empty_precision: Literal[0, 1] = 0) -> None:
        self._empty_precision = empty_precision
        self._precision = np.zeros(LEVELS)
        self._recall = np.zeros(LEVELS)
        self._mae = 0.0
        self._images = 0

    def update(self, saliency: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
        """Add one image.

        Args:
            saliency: 8-bit map (H, W); see ``quantise``.
            mask: 8-bit ground truth (H, W), 0 background to 255 object.

        Raises:
            UsageError: If types are not 8-bit, or shapes differ or are not two-dimensional.
        """
        if saliency.dtype != np.uint8 or mask.dtype != np.uint8:
            raise UsageError(f"saliency metric takes 8-bit arrays, not {saliency.dtype} and {mask.dtype}")
        if saliency.shape != mask.shape or saliency.ndim != 2 or not saliency.size:
            raise UsageError(f"saliency map {saliency.shape} and mask {mask.shape} must be (H, W) and equal")
        inside = mask > LEVELS // 2
        hits = np.bincount(saliency[inside], minlength=LEVELS)
        every = np.bincount(saliency.ravel(), minlength=LEVELS)
        # Pixels above t = all minus those up to t.
        hit_above = hits.sum() - np.cumsum(hits)
        all_above = every.sum() - np.cumsum(every)
        precision = (hit_above + EPSILON) / (all_above + EPSILON)
        self._precision += np.where(all_above == 0, self._empty_precision, precision)
        self._recall += (hit_above + EPSILON) / (hits.sum() + EPSILON)
        self._mae += float(np.abs(saliency.astype(np.int16) - mask).mean()) / 255
        self._images += 1

    def score(self) -> SaliencyScore:
        """Figures over all images so far.

        Raises:
            UsageError: If there was none.
        """
        if not self._images:
            raise UsageError("no image was scored", "Add at least one before asking for the score.")
        precision, recall = self._precision / self._images, self._recall / self._images
        f = (1 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall)
        best = int(f.argmax())
        return SaliencyScore(float(f[best]), float(f.mean()), self._mae / self._images, best, self._images)


def quantise(saliency: NDArray[np.floating]) -> NDArray[np.uint8]:
    """A map in 0 to 1 as 8 bits, rounded to the nearest level; values outside are clipped.

    The paper's test script cuts off instead, which makes maps darker by half a level on average and the MAE smaller.
    """
    levels: NDArray[np.uint8] = np.rint(np.clip(saliency, 0, 1) * 255).astype(np.uint8)
    return levels
