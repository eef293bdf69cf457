"""Grain, put back after the network: as much noise as a frame has, drawn from the frame's own bytes.

Measuring: the median of the absolute response to the mask [1 -2 1] x [1 -2 1], which neither gradients nor edges along
its axes excite (Immerkaer, "Fast noise variance estimation", 1996), over 0.6745, as is robust against detail (Donoho
and Johnstone, "Ideal spatial adaptation by wavelet shrinkage", 1994); the mask's norm is 6. What the rounding of the
samples adds, 1/12 of a code squared, is subtracted. Black and white, where noise is clipped, are not counted.

Making: a piece of a fixed field of Gaussian numbers from a pseudo-random place, as in Norkin and Birkbeck, "Film grain
synthesis for AV1 video codec", 2018; one number for each pixel of the input, enlarged as `mixing` does. So frames
depend on nothing but themselves, and equal frames have equal grain.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from worker.inference.frames import Frame, FrameFormat
from worker.inference.mixing import enlarge_plainly

# The quartile of the normal distribution, and the norm of the mask.
_MEDIAN_TO_SIGMA = 1 / (0.6745 * 6)
_ROUNDING_VARIANCE = 1 / 12
# Rounded gradients measure up to this.
_LEAST_CODES = 0.5
# With fewer samples between black and white there is no noise to be seen.
_LEAST_SHARE = 1 / 64
_SIDE = 1024
# So many times its level from black and white grain begins to fade, so that little of it is clipped.
_ROOM = 2.0


@dataclass(frozen=True, kw_only=True)
class FrameNoise:
    """`level`: the standard deviation of a frame's noise, where the distance of black and white is 1. `row`, `column`:
    of the field of numbers, for the frame's first pixel."""

    level: float
    row: int
    column: int

    def of_part(self, *, x: int, y: int) -> "FrameNoise":
        """The noise of a part of the frame that begins at that pixel."""
        return replace(self, row=self.row + y, column=self.column + x)


def measure_noise(frame: Frame, source: FrameFormat) -> FrameNoise:
    """frame: 1-D uint8 of `source.frame_bytes`. Of RGB green is measured, and what is visible alone."""
    seed = zlib.crc32(frame.data)
    step = 2 ** (source.bit_depth - 8)
    full = source.full_range or source.layout == "gbr"
    black, white = (0, source.max_code) if full else (16 * step, 235 * step)
    luma, *others = source.split(frame)
    if source.has_alpha:
        luma = np.where(others[2] > 0, luma, black)
    codes = _noise_in_codes(luma.astype(np.int32), black + step, white - step)
    return FrameNoise(level=codes / (white - black), row=seed % _SIDE, column=(seed // _SIDE) % _SIDE)


def _noise_in_codes(luma: NDArray[np.int32], above: int, below: int) -> float:
    """The standard deviation of the noise between these two codes; 0 for fewer than three rows or columns."""
    if min(luma.shape) < 3:
        return 0.0
    response = np.abs(np.diff(np.diff(luma, 2, axis=0), 2, axis=1))
    inner = luma[1:-1, 1:-1]
    counted = response[(inner > above) & (inner < below)]
    if counted.size < _LEAST_SHARE * response.size or counted.size == 0:
        return 0.0
    sigma = _grouped_median(np.bincount(counted)) * _MEDIAN_TO_SIGMA
    found = float(np.sqrt(max(0.0, sigma**2 - _ROUNDING_VARIANCE)))
    return found if found >= _LEAST_CODES else 0.0


def _grouped_median(counts: NDArray[np.intp]) -> float:
    """The median of absolute values that were rounded to integers, from how often each occurs: 0 if most are 0."""
    until = np.cumsum(counts)
    half = until[-1] / 2
    at = int(np.searchsorted(until, half))
    return at - 0.5 + float(half - until[at - 1]) / float(counts[at]) if at else 0.0


def add_grain(
    enlarged: torch.Tensor, noise: Sequence[FrameNoise], *, grain: float, scale: int
) -> torch.Tensor:
    """N x 3 x scale*H x scale*W floats with `grain` times the noise of each frame: float32.

    Reduced by `scale`, by averaging, the grain has that level. Alike in red, green and blue, it is of luma alone.
    """
    rows, columns = enlarged.shape[2] // scale, enlarged.shape[3] // scale
    device = enlarged.device
    field = _field().to(device)
    levels = torch.tensor([one.level * grain for one in noise], device=device).view(-1, 1, 1, 1)
    drawn = torch.stack(
        [
            field[_places(one.row, rows, device)][:, _places(one.column, columns, device)][None]
            for one in noise
        ]
    )
    grains = enlarge_plainly(drawn, scale=scale).mul_(levels / _remaining_level(scale))
    enlarged = enlarged.to(torch.float32)
    brightness = enlarged.mean(dim=1, keepdim=True)
    room = torch.minimum(brightness, 1 - brightness).div_((_ROOM * levels).clamp_min(1e-9)).clamp_(0, 1)
    return enlarged + grains.mul_(room)


def _places(first: int, count: int, device: torch.device) -> torch.Tensor:
    return (torch.arange(count, device=device) + first) % _SIDE


@cache
def _field() -> torch.Tensor:
    # The legacy generator, whose numbers no version of numpy changes.
    return torch.from_numpy(np.random.RandomState(1).standard_normal((_SIDE, _SIDE)).astype(np.float32))


@cache
def _remaining_level(scale: int) -> float:
    """The standard deviation of enlarged white noise after its reduction by averaging; 1 before."""
    impulse = torch.zeros((1, 1, 9, 9))
    impulse[0, 0, 4, 4] = 1
    reduced = torch.nn.functional.avg_pool2d(enlarge_plainly(impulse, scale=scale), scale)
    return float(reduced.square().sum().sqrt())
