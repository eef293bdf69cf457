"""How the frames around a frame agree with it: the half of `stabilise` that looks at the input.

For each frame, the motion to the two frames before it and the two after it (dense optical flow, DIS, of the input's
luma), and for each pixel how well what is found there agrees with it. `worker.inference.stabilising` averages the
network's pictures accordingly. Input frames are a sixteenth as large as the network's pictures, and where two of
them agree, what differs in the network's pictures is flicker: weights from the input keep more detail than weights
from those pictures, at the same steadiness (bench/RESULTS.md).

A frame's alignments depend on the frames within STABILISED_RADIUS of it alone, so that segments made apart equal a
single pass. No frame is aligned with one beyond a cut.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from app.platform.media.picture_options import STABILISED_RADIUS
from worker.inference.aligned_frames import AlignedFrame, Alignment
from worker.inference.frames import Frame, FrameFormat
from worker.video.motion import Field, flow_step, optical_flow, reduced, warp
from worker.video.retime import is_cut, luma_8_bits

# For each strength, the difference (8-bit codes, root mean square around a pixel) at which a frame has half its weight.
HALF_WEIGHT = {1: 4.0, 2: 8.0, 3: 16.0}
# Side of the square over which differences are averaged.
NEIGHBOURHOOD = 5


class _Held(NamedTuple):
    """A frame in the window. `luma`: 8 bits, reduced as for its flow; `cut`: whether a scene begins with it."""

    frame: Frame
    repeats: int
    luma: NDArray[Any]
    digest: bytes
    cut: bool


def aligned_frames(
    frames: Iterable[AlignedFrame],
    *,
    source: FrameFormat,
    strength: int,
    shown: range,
    observed: Collection[int] = (),
) -> Iterator[AlignedFrame]:
    """Yield each of the frames, in order, once the STABILISED_RADIUS frames after it have come.

    frames: 1-D uint8 of `source.frame_bytes`, without alignments; one may change once it was yielded.
    Only those whose position is in `shown` or `observed` are aligned; those that are not shown are yielded with no
    repeats.
    """
    window: deque[_Held] = deque(maxlen=2 * STABILISED_RADIUS + 1)
    half = HALF_WEIGHT[strength]
    count = 0

    def aligned(position: int) -> AlignedFrame:
        at = position - (count - len(window))
        here = window[at]
        repeats = here.repeats if position in shown else 0
        if not repeats and position not in observed:
            return AlignedFrame(here.frame, 0)
        return AlignedFrame(here.frame, repeats, tuple(_alignments(window, at, half=half)))

    before: NDArray[Any] | None = None
    for frame, repeats, _ in frames:
        luma = _small_luma(frame, source)
        is_first_of_scene = before is not None and is_cut(before, luma)
        digest = blake2b(frame.data, digest_size=16).digest()
        window.append(_Held(frame, repeats, luma, digest, is_first_of_scene))
        before = luma
        count += 1
        if count > STABILISED_RADIUS:
            yield aligned(count - 1 - STABILISED_RADIUS)
    for position in range(max(0, count - STABILISED_RADIUS), count):
        yield aligned(position)


def _small_luma(frame: Frame, source: FrameFormat) -> NDArray[Any]:
    """A copy of the frame's luma in 8 bits, as far as it is visible, reduced as far as its flow is."""
    planes = source.split(frame)
    luma = luma_8_bits(planes[0], source.bit_depth)
    if source.has_alpha:
        # As the network's pictures are, which are averaged.
        luma = np.rint(luma * (planes[3] / np.float32(source.max_code))).astype(np.uint8)
    small = reduced(luma, flow_step(luma))
    return small.copy() if np.may_share_memory(small, frame) else small


def _alignments(window: Sequence[_Held], at: int, *, half: float) -> Iterator[Alignment]:
    """Those of the window's frame at `at`, from the nearest outwards, up to the cuts around it."""
    here = window[at]
    for step in (-1, 1):
        for distance in range(1, STABILISED_RADIUS + 1):
            other = at + step * distance
            if not 0 <= other < len(window) or window[other + (step < 0)].cut:
                break
            is_equal = window[other].digest == here.digest
            field = None if is_equal else _field(here.luma, window[other].luma, half=half)
            yield Alignment(step * distance, field)


def _field(here: NDArray[Any], other: NDArray[Any], *, half: float) -> Field:
    """The field of an Alignment between two lumas of 8 bits.

    What has not moved agrees better without motion than with that of what passes around it, and then has none.
    """
    flow = optical_flow(here, other)
    moved = _mean_square(warp(other.astype(np.float32), flow, 1) - here)
    held = _mean_square(other.astype(np.float32) - here)
    is_still = held <= moved
    flow[is_still] = 0
    # Without exponentials, whose last bits differ between processors.
    weight = 1 / (1 + np.square(np.minimum(moved, held) / np.float32(half**2)))
    rows, columns = here.shape
    return np.stack((flow[..., 0] / np.float32(columns), flow[..., 1] / np.float32(rows), weight))


def _mean_square(difference: Field) -> Field:
    """Around each pixel."""
    side = (NEIGHBOURHOOD, NEIGHBOURHOOD)
    return np.asarray(cv2.blur(np.square(difference), side, borderType=cv2.BORDER_REPLICATE))
