"""Straight colours from a network's premultiplied picture: no fringe, whatever the network makes of an edge."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from models.architectures.nearest import NearestNeighbour
from models.catalog import ENGINES
from worker.inference.colour import planes_to_alpha, rgb_to_planes
from worker.inference.devices.cpu import CpuDevice
from worker.inference.frames import FrameFormat
from worker.inference.mixing import PictureOptions
from worker.inference.transparency import Visible
from worker.inference.upscaler import Upscaler

SOURCE = FrameFormat(width=24, height=20, layout="gbr", has_alpha=True)
ENGINE = ENGINES["regen-4x-lite"]


def picture(colour: NDArray[np.float64], alpha: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A frame of SOURCE: `colour` is R, G, B x rows x columns, `alpha` rows x columns."""
    red, green, blue = np.rint(255 * colour)
    return SOURCE.join([green, blue, red, np.rint(255 * alpha)])


def upscaled(
    frame: NDArray[np.uint8], target: FrameFormat, picture_options: PictureOptions | None = None
) -> list[NDArray[np.float64]]:
    upscaler = Upscaler(
        NearestNeighbour(),
        engine=ENGINE,
        source=SOURCE,
        target=target,
        device=CpuDevice(),
        precision="fp32",
        picture=picture_options or PictureOptions(),
    )
    (result,) = upscaler.upscale([frame])
    return [plane / 255 for plane in target.split(result)]


def disc() -> NDArray[np.float64]:
    across, down = np.meshgrid(np.arange(24) - 11.5, np.arange(20) - 9.5)
    return (np.hypot(across, down) < 7).astype(float)


@pytest.mark.parametrize("factor", [4, 3, 1])
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_one_colour_stays_one_colour(factor: int, strength: float) -> None:
    colour = np.array([0.8, 0.4, 0.2])[:, None, None] * np.ones((1, 20, 24))
    target = SOURCE.enlarged(factor)
    green, blue, red, alpha = upscaled(picture(colour, disc()), target, PictureOptions(strength=strength))
    assert 0 < alpha.mean() < 1
    assert set(alpha[:factor, :factor].ravel()) == {0}
    assert set(alpha[9 * factor : 11 * factor, 11 * factor : 13 * factor].ravel()) == {1}
    for plane, value in ((red, 0.8), (green, 0.4), (blue, 0.2)):
        assert np.abs(plane[alpha > 0] - value).max() <= 1.01 / 255


def test_a_network_that_sharpens_edges_leaves_no_fringe() -> None:
    """Of a picture that changes its colours beyond the edge: the neighbours' colours are not exceeded."""

    class Sharp(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            repeated = x.repeat_interleave(4, 2).repeat_interleave(4, 3)
            return repeated * 1.3 - 0.15 * (repeated > 0)

    alpha = torch.from_numpy(disc()).float()[None, None]
    ramp = torch.linspace(0.3, 0.7, 24).expand(1, 3, 20, 24)
    visible = Visible.of(ramp, alpha)
    large = visible.enlarged_alpha(4)
    straight = visible.straighten(Sharp()(visible.colours), large, scale=4)
    step = 0.4 / 23
    expected = ramp.repeat_interleave(4, 2).repeat_interleave(4, 3)
    edge = (large > 0) & (large < 1)
    assert edge.any()
    assert (straight - expected).abs()[edge.expand_as(straight)].max() <= 2.01 * step


def test_colours_under_what_is_transparent_do_not_matter() -> None:
    colour = np.full((3, 20, 24), 0.6)
    hidden = np.where(disc() > 0, colour, np.random.default_rng(1).random((3, 20, 24)))
    for factor in (4, 2):
        target = SOURCE.enlarged(factor)
        one, other = (upscaled(picture(each, disc()), target) for each in (colour, hidden))
        for plane, same in zip(one, other, strict=True):
            np.testing.assert_array_equal(plane, same)


@pytest.mark.parametrize("factor", [4, 3, 2])
@pytest.mark.parametrize("options", [PictureOptions(), PictureOptions(strength=0.3)])
def test_opaque_pictures_are_those_without_alpha(factor: int, options: PictureOptions) -> None:
    rgb = np.random.default_rng(2).random((3, 20, 24))
    source = FrameFormat(width=24, height=20, layout="gbr")
    red, green, blue = np.rint(255 * rgb)
    frame = source.join([green, blue, red])
    upscaler = Upscaler(
        NearestNeighbour(),
        engine=ENGINE,
        source=source,
        target=source.enlarged(factor),
        device=CpuDevice(),
        precision="fp32",
        picture=options,
    )
    expected = [plane / 255 for plane in upscaler.target.split(upscaler.upscale([frame])[0])]
    *planes, alpha = upscaled(picture(rgb, np.ones((20, 24))), SOURCE.enlarged(factor), options)
    assert set(alpha.ravel()) == {1}
    for plane, same in zip(planes, expected, strict=True):
        np.testing.assert_array_equal(plane, same)


def test_formats_and_alpha_go_together() -> None:
    source = FrameFormat(width=6, height=4)
    with pytest.raises(ValueError, match="no alpha"):
        planes_to_alpha(torch.zeros((1, source.frame_bytes), dtype=torch.uint8), source)
    with pytest.raises(ValueError, match="needs alpha"):
        rgb_to_planes(torch.zeros((1, 3, 20, 24)), SOURCE)
    with pytest.raises(ValueError, match="planar"):
        FrameFormat(width=6, height=4, layout="gray", has_alpha=True)
    assert FrameFormat(width=6, height=4, has_alpha=True).pix_fmt == "yuva420p"
    assert FrameFormat(width=6, height=4, layout="gbr", bit_depth=12, has_alpha=True).pix_fmt == "gbrap12le"
