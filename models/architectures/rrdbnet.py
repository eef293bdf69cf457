"""RRDBNet: residual-in-residual dense blocks, then two nearest-neighbour doublings with convolutions.

Source: X. Wang et al., ESRGAN (ECCV workshops 2018), section 3.1, without batch normalisation and with
residual scaling 0.2, as Real-ESRGAN uses it. Parameter names are those of the official checkpoints:
`conv_first`, `body.N.rdb1.conv1` to `body.N.rdb3.conv5`, `conv_body`, `conv_up1`, `conv_up2`, `conv_hr`,
`conv_last`. They are registered in the order in which the network computes, on which reading ncnn's files
relies.
"""

import torch
import torch.nn.functional as F
from torch import nn

_SLOPE = 0.2
_RESIDUAL_SCALE = 0.2


def _activate(x: torch.Tensor) -> torch.Tensor:
    return F.leaky_relu(x, _SLOPE, inplace=True)


def _double(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def _convolve(convolution: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """In the dtype of the convolution's own parameters."""
    return convolution(x.to(convolution.weight.dtype))


class ResidualDenseBlock(nn.Module):
    """Five 3x3 convolutions, each of which sees the block's input and every output before it.

    They compute in the dtype of the block's parameters; the sum with the input keeps the wider of the two
    dtypes.
    """

    def __init__(self, *, features: int = 64, growth: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, growth, 3, padding=1)
        self.conv2 = nn.Conv2d(features + growth, growth, 3, padding=1)
        self.conv3 = nn.Conv2d(features + 2 * growth, growth, 3, padding=1)
        self.conv4 = nn.Conv2d(features + 3 * growth, growth, 3, padding=1)
        self.conv5 = nn.Conv2d(features + 4 * growth, features, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """N x features x H x W -> the same shape."""
        dense = x.to(self.conv1.weight.dtype)
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            dense = torch.cat((dense, _activate(convolution(dense))), dim=1)
        return torch.add(x, self.conv5(dense), alpha=_RESIDUAL_SCALE)


class ResidualInResidualDenseBlock(nn.Module):
    """Three dense blocks and a residual around them."""

    def __init__(self, *, features: int = 64, growth: int = 32) -> None:
        super().__init__()
        self.rdb1 = ResidualDenseBlock(features=features, growth=growth)
        self.rdb2 = ResidualDenseBlock(features=features, growth=growth)
        self.rdb3 = ResidualDenseBlock(features=features, growth=growth)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """N x features x H x W -> the same shape."""
        return torch.add(x, self.rdb3(self.rdb2(self.rdb1(x))), alpha=_RESIDUAL_SCALE)


class RRDBNet(nn.Module):
    """The network of RealESRGAN_x4plus, for scale 4."""

    def __init__(self, *, features: int = 64, blocks: int = 23, growth: int = 32) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(3, features, 3, padding=1)
        self.body = nn.Sequential(
            *(ResidualInResidualDenseBlock(features=features, growth=growth) for _ in range(blocks))
        )
        self.conv_body = nn.Conv2d(features, features, 3, padding=1)
        self.conv_up1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_up2 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
        self.conv_last = nn.Conv2d(features, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """N x 3 x H x W -> N x 3 x 4H x 4W, in the dtype of `x`."""
        shallow = _convolve(self.conv_first, x)
        features = shallow + _convolve(self.conv_body, self.body(shallow))
        features = _activate(_convolve(self.conv_up1, _double(features)))
        features = _activate(_convolve(self.conv_up2, _double(features)))
        features = _activate(_convolve(self.conv_hr, features))
        return _convolve(self.conv_last, features).to(x.dtype)
