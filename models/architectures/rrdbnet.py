"""RRDBNet: residual-in-residual dense blocks, then two nearest-neighbour doublings with convolutions.

Source: X. Wang et al., ESRGAN (ECCV workshops 2018), section 3.1, without batch normalisation and with
residual scaling 0.2, as Real-ESRGAN uses it. Parameter names are those of the official checkpoints:
`conv_first`, `body.N.rdb1.conv1` to `body.N.rdb3.conv5`, `conv_body`, `conv_up1`, `conv_up2`, `conv_hr`,
`conv_last`. They are registered in computing order, which reading ncnn's files relies on.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from models.architectures.network import (
    NetworkProperties,
    ReducedPrecision,
    Shapes,
    UpscalingNetwork,
    count_parameters,
)

SLOPE = 0.2
RESIDUAL_SCALE = 0.2

# The receptive field would make most of a tile overlap, and its outer part has almost no influence. With 96 pixels no
# value was further than a twentieth of an 8-bit code from the untiled result in any frame measured (with 64 pixels:
# nearly a whole code; with 48: seven, along the seams).
_MAX_TILE_OVERLAP = 96
# Measured on a CPU with 64 features: peak memory of one fp32 forward pass in bytes per input pixel.
_ACTIVATION_BYTES_PER_FEATURE = 10_000 / 64
# Convolutions after the doublings, and the output pixels that each computes per input pixel.
_PIXELS_PER_INPUT_PIXEL = {"conv_up1": 4, "conv_up2": 16, "conv_hr": 16, "conv_last": 16}
# The convolutions after the doublings reach two input pixels beyond those of the body.
_UPSAMPLING_RADIUS = 2
_CONVOLUTIONS_PER_BLOCK = 15
_CONVOLUTIONS_OUTSIDE_BLOCKS = 6


def _activate(x: torch.Tensor) -> torch.Tensor:
    return F.leaky_relu(x, SLOPE, inplace=True)


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
        return torch.add(x, self.conv5(dense), alpha=RESIDUAL_SCALE)


class ResidualInResidualDenseBlock(nn.Module):
    """Three dense blocks and a residual around them."""

    def __init__(self, *, features: int = 64, growth: int = 32) -> None:
        super().__init__()
        self.rdb1 = ResidualDenseBlock(features=features, growth=growth)
        self.rdb2 = ResidualDenseBlock(features=features, growth=growth)
        self.rdb3 = ResidualDenseBlock(features=features, growth=growth)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """N x features x H x W -> the same shape."""
        return torch.add(x, self.rdb3(self.rdb2(self.rdb1(x))), alpha=RESIDUAL_SCALE)


class RRDBNet(UpscalingNetwork):
    """The network of RealESRGAN_x4plus, for scale 4."""

    architecture = "rrdbnet"
    scale = 4

    def __init__(self, *, features: int = 64, blocks: int = 23, growth: int = 32) -> None:
        super().__init__()
        self._features, self._blocks, self._growth = features, blocks, growth
        self.conv_first = nn.Conv2d(3, features, 3, padding=1)
        self.body = nn.Sequential(
            *(ResidualInResidualDenseBlock(features=features, growth=growth) for _ in range(blocks))
        )
        self.conv_body = nn.Conv2d(features, features, 3, padding=1)
        self.conv_up1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_up2 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
        self.conv_last = nn.Conv2d(features, 3, 3, padding=1)

    @property
    def dimensions(self) -> Mapping[str, int]:
        return {"features": self._features, "blocks": self._blocks, "growth": self._growth}

    @property
    def properties(self) -> NetworkProperties:
        # The first convolution, those of the blocks, the one after them, and the upsampling.
        radius = 1 + _CONVOLUTIONS_PER_BLOCK * self._blocks + 1 + _UPSAMPLING_RADIUS
        mflop = sum(
            2e-6 * module.weight.numel() * _PIXELS_PER_INPUT_PIXEL.get(name, 1)
            for name, module in self.named_modules()
            if isinstance(module, nn.Conv2d)
        )
        return NetworkProperties(
            architecture=self.architecture,
            scale=self.scale,
            parameters=count_parameters(self),
            mflop_per_input_pixel=mflop,
            receptive_radius=radius,
            tile_overlap=min(radius, _MAX_TILE_OVERLAP),
            activation_bytes_per_input_pixel=round(_ACTIVATION_BYTES_PER_FEATURE * self._features),
            widest_tensor_values_per_input_pixel=self._features * self.scale**2,
            exact_precisions=self.exact_precisions,
            reduced_precision="mixed",
            least_decibels=55,
            has_fp32_peak_in_bf16=True,
        )

    def layers_in_bf16(self, precision: ReducedPrecision) -> Sequence[nn.Module]:
        dense = [module for module in self.modules() if isinstance(module, ResidualDenseBlock)]
        if precision == "mixed":
            return dense
        return [*dense, self.conv_body, self.conv_up1, self.conv_up2, self.conv_hr]

    @classmethod
    def dimensions_of_state(cls, shapes: Shapes) -> Mapping[str, int] | None:
        first, dense = shapes.get("conv_first.weight", ()), shapes.get("body.0.rdb1.conv1.weight", ())
        if len(first) != 4 or len(dense) != 4:
            return None
        blocks = sum(name.endswith(".rdb1.conv1.weight") for name in shapes)
        return {"features": first[0], "blocks": blocks, "growth": dense[0]}

    @classmethod
    def dimensions_of_layers(
        cls, convolutions: Sequence[tuple[int, int]], prelus: int
    ) -> Mapping[str, int] | None:
        blocks, rest = divmod(len(convolutions) - _CONVOLUTIONS_OUTSIDE_BLOCKS, _CONVOLUTIONS_PER_BLOCK)
        if prelus or blocks < 1 or rest:
            return None
        return {"features": convolutions[0][0], "blocks": blocks, "growth": convolutions[1][0]}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """N x 3 x H x W -> N x 3 x 4H x 4W, in the dtype of `x`."""
        shallow = self.shallow(x)
        return self.enlarge(shallow + _convolve(self.conv_body, self.body(shallow)), x)

    def shallow(self, x: torch.Tensor) -> torch.Tensor:
        """What the first convolution makes of the input."""
        return _convolve(self.conv_first, x)

    def enlarge(self, features: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """N x features x H x W, the sum with `shallow` -> N x 3 x 4H x 4W, in the dtype of `x`."""
        features = _activate(_convolve(self.conv_up1, _double(features)))
        features = _activate(_convolve(self.conv_up2, _double(features)))
        features = _activate(_convolve(self.conv_hr, features))
        return _convolve(self.conv_last, features).to(x.dtype)
