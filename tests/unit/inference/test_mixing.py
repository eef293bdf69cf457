"""A network's picture mixed with a plain enlargement."""

import cv2
import numpy as np
import pytest
import torch

from models.architectures.nearest import NearestNeighbour
from models.catalog import ENGINES
from worker.inference.colour import planes_to_rgb, rgb_to_planes
from worker.inference.devices.cpu import CpuDevice
from worker.inference.frames import FrameFormat
from worker.inference.mixing import PictureOptions, enlarge_plainly
from worker.inference.reduction import AreaReduction
from worker.inference.upscaler import Upscaler

SOURCE = FrameFormat(width=49, height=33)


def test_the_plain_enlargement_is_that_of_opencv() -> None:
    rgb = torch.rand((1, 3, 9, 14), generator=torch.manual_seed(1))
    enlarged = enlarge_plainly(rgb, scale=4)[0].permute(1, 2, 0).numpy()
    expected = cv2.resize(rgb[0].permute(1, 2, 0).numpy(), (56, 36), interpolation=cv2.INTER_CUBIC)
    assert np.abs(enlarged - expected).max() < 1e-5


@pytest.mark.parametrize("target", [SOURCE.enlarged(4), FrameFormat(width=50, height=34, bit_depth=10)])
@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("tile_pixels", [None, 16 * 16])
def test_the_mixture(target: FrameFormat, strength: float, tile_pixels: int | None) -> None:
    upscaler = Upscaler(
        NearestNeighbour(scale=4),
        engine=ENGINES["regen-4x-lite"],
        source=SOURCE,
        target=target,
        device=CpuDevice(),
        precision="fp32",
        tile_pixels=tile_pixels,
        picture=PictureOptions(strength=strength),
    )
    random = np.random.default_rng(3)
    frames = [random.integers(16, 236, SOURCE.frame_bytes, dtype=np.uint8) for _ in range(2)]
    # Changed in places, then not at all.
    frames += [frames[-1].copy(), frames[-1].copy()]
    frames[-1][:9] ^= 1
    frames += [frames[-1].copy()]
    reduction = AreaReduction(width=196, height=132, target_width=target.width, target_height=target.height)
    for frame, result in zip(frames, upscaler.upscale(frames), strict=True):
        rgb = planes_to_rgb(torch.from_numpy(frame[None].copy()), SOURCE)
        network = rgb.double().repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
        plain = enlarge_plainly(rgb, scale=4).double()
        mixed = reduction((strength * network + (1 - strength) * plain).float())
        expected = rgb_to_planes(mixed, target)[0].numpy()
        if strength == 1:
            assert np.array_equal(result, expected)
        # Where two sums round differently a sample may.
        difference = [
            np.abs(one.astype(int) - other).max()
            for one, other in zip(target.split(result), target.split(expected), strict=True)
        ]
        assert max(difference) <= 1
