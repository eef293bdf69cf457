"""Full-reference similarity metrics: planes of luma compared pair by pair.

PSNR; SSIM as Wang, Bovik, Sheikh and Simoncelli define it ("Image quality assessment: from error visibility to
structural similarity", IEEE Transactions on Image Processing 13(4), 2004); and temporal stability, the
change of the difference from one frame to the next. docs/quality.md defines each of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import log10
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

# Luma codes scaled to 8 bits, unrounded.
Plane: TypeAlias = NDArray[np.float32]

PEAK = 255.0
# For planes that are equal: JSON has no infinity.
MAX_DECIBELS = 100.0

WINDOW = 11
MARGIN = WINDOW // 2
SIGMA = 1.5
C1 = (0.01 * PEAK) ** 2
C2 = (0.03 * PEAK) ** 2
# Rows of a picture whose SSIM is computed at a time, which bounds memory.
BAND_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class SimilarityMetrics:
    """The result of `SimilarityMeter`. `stability_db` is None if no two consecutive frames were compared."""

    psnr_db: float
    ssim: float
    stability_db: float | None
    frames: int


class SimilarityMeter:
    """Accumulates the metrics of a video from pairs of planes: the input's, and the output's at the same size."""

    def __init__(self) -> None:
        self._frames = 0
        self._squares = 0.0
        self._ssim = 0.0
        self._pairs = 0
        self._changes = 0.0
        self._last: tuple[int, Plane] | None = None

    def add(self, number: int, reference: Plane, result: Plane) -> None:
        """Compare two planes. `number` is the output frame's: temporal stability counts consecutive numbers only."""
        difference = result - reference
        self._frames += 1
        self._squares += mean_square(difference)
        self._ssim += structural_similarity(reference, result)
        if self._last is not None and self._last[0] == number - 1:
            self._pairs += 1
            self._changes += mean_square(difference - self._last[1])
        self._last = (number, difference)

    def metrics(self) -> SimilarityMetrics:
        """Raises ValueError if nothing was compared."""
        if not self._frames:
            raise ValueError("no frames were compared")
        return SimilarityMetrics(
            psnr_db=decibels(self._squares / self._frames),
            ssim=self._ssim / self._frames,
            stability_db=decibels(self._changes / self._pairs) if self._pairs else None,
            frames=self._frames,
        )


def mean_square(plane: Plane) -> float:
    return float(np.square(plane).mean(dtype=np.float64))


def decibels(mean_square_error: float) -> float:
    """The peak against a mean squared error: 10 log10(255^2 / error), MAX_DECIBELS at most."""
    least = PEAK**2 / 10 ** (MAX_DECIBELS / 10)
    return 10 * log10(PEAK**2 / max(mean_square_error, least))


def structural_similarity(one: Plane, other: Plane) -> float:
    """The mean SSIM of two planes: windows of 11x11 weighted by a Gaussian of sigma 1.5, wholly inside the picture.

    Pictures narrower or lower than a window are mirrored at their edges.
    """
    height = one.shape[0]
    total, count = 0.0, 0
    for top, bottom in _bands(height):
        values = _ssim_map(one[top:bottom].astype(np.float64), other[top:bottom].astype(np.float64))
        inner = values[_inside(values.shape[0]), _inside(values.shape[1])]
        total += float(inner.sum())
        count += inner.size
    return total / count


def _bands(height: int) -> Iterator[tuple[int, int]]:
    """Row ranges (start, stop) that overlap so that each window lies inside exactly one of them."""
    if height < WINDOW:
        yield 0, height
        return
    for top in range(0, height - 2 * MARGIN, BAND_ROWS):
        yield top, min(height, top + BAND_ROWS + 2 * MARGIN)


def _inside(side: int) -> slice:
    return slice(MARGIN, side - MARGIN) if side >= WINDOW else slice(None)


def _ssim_map(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    mean_one, mean_other = _blurred(one), _blurred(other)
    variance_one = _blurred(one * one) - mean_one**2
    variance_other = _blurred(other * other) - mean_other**2
    covariance = _blurred(one * other) - mean_one * mean_other
    return ((2 * mean_one * mean_other + C1) * (2 * covariance + C2)) / (
        (mean_one**2 + mean_other**2 + C1) * (variance_one + variance_other + C2)
    )


def _blurred(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(cv2.GaussianBlur(plane, (WINDOW, WINDOW), SIGMA), np.float64)
