"""Cuts a frame into tiles that together cover it once."""

import math
from dataclasses import dataclass

# Below this, a tile is nearly all overlap.
MINIMUM_CORE = 16


@dataclass(frozen=True, kw_only=True)
class Tile:
    """In input pixels, ends exclusive. The core is what the tile contributes, the padded rectangle what it
    reads.

    The padding ends at the frame's border: there the network pads with zeros, as it does on the whole frame.
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


def plan_tiles(*, width: int, height: int, tile_pixels: int, overlap: int) -> list[Tile]:
    """Tiles in reading order, none of which reads more than `tile_pixels`; of all such grids the one that
    reads least.

    Raises `ValueError` where `tile_pixels` is less than `smallest_tile_pixels`.
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
    """How few input pixels, padding included, tiles with cores of `MINIMUM_CORE` or more can read."""
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
