"""Runs a network over frames that are too large for it in one piece, tile by tile."""

import math
from dataclasses import dataclass

import torch

from worker.inference.runtime import Runtime

# In input pixels. A smaller tile is nearly all overlap.
MINIMUM_CORE = 16


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A rectangle in input pixels, ends exclusive: the core, which the tile contributes, and the padding around it.

    The padding ends at the frame's border, where the network pads with zeros as it does for the whole frame.
    """

    top: int
    bottom: int
    left: int
    right: int
    padded_top: int
    padded_bottom: int
    padded_left: int
    padded_right: int

    @property
    def padded_pixels(self) -> int:
        return (self.padded_bottom - self.padded_top) * (self.padded_right - self.padded_left)


class TiledNetwork:
    """Runs a network over frames of one size, in one piece where that fits the given size of tiles."""

    def __init__(
        self, runtime: Runtime, *, width: int, height: int, scale: int, overlap: int, tile_pixels: int
    ) -> None:
        """`overlap` is the padding of tiles; `tile_pixels` bounds the input pixels of a tile, padding included."""
        self._runtime = runtime
        self._width, self._height, self._scale, self._overlap = width, height, scale, overlap
        self._smallest = smallest_tile_pixels(width=width, height=height, overlap=overlap)
        self._plan(tile_pixels)

    @property
    def count(self) -> int:
        """The number of tiles of a frame; 1 means untiled."""
        return len(self._tiles)

    def __call__(self, rgb: torch.Tensor) -> torch.Tensor:
        """N x 3 x height x width -> N x 3 x scale*height x scale*width."""
        if self.count == 1:
            return self._runtime(rgb)
        scale = self._scale
        enlarged = rgb.new_empty((rgb.shape[0], 3, self._height * scale, self._width * scale))
        for tile in self._tiles:
            part = self._runtime(
                rgb[:, :, tile.padded_top : tile.padded_bottom, tile.padded_left : tile.padded_right]
            )
            top, left = (tile.top - tile.padded_top) * scale, (tile.left - tile.padded_left) * scale
            rows, columns = (tile.bottom - tile.top) * scale, (tile.right - tile.left) * scale
            enlarged[:, :, tile.top * scale : tile.bottom * scale, tile.left * scale : tile.right * scale] = (
                part[:, :, top : top + rows, left : left + columns]
            )
        return enlarged

    def shrink(self) -> bool:
        """Halves the tiles' size; returns False if they are the smallest already."""
        largest = max(tile.padded_pixels for tile in self._tiles)
        if largest <= self._smallest:
            return False
        self._plan(largest // 2)
        return True

    def _plan(self, tile_pixels: int) -> None:
        self._tiles = plan_tiles(
            width=self._width,
            height=self._height,
            tile_pixels=max(tile_pixels, self._smallest),
            overlap=self._overlap,
        )


def plan_tiles(*, width: int, height: int, tile_pixels: int, overlap: int) -> list[Tile]:
    """Returns tiles in reading order whose cores cover the frame once and that read at most `tile_pixels` each.

    Of all such grids it is the one that reads least in total. Raises `ValueError` if `tile_pixels` is less than
    `smallest_tile_pixels`.
    """
    best: tuple[int, int, int] | None = None
    for columns in range(1, _most_parts(width) + 1):
        padded_width = _padded_length(width, columns, overlap)
        allowed_height = tile_pixels // padded_width
        rows = _fewest_parts(height, allowed_height, overlap)
        if rows is None:
            continue
        read = (width + 2 * overlap * (columns - 1)) * (height + 2 * overlap * (rows - 1))
        if best is None or read < best[0]:
            best = (read, rows, columns)
    if best is None:
        raise ValueError(
            f"No tiles of {tile_pixels} pixels with an overlap of {overlap} cover {width}x{height}."
        )
    _, rows, columns = best
    return [
        Tile(
            top=top,
            bottom=bottom,
            left=left,
            right=right,
            padded_top=max(0, top - overlap),
            padded_bottom=min(height, bottom + overlap),
            padded_left=max(0, left - overlap),
            padded_right=min(width, right + overlap),
        )
        for top, bottom in _parts(height, rows)
        for left, right in _parts(width, columns)
    ]


def smallest_tile_pixels(*, width: int, height: int, overlap: int) -> int:
    """Returns the fewest input pixels, padding included, of tiles whose cores measure at least `MINIMUM_CORE`."""
    across, down = (
        min(_padded_length(length, count, overlap) for count in range(1, _most_parts(length) + 1))
        for length in (width, height)
    )
    return across * down


def _most_parts(length: int) -> int:
    return max(1, length // MINIMUM_CORE)


def _parts(length: int, count: int) -> list[tuple[int, int]]:
    size = math.ceil(length / count)
    return [(start, min(length, start + size)) for start in range(0, length, size)]


def _padded_length(length: int, count: int, overlap: int) -> int:
    return min(length, math.ceil(length / count) + overlap * min(2, count - 1))


def _fewest_parts(length: int, allowed: int, overlap: int) -> int | None:
    for count in range(1, _most_parts(length) + 1):
        if _padded_length(length, count, overlap) <= allowed:
            return count
    return None
