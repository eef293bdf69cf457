"""4:2:0 to RGB and back in one pass of compiled code, beside the way that torch does it."""

import numpy as np
import pytest
import torch

from worker.inference import colour
from worker.inference.colour import planes_to_rgb, rgb_to_planes
from worker.inference.cpu.kernels import find_kernels
from worker.inference.frames import FrameFormat

pytestmark = pytest.mark.skipif(
    find_kernels() is None, reason="the package was installed without a C compiler"
)


def picture(height, width, seed=0):
    """Values in and out of range, and infinities."""
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
        # For a value midway between two codes the last bit of a sum decides.
        assert difference.max() <= 1
        assert difference.sum() <= 1 + 0.001 * difference.numel()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 16), (7, 33), (48, 64), (31, 130)])
@pytest.mark.parametrize("location", ["left", "center"])
@pytest.mark.parametrize(("matrix", "full_range"), [("bt709", False), ("bt601", True)])
def test_values_are_those_of_torch(height, width, location, matrix, full_range, monkeypatch):
    source = FrameFormat(
        width=width, height=height, matrix=matrix, full_range=full_range, chroma_location=location
    )
    frames = codes(2, source)
    # Rows of another tensor too, as a caller may have them.
    found = [
        planes_to_rgb(frames, source),
        planes_to_rgb(torch.cat((frames, frames), 1)[:, : source.frame_bytes], source),
    ]
    monkeypatch.setattr(colour, "find_kernels", lambda: None)
    expected = planes_to_rgb(frames, source)

    for rgb in found:
        torch.testing.assert_close(rgb, expected, rtol=0, atol=1e-6)
        assert rgb.min() >= 0 and rgb.max() <= 1


def codes(frames, source):
    return torch.randint(
        0, 256, (frames, source.frame_bytes), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def test_any_number_of_threads_gives_the_same(monkeypatch):
    frame_format = FrameFormat(width=1001, height=901)  # worth several
    frames, rgb, found = codes(1, frame_format), picture(901, 1001), []
    for threads in (1, 3, 64):
        monkeypatch.setattr(colour.torch, "get_num_threads", lambda threads=threads: threads)
        found.append((planes_to_rgb(frames, frame_format), rgb_to_planes(rgb, frame_format)))
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))


@pytest.mark.parametrize("convert", ["read", "write"])
def test_other_formats_are_converted_by_torch(convert, monkeypatch):
    calls = []
    for name in ("_read_compiled", "_write_compiled"):
        monkeypatch.setattr(colour, name, lambda *_: calls.append(1))
    for other in ({"bit_depth": 10}, {"layout": "yuv444"}, {"chroma_location": "topleft"}):
        frame_format = FrameFormat(width=8, height=8, **other)
        if convert == "read":
            planes_to_rgb(torch.zeros((1, frame_format.frame_bytes), dtype=torch.uint8), frame_format)
        else:
            rgb_to_planes(torch.zeros((1, 3, 8, 8)), frame_format)
    assert not calls


LAYOUTS = (torch.contiguous_format, torch.channels_last)


def test_a_part_is_the_same_as_in_the_whole():
    rgb = picture(50, 90)
    whole_format, part_format = (
        FrameFormat(width=width, height=height) for width, height in ((90, 50), (47, 30))
    )
    whole = whole_format.split(rgb_to_planes(rgb, whole_format)[1].numpy())
    part = part_format.split(rgb_to_planes(rgb[..., 10:40, 20:67], part_format)[1].numpy())

    assert np.array_equal(part[0], whole[0][10:40, 20:67])
    for plane in (1, 2):
        assert np.array_equal(part[plane][:, 1:-1], whole[plane][5:20, 10:34][:, 1:-1])
