"""What an exact server makes of a picture: enlarged by repeating pixels, written as 4:2:0 with chroma on the left."""

import numpy as np
from numpy.typing import NDArray

from tests.e2e.film import LUMA_WEIGHTS
from tests.e2e.measuring import SCALE


def enlarge_exactly(
    picture: NDArray[np.floating], matrix: str, *, depth: int, full_range: bool
) -> list[NDArray[np.float64]]:
    """Y, Cb and Cr of R'G'B' from 0 to 1, as codes, not rounded."""
    red, green, blue = picture.astype(np.float64).repeat(SCALE, 0).repeat(SCALE, 1).transpose(2, 0, 1)
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
