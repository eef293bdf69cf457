"""Pixels that stay as they were are not computed again.

A frame that equals the one before has its result. Of a frame that differs in places, only those parts are computed
anew that a changed pixel can reach, and they are laid over the result before. Either way the result is, to the last
bit, that of computing everything.

For the parts this is not a matter of course: convolutions of another size may run another kernel, which adds up in
another order. So a size of part counts only once it has been proved: computed beside a whole frame, and found equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

# Changes are looked at in squares of so many input pixels.
CELL = 16
# Output pixels take their chroma from neighbours: less than one input pixel further.
CHROMA_REACH = 1
# Some networks compute in squares of so many pixels, which must fall as they do in the whole frame.
ALIGNMENT = 4
# What a call of the network costs beside its pixels, in pixels.
CALL_PIXELS = 2048
# Parts that together read more of the frame than this are not worth their seams.
MOST_OF_A_FRAME = 0.8
# So many frames' worth of pixels may be spent on proofs before parts have saved as much.
FRAMES_OF_CREDIT = 2.0


@dataclass(frozen=True, kw_only=True)
class Region:
    """A rectangle in input pixels, ends exclusive."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.bottom - self.top, self.right - self.left

    @property
    def pixels(self) -> int:
        rows, columns = self.size
        return rows * columns

    def padded(self, by: int, *, height: int, width: int) -> "Region":
        """That much larger on each side, within the frame."""
        return Region(
            top=max(0, self.top - by),
            bottom=min(height, self.bottom + by),
            left=max(0, self.left - by),
            right=min(width, self.right + by),
        )


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """The last frame: its bytes, as RGB (1 x 3 x H x W, None where parts are of no use), and its result's bytes."""

    frame: NDArray[np.uint8]
    rgb: torch.Tensor | None
    result: NDArray[np.uint8]


class Parts:
    """Which parts of frames of one size need computing, and which sizes of parts are proved.

    `reach` is how many input pixels away a pixel can change an output pixel: the network's receptive radius.
    """

    def __init__(self, *, height: int, width: int, reach: int) -> None:
        self._height, self._width = height, width
        self._padding = reach + CHROMA_REACH
        self._proved: dict[tuple[int, int], bool] = {}
        self._credit = FRAMES_OF_CREDIT * height * width

    def changed(self, before: torch.Tensor, after: torch.Tensor) -> list[Region] | None:
        """The parts of the output that may differ, in input pixels; None when they are most of it, or all.

        before, after: 1 x 3 x H x W.
        """
        # Without torch, whose threads wait awake for more work and take the processor from the network's.
        differs = np.not_equal(before.numpy(), after.numpy()).any(axis=(0, 1))
        squares = np.pad(differs, [(0, -size % CELL) for size in differs.shape])
        rows, columns = (size // CELL for size in squares.shape)
        cells = np.asarray(squares.reshape(rows, CELL, columns, CELL).any(axis=(1, 3)))
        spread = -(-self._padding // CELL)
        regions = self._cover(_spread(_spread(cells, spread, axis=0), spread, axis=1))
        return regions if self._cost(regions) <= MOST_OF_A_FRAME * self._height * self._width else None

    def read_by(self, region: Region) -> Region:
        """What the network must see to give this part and what its chroma is made of."""
        padding = -(-(self._padding + CHROMA_REACH) // ALIGNMENT) * ALIGNMENT
        return region.padded(padding, height=self._height, width=self._width)

    def are_proved(self, regions: Sequence[Region]) -> bool:
        """Whether parts of these sizes give what a whole frame does."""
        return all(self._proved.get(self.read_by(region).size, False) for region in regions)

    def to_prove(self, regions: Sequence[Region]) -> list[Region]:
        """Those whose size is still to be tried beside a whole frame, as far as the credit goes."""
        chosen = {}
        for region in regions:
            read = self.read_by(region)
            if read.size not in self._proved and read.size not in chosen and read.pixels <= self._credit:
                chosen[read.size] = region
                self._credit -= read.pixels
        return list(chosen.values())

    def note_proof(self, region: Region, *, is_equal: bool) -> None:
        self._proved[self.read_by(region).size] = is_equal

    def note_use(self, regions: Sequence[Region]) -> None:
        """What was saved may be spent on further proofs."""
        self._credit += self._height * self._width - self._cost(regions)

    def _cost(self, regions: Sequence[Region]) -> int:
        return sum(self.read_by(region).pixels + CALL_PIXELS for region in regions)

    def _cover(self, cells: NDArray[np.bool_]) -> list[Region]:
        """Rectangles that cover the cells: each run of a row, joined with equal runs below; or one around all."""
        if not cells.any():
            return []
        done: list[Region] = []
        growing: dict[tuple[int, int], int] = {}
        for row, marks in enumerate(np.vstack((cells, np.zeros_like(cells[:1])))):
            edges = np.flatnonzero(np.diff(np.concatenate(([0], marks.astype(np.int8), [0]))))
            runs = {(int(left), int(right)) for left, right in zip(edges[::2], edges[1::2], strict=True)}
            for run in growing.keys() - runs:
                done.append(self._region(growing.pop(run), row, *run))
            for run in runs - growing.keys():
                growing[run] = row
        rows, columns = np.flatnonzero(cells.any(axis=1)), np.flatnonzero(cells.any(axis=0))
        around = self._region(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
        return min([around], done, key=self._cost)

    def _region(self, top: int, bottom: int, left: int, right: int) -> Region:
        return Region(
            top=top * CELL,
            bottom=min(self._height, bottom * CELL),
            left=left * CELL,
            right=min(self._width, right * CELL),
        )


def _spread(cells: NDArray[np.bool_], by: int, *, axis: int) -> NDArray[np.bool_]:
    """What is set, and what lies up to `by` beside it."""
    padded = np.pad(cells, [(by, by) if index == axis else (0, 0) for index in range(cells.ndim)])
    return np.asarray(sliding_window_view(padded, 2 * by + 1, axis=axis).any(axis=-1))
