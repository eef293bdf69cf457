"""Grain: measured of a frame, and put back as strong."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.architectures.nearest import NearestNeighbour
from models.catalog import ENGINES
from worker.inference.devices.cpu import CpuDevice
from worker.inference.frames import Frame, FrameFormat
from worker.inference.grain import measure_noise
from worker.inference.mixing import PictureOptions
from worker.inference.upscaler import Upscaler

EIGHT = FrameFormat(width=160, height=96)
TEN = FrameFormat(width=160, height=96, bit_depth=10, full_range=True)


def _frame(shape: FrameFormat, *, sigma: float, seed: int = 1) -> tuple[Frame, float]:
    """A gradient with an edge and black bars, and noise of so many codes; and the distance of black and white."""
    random = np.random.default_rng(seed)
    step = 2 ** (shape.bit_depth - 8)
    x, y = np.meshgrid(np.arange(shape.width), np.arange(shape.height))
    luma = step * (60 + 0.4 * x + 0.3 * y + 40 * (x > 70)) + random.normal(0, sigma, x.shape)
    luma[:10] = luma[-10:] = 0 if shape.full_range else 16 * step
    planes: list[NDArray[np.float64]] = [luma]
    planes += [np.full(size, 128.0 * step) for size in shape.plane_shapes[1:]]
    frame = shape.join([plane.round().clip(0, shape.max_code) for plane in planes])
    return frame, shape.max_code if shape.full_range else 219 * step


@pytest.mark.parametrize("shape", [EIGHT, TEN])
@pytest.mark.parametrize("sigma", [0, 1, 3, 8])
def test_the_level_is_that_of_the_noise(shape: FrameFormat, sigma: float) -> None:
    frame, span = _frame(shape, sigma=sigma)
    assert measure_noise(frame, shape).level * span == pytest.approx(sigma, rel=0.1, abs=0.1)


def test_a_frame_without_samples_to_measure_has_no_noise() -> None:
    for shape in (FrameFormat(width=2, height=2), EIGHT):
        assert measure_noise(np.full(shape.frame_bytes, 16, np.uint8), shape).level == 0


@pytest.mark.parametrize("target", [EIGHT.enlarged(4), EIGHT])
def test_it_is_put_back_as_strong_as_it_was(target: FrameFormat) -> None:
    def upscaled(frames: list[Frame], grain: float) -> list[NDArray[np.float64]]:
        upscaler = Upscaler(
            NearestNeighbour(scale=4),
            engine=ENGINES["regen-4x-lite"],
            source=EIGHT,
            target=target,
            device=CpuDevice(),
            precision="fp32",
            picture=PictureOptions(grain=grain),
        )
        return [target.split(frame)[0].astype(np.float64) for frame in upscaler.upscale(frames)]

    frames = [_frame(EIGHT, sigma=4, seed=seed)[0] for seed in (1, 2)]
    plain = upscaled(frames, 0)
    grainy = upscaled([*frames, frames[1]], 1)
    factor = target.height // EIGHT.height
    for grain, level in ((grainy, 4.0), (upscaled(frames, 0.5), 2.0)):
        added = (grain[0] - plain[0])[12 * factor : -12 * factor]
        reduced = torch.nn.functional.avg_pool2d(torch.from_numpy(added)[None, None], factor)
        assert float(reduced.std()) == pytest.approx(level, rel=0.1)
        assert abs(float(reduced.mean())) < 0.2
    # Another of another frame, the same of the same, and none on black.
    assert np.abs((grainy[1] - plain[1]) - (grainy[0] - plain[0])).mean() > 1
    assert np.array_equal(grainy[1], grainy[2])
    assert np.array_equal(grainy[0], upscaled(frames[:1], 1)[0])
    assert np.array_equal(grainy[0][: 8 * factor], plain[0][: 8 * factor])
