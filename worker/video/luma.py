"""The luma of source frames, as measurements compare it: 8-bit codes, unrounded."""

import numpy as np
from numpy.typing import NDArray

from worker.inference.frames import FrameFormat
from worker.video.similarity_metrics import Plane

# RGB becomes BT.709 (see plan_colour): ITU-R BT.709-6, Kr and Kb.
KR, KB = 0.2126, 0.0722


def luma(frame: NDArray[np.uint8], *, source: FrameFormat, target: FrameFormat) -> Plane:
    """The luma of a source frame, on black where it is transparent, as unrounded 8-bit codes of the target's range."""
    planes = source.split(frame)
    if source.layout == "gbr":
        green, blue, red = (plane.astype(np.float32) for plane in planes[:3])
        codes: Plane = KR * red + (1 - KR - KB) * green + KB * blue
    else:
        codes = planes[0].astype(np.float32)
    black, span = nominal_range(source.bit_depth, full_range=source.full_range)
    black_8, span_8 = nominal_range(8, full_range=target.full_range)
    codes -= np.float32(black)
    codes *= np.float32(span_8 / span)
    if source.has_alpha:
        codes *= planes[3] / np.float32(source.max_code)
    codes += np.float32(black_8)
    return codes


def to_8_bits(plane: Plane, target: FrameFormat) -> None:
    """Scales codes of the target in place, without rounding them."""
    black, span = nominal_range(target.bit_depth, full_range=target.full_range)
    black_8, span_8 = nominal_range(8, full_range=target.full_range)
    plane -= np.float32(black)
    plane *= np.float32(span_8 / span)
    plane += np.float32(black_8)


def nominal_range(bit_depth: int, *, full_range: bool) -> tuple[float, float]:
    """The code of black, and the distance from it to white."""
    if full_range:
        return 0.0, 2.0**bit_depth - 1
    return 16 * 2.0 ** (bit_depth - 8), 219 * 2.0 ** (bit_depth - 8)
