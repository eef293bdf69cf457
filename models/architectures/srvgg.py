"""SRVGGNetCompact: a plain stack of 3x3 convolutions at the input's resolution.

Source: X. Wang et al., Real-ESRGAN (ICCV workshops 2021) and its repository's model page. Parameter names are
those of the official checkpoints: `body.0` is the first convolution, `body.1` its PReLU, and so on; the last
of `body` gives 3 * scale**2 channels that a pixel shuffle lays out. The network predicts what is missing from
the input enlarged by nearest neighbour.
"""

import torch
import torch.nn.functional as F
from torch import nn


class SRVGGNetCompact(nn.Module):
    """`convolutions` hidden 3x3 convolutions of `features` channels, each followed by a PReLU with a slope a
    channel.
    """

    def __init__(self, *, features: int = 64, convolutions: int = 16, scale: int = 4) -> None:
        super().__init__()
        self.scale = scale
        self.body = nn.ModuleList()
        channels = 3
        for _ in range(convolutions + 1):
            self.body.append(nn.Conv2d(channels, features, 3, padding=1))
            self.body.append(nn.PReLU(features))
            channels = features
        self.body.append(nn.Conv2d(features, 3 * scale**2, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """N x 3 x H x W -> N x 3 x scale*H x scale*W, in the dtype of `x`."""
        features = x
        for layer in self.body:
            features = layer(features.to(next(layer.parameters()).dtype))
        # The enlarged input carries most of the picture: it stays in the precision it came in.
        enlarged = F.interpolate(x, scale_factor=self.scale, mode="nearest")
        return F.pixel_shuffle(features, self.scale).to(x.dtype) + enlarged
