"""RGB to 4:2:0 in one pass of compiled code, beside the way that torch does it."""

import numpy as np
import pytest
import torch

from worker.inference import colour
from worker.inference.colour import rgb_to_planes
from worker.inference.cpu.kernels import find_kernels
from worker.inference.frames import FrameFormat

pytestmark = pytest.mark.skipif(
    find_kernels() is None, reason="the package was installed without a C compiler"
)


def picture(height, width, seed=0):
    """Values in and out of range, and what is no number."""
    values = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 1.4 - 0.2
    values[0, 0, 0, 0], values[0, 1, -1, -1] = torch.inf, -torch.inf
    return values


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 16), (7, 33), (48, 64), (31, 130)])
@pytest.mark.parametrize("location", ["left", "center"])
@pytest.mark.parametrize(("matrix", "full_range"), [("bt709", False), ("bt601", True)])
def test_codes_are_those_of_torch(height, width, location, matrix, full_range, monkeypatch):
    target = FrameFormat(
        width=width, height=height, matrix=matrix, full_range=full_range, chroma_location=location
    )
    rgb = picture(height, width)
    found = {layout: rgb_to_planes(rgb.contiguous(memory_format=layout), target) for layout in LAYOUTS}
    monkeypatch.setattr(colour, "find_kernels", lambda: None)
    expected = rgb_to_planes(rgb, target).int()

    for codes in found.values():
        difference = (codes.int() - expected).abs()
        # Where a value lies half way between two codes, the last bit of a sum decides.
        assert difference.max() <= 1
        assert difference.sum() <= 1 + 0.001 * difference.numel()


LAYOUTS = (torch.contiguous_format, torch.channels_last)


def test_a_part_is_the_same_as_in_the_whole_and_so_is_any_number_of_threads(monkeypatch):
    rgb = picture(50, 90)
    whole_format, part_format = (
        FrameFormat(width=width, height=height) for width, height in ((90, 50), (47, 30))
    )
    whole = whole_format.split(rgb_to_planes(rgb, whole_format)[1].numpy())
    part = part_format.split(rgb_to_planes(rgb[..., 10:40, 20:67], part_format)[1].numpy())

    assert np.array_equal(part[0], whole[0][10:40, 20:67])
    for plane in (1, 2):
        assert np.array_equal(part[plane][:, 1:-1], whole[plane][5:20, 10:34][:, 1:-1])

    again = []
    for threads in (1, 3, 64):
        monkeypatch.setattr(colour.torch, "get_num_threads", lambda threads=threads: threads)
        again.append(rgb_to_planes(rgb, whole_format))
    assert torch.equal(again[0], again[1]) and torch.equal(again[0], again[2])
