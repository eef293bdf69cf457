import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.inference.tiles import MINIMUM_CORE, plan_tiles, smallest_tile_pixels


@given(st.data())
def test_cores_cover_the_frame_once_and_no_tile_reads_too_much(data):
    width, height = data.draw(st.integers(1, 400)), data.draw(st.integers(1, 400))
    overlap = data.draw(st.integers(0, 60))
    smallest = smallest_tile_pixels(width=width, height=height, overlap=overlap)
    tile_pixels = (
        data.draw(st.integers(smallest, width * height + 1)) if smallest <= width * height else smallest
    )
    covered = np.zeros((height, width), int)
    for tile in plan_tiles(width=width, height=height, tile_pixels=tile_pixels, overlap=overlap):
        covered[tile.top : tile.bottom, tile.left : tile.right] += 1
        assert tile.padded_pixels <= tile_pixels
        assert tile.padded_top == max(0, tile.top - overlap)
        assert tile.padded_bottom == min(height, tile.bottom + overlap)
        assert tile.padded_left == max(0, tile.left - overlap)
        assert tile.padded_right == min(width, tile.right + overlap)
    assert (covered == 1).all()


def test_a_frame_that_fits_is_one_tile():
    (tile,) = plan_tiles(width=240, height=136, tile_pixels=240 * 136, overlap=18)
    assert tile.padded_pixels == 240 * 136


def test_less_than_the_smallest_tile_is_refused():
    smallest = smallest_tile_pixels(width=640, height=480, overlap=18)
    assert smallest <= (MINIMUM_CORE + 2 * 18) ** 2
    assert plan_tiles(width=640, height=480, tile_pixels=smallest, overlap=18)
    with pytest.raises(ValueError, match="640x480"):
        plan_tiles(width=640, height=480, tile_pixels=smallest - 1, overlap=18)


def test_the_grid_that_reads_least_is_taken():
    """A wide frame is best cut across its width."""
    tiles = plan_tiles(width=1000, height=100, tile_pixels=55_000, overlap=18)
    assert [(tile.top, tile.bottom) for tile in tiles] == [(0, 100), (0, 100)]
