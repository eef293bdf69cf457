"""The reduction to a smaller output is the mean of the area that each pixel covers."""

import numpy as np
import pytest
import torch

from models.architectures.nearest import NearestNeighbour
from models.catalog import ENGINES
from worker.inference.colour import planes_to_rgb, rgb_to_planes
from worker.inference.devices.cpu import CpuDevice
from worker.inference.frames import FrameFormat
from worker.inference.reduction import AreaReduction
from worker.inference.upscaler import Upscaler


@pytest.mark.parametrize("target", [(24, 16), (12, 8), (6, 4), (18, 12), (10, 14), (23, 15), (2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_each_pixel_is_the_mean_of_its_area(target: tuple[int, int], dtype: torch.dtype) -> None:
    rgb = torch.rand((2, 3, 16, 24), generator=torch.manual_seed(1)).to(dtype)
    reduced = AreaReduction(width=24, height=16, target_width=target[0], target_height=target[1])(rgb)
    # Every pixel as often as the target has pixels: then each area is whole.
    fine = rgb.double().numpy().repeat(target[1], axis=2).repeat(target[0], axis=3)
    wanted = fine.reshape(2, 3, target[1], 16, target[0], 24).mean(axis=(3, 5))
    assert np.abs(reduced.double().numpy() - wanted).max() < 1e-6


@pytest.mark.parametrize("scale", [1, 2])
def test_what_was_enlarged_by_repeating_comes_back_exactly(scale: int) -> None:
    rgb = torch.rand((1, 3, 9, 7), generator=torch.manual_seed(2))
    size = {"target_width": 7 * scale, "target_height": 9 * scale}
    reduced = AreaReduction(width=28, height=36, **size)(torch.nn.functional.interpolate(rgb, scale_factor=4))
    assert torch.equal(reduced, torch.nn.functional.interpolate(rgb, scale_factor=scale))


@pytest.mark.parametrize("tile_pixels", [None, 16 * 16])
@pytest.mark.parametrize("size", [(50, 34), (98, 66), (150, 98)])
def test_an_upscaler_reduces_what_its_network_made(size: tuple[int, int], tile_pixels: int | None) -> None:
    source = FrameFormat(width=49, height=33)
    target = FrameFormat(width=size[0], height=size[1], bit_depth=10)
    upscaler = Upscaler(
        NearestNeighbour(scale=4),
        engine=ENGINES["regen-4x-lite"],
        source=source,
        target=target,
        device=CpuDevice(),
        precision="fp32",
        tile_pixels=tile_pixels,
    )
    random = np.random.default_rng(3)
    frames = [random.integers(16, 236, source.frame_bytes, dtype=np.uint8) for _ in range(2)]
    frames.append(frames[-1].copy())
    frames[-1][:9] ^= 1
    reduction = AreaReduction(width=196, height=132, target_width=size[0], target_height=size[1])
    for frame, result in zip(frames, upscaler.upscale(frames), strict=True):
        rgb = planes_to_rgb(torch.from_numpy(frame[None].copy()), source)
        enlarged = torch.nn.functional.interpolate(rgb, scale_factor=4)
        assert np.array_equal(result, rgb_to_planes(reduction(enlarged), target)[0].numpy())
