"""Full-reference similarity metrics: planes of luma compared pair by pair.

PSNR; SSIM as Wang, Bovik, Sheikh and Simoncelli define it ("Image quality assessment: from error visibility to
structural similarity", IEEE Transactions on Image Processing 13(4), 2004). docs/quality.md defines both.
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
    """The result of `SimilarityMeter`."""

    psnr_db: float
    ssim: float
    frames: int


class SimilarityMeter:
    """Accumulates the metrics of a video from pairs of planes: the input's, and the output's at the same size."""

    def __init__(self) -> None:
        self._frames = 0
        self._squares = 0.0
        self._ssim = 0.0

    def add(self, reference: Plane, result: Plane) -> None:
        """Compare two planes of the same size."""
        self._frames += 1
        self._squares += mean_square(result - reference)
        self._ssim += structural_similarity(reference, result)

    def metrics(self) -> SimilarityMetrics:
        """Raises ValueError if nothing was compared."""
        if not self._frames:
            raise ValueError("no frames were compared")
        return SimilarityMetrics(
            psnr_db=decibels(self._squares / self._frames),
            ssim=self._ssim / self._frames,
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
