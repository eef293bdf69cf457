"""A network's picture mixed with a plain enlargement, on the device of the tensors, in float32.

The plain one is cubic convolution (Keys, "Cubic convolution interpolation for digital image processing", 1981) with
a = -0.75, edges replicated: torch's `bicubic`, which is OpenCV's.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """`strength`, from 0 to 1: how much of the network's picture is shown, mixed with a plain enlargement. `grain`,
    from 0 to 1: how much of the input's noise is added. `is_stabilised`: whether pictures are averaged over time
    (`Upscaler.stabilised`), which takes memory."""

    strength: float = 1.0
    grain: float = 0.0
    is_stabilised: bool = False


AS_IT_IS = PictureOptions()


def enlarge_plainly(rgb: torch.Tensor, *, scale: int) -> torch.Tensor:
    """N x 3 x H x W floats -> N x 3 x scale*H x scale*W float32; values may exceed those of the input."""
    return F.interpolate(
        rgb.to(torch.float32), scale_factor=float(scale), mode="bicubic", align_corners=False
    )


def mix(enlarged: torch.Tensor, rgb: torch.Tensor, *, strength: float, scale: int) -> torch.Tensor:
    """`strength` parts of the network's picture, and the rest of the plainly enlarged input `rgb`."""
    if strength == 1:
        return enlarged
    return enlarge_plainly(rgb, scale=scale).lerp_(enlarged.to(torch.float32), strength)
