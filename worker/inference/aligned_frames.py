"""Frames with what is known of the frames around them: what `stabilise` works on. Numpy only."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.inference.frames import Frame

# So many frames before and after a frame are averaged with it; the API counts them too (`picture_options`).
STABILISED_RADIUS = 2


class Alignment(NamedTuple):
    """Where the frame `offset` frames later (earlier: below 0) shows what a frame shows.

    `field`: for each pixel of the frame, which may be reduced, three float32: its displacement to the right and
    down, as a share of the frame's width and height, and the weight of what is there, 0 to 1; shape
    (3, rows, columns). None: both frames are equal to the byte.
    """

    offset: int
    field: NDArray[np.float32] | None


class AlignedFrame(NamedTuple):
    """An input frame of the network, how many output frames show it, and the frames that it is averaged with.

    One that no output frame shows is there for those around it.
    """

    frame: Frame
    repeats: int
    alignments: Sequence[Alignment] = ()
