"""What an exact server makes of a picture: enlarged by repeating pixels, written as 4:2:0 with chroma on the left."""

import numpy as np
from numpy.typing import NDArray

from tests.e2e.film import LUMA_WEIGHTS
from tests.e2e.measuring import SCALE

# Of cubic convolution (Keys, 1981).
CUBIC_A = -0.75


def enlarge_exactly(
    picture: NDArray[np.floating],
    matrix: str,
    *,
    depth: int,
    full_range: bool,
    size: tuple[int, int] | None = None,
    strength: float = 1,
) -> list[NDArray[np.float64]]:
    """Y, Cb and Cr of R'G'B' from 0 to 1, as codes, not rounded.

    `size`: width and height, to which four times the picture is reduced by the means of areas. `strength`: how much of
    the picture is made by repeating pixels, the rest by cubic convolution.
    """
    rows, columns = picture.shape[:2]
    width, height = size or (SCALE * columns, SCALE * rows)
    down, across = _area_means(SCALE * rows, height), _area_means(SCALE * columns, width)

    def enlarged(plane: NDArray[np.float64]) -> NDArray[np.float64]:
        repeated = plane.repeat(SCALE, 0).repeat(SCALE, 1)
        if strength < 1:
            smooth = _cubic_weights(rows) @ plane @ _cubic_weights(columns).T
            repeated = strength * repeated + (1 - strength) * smooth
        reduced: NDArray[np.float64] = down @ repeated @ across.T
        return reduced.clip(0, 1)

    red, green, blue = map(enlarged, picture.astype(np.float64).transpose(2, 0, 1))
    kr, kb = LUMA_WEIGHTS[matrix]
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    differences = ((blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr)))
    unit, top = 2 ** (depth - 8), 2**depth - 1
    scale, chroma_scale, foot = (top, top, 0) if full_range else (219 * unit, 224 * unit, 16 * unit)
    return [luma * scale + foot, *(_quarter(plane) * chroma_scale + 128 * unit for plane in differences)]


def _quarter(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half as wide and high: each sample sits on an even column, between two rows."""
    rows = (plane[0::2] + plane[1::2]) / 2
    left = np.concatenate([rows[:, :1], rows[:, 1:-1:2]], axis=1)
    return (left + 2 * rows[:, 0::2] + rows[:, 1::2]) / 4


def _area_means(before: int, after: int) -> NDArray[np.float64]:
    """after x before: how much of each sample each mean holds."""
    edges = np.arange(after + 1) * before / after
    places = np.arange(before)
    shared = np.minimum(edges[1:, None], places + 1) - np.maximum(edges[:-1, None], places)
    return np.asarray(shared.clip(0) * after / before)


def _cubic_weights(count: int) -> NDArray[np.float64]:
    """SCALE * count x count: cubic convolution, edges repeated."""
    weights = np.zeros((SCALE * count, count))
    for place in range(SCALE * count):
        at = (place + 0.5) / SCALE - 0.5
        for number in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            x, a = abs(at - number), CUBIC_A
            near, far = ((a + 2) * x - (a + 3)) * x * x + 1, ((x - 5) * x + 8) * a * x - 4 * a
            weights[place, min(max(number, 0), count - 1)] += near if x <= 1 else far
    return weights
