"""Frames with what is known of the frames around them: what `stabilise` works on. Numpy only."""

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

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


class AveragedLuma(NamedTuple):
    """The luma of the network's picture of one frame before it was averaged and after, of the same size, which may be
    reduced: rows x columns float32, codes from 0 (black) to 255 (white)."""

    before: NDArray[np.float32]
    after: NDArray[np.float32]


class AveragingObserver(Protocol):
    """Looks at some pictures before and after they are averaged."""

    @property
    def positions(self) -> Collection[int]:
        """Which frames of a run, from 0, those around the segment included."""

    @property
    def most_pixels(self) -> int:
        """Larger lumas are reduced to half their sides, a quarter, ..."""

    def add(self, position: int, frame: Frame, lumas: AveragedLuma) -> None:
        """Called in the order of the frames, each with its input frame."""


class AlignedFrame(NamedTuple):
    """An input frame of the network, how many output frames show it, and the frames that it is averaged with.

    One that no output frame shows is there for those around it.
    """

    frame: Frame
    repeats: int
    alignments: Sequence[Alignment] = ()
