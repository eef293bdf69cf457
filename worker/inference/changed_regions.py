"""Which regions of a frame must be computed again because the frame differs from the one before.

An output pixel can only change if an input pixel within the network's reach has changed. That alone does not make a
region equal to the same pixels of a whole frame: convolutions of another size may run another kernel, which sums in
another order. So a size of region is used only after a proof: it was computed beside a whole frame and found equal,
to the last bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

# Changes are found in squares of so many input pixels a side.
CELL = 16
# Output pixels take their chroma from neighbours: less than one input pixel further.
CHROMA_REACH = 1
# Some networks compute in squares of so many pixels a side, whose borders must fall as they do in the whole frame.
ALIGNMENT = 4
# The cost of one call of the network beside its pixels, in pixels.
CALL_PIXELS = 2048
# Regions that together read more of the frame than this share save nothing.
MAX_FRAME_SHARE = 0.8
# Pixels that proofs may cost before regions have saved as many, in frames.
INITIAL_CREDIT_FRAMES = 2.0


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
        """Returns the region grown by so many pixels on each side, within a frame of that size."""
        return Region(
            top=max(0, self.top - by),
            bottom=min(height, self.bottom + by),
            left=max(0, self.left - by),
            right=min(width, self.right + by),
        )


class ChangedRegions:
    """Finds the changed regions of frames of one size and keeps which sizes of region are proved.

    `reach` is the largest distance in pixels at which an input pixel affects an output pixel.
    """

    def __init__(self, *, height: int, width: int, reach: int) -> None:
        self._height, self._width = height, width
        self._padding = reach + CHROMA_REACH
        self._proved: dict[tuple[int, int], bool] = {}
        self._credit = INITIAL_CREDIT_FRAMES * height * width

    def find(self, before: torch.Tensor, after: torch.Tensor) -> list[Region] | None:
        """Returns the regions of the output that may differ, in input pixels; None if they are most of the frame.

        before, after: 1 x 3 x H x W.
        """
        # numpy, not torch, whose threads spin while idle and take the processor from the network's.
        differs = np.not_equal(before.numpy(), after.numpy()).any(axis=(0, 1))
        squares = np.pad(differs, [(0, -size % CELL) for size in differs.shape])
        rows, columns = (size // CELL for size in squares.shape)
        cells = np.asarray(squares.reshape(rows, CELL, columns, CELL).any(axis=(1, 3)))
        distance = -(-self._padding // CELL)
        regions = self._cover(_dilate(_dilate(cells, distance, axis=0), distance, axis=1))
        return regions if self._cost(regions) <= MAX_FRAME_SHARE * self._height * self._width else None

    def input_of(self, region: Region) -> Region:
        """Returns what the network must read to give this region and the pixels that its chroma is made of."""
        padding = -(-(self._padding + CHROMA_REACH) // ALIGNMENT) * ALIGNMENT
        return region.padded(padding, height=self._height, width=self._width)

    def are_proved(self, regions: Sequence[Region]) -> bool:
        """Returns whether regions of all these sizes equal the same pixels of a whole frame."""
        return all(self._proved.get(self.input_of(region).size, False) for region in regions)

    def to_prove(self, regions: Sequence[Region]) -> list[Region]:
        """Returns those whose size is to be tried beside a whole frame, as far as the credit goes, which it charges."""
        chosen = {}
        for region in regions:
            read = self.input_of(region)
            if read.size not in self._proved and read.size not in chosen and read.pixels <= self._credit:
                chosen[read.size] = region
                self._credit -= read.pixels
        return list(chosen.values())

    def note_proof(self, region: Region, *, is_equal: bool) -> None:
        self._proved[self.input_of(region).size] = is_equal

    def note_use(self, regions: Sequence[Region]) -> None:
        """Adds what these regions saved to the credit."""
        self._credit += self._height * self._width - self._cost(regions)

    def _cost(self, regions: Sequence[Region]) -> int:
        return sum(self.input_of(region).pixels + CALL_PIXELS for region in regions)

    def _cover(self, cells: NDArray[np.bool_]) -> list[Region]:
        """Returns rectangles that cover the cells: runs of a row joined with equal runs below, or one around all."""
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


def _dilate(cells: NDArray[np.bool_], by: int, *, axis: int) -> NDArray[np.bool_]:
    """Returns the set cells and those up to `by` cells beside them along the axis."""
    padded = np.pad(cells, [(by, by) if index == axis else (0, 0) for index in range(cells.ndim)])
    return np.asarray(sliding_window_view(padded, 2 * by + 1, axis=axis).any(axis=-1))
