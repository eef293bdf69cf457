"""SRVGGNetCompact: a plain stack of 3x3 convolutions at the input's resolution.

Source: X. Wang et al., Real-ESRGAN (ICCV workshops 2021) and its repository's model page. Parameter names are
those of the official checkpoints: `body.0` is the first convolution, `body.1` its PReLU, and so on; the last
of `body` has 3 * scale**2 output channels for a pixel shuffle. The network predicts the difference from the
input enlarged by nearest neighbour.
"""

import math
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

# Measured on a CPU with 64 features: peak memory of one fp32 forward pass in bytes per input pixel.
_ACTIVATION_BYTES_PER_FEATURE = 850 / 64


class SRVGGNetCompact(UpscalingNetwork):
    """`convolutions` hidden 3x3 convolutions of `features` channels after a first one, each followed by a PReLU with
    one slope per channel.
    """

    architecture = "srvgg"

    def __init__(self, *, features: int = 64, convolutions: int = 16, scale: int = 4) -> None:
        super().__init__()
        self.scale = scale
        self._features, self._convolutions = features, convolutions
        self.body = nn.ModuleList()
        channels = 3
        for _ in range(convolutions + 1):
            self.body.append(nn.Conv2d(channels, features, 3, padding=1))
            self.body.append(nn.PReLU(features))
            channels = features
        self.body.append(nn.Conv2d(features, 3 * scale**2, 3, padding=1))

    @property
    def dimensions(self) -> Mapping[str, int]:
        return {"features": self._features, "convolutions": self._convolutions, "scale": self.scale}

    @property
    def properties(self) -> NetworkProperties:
        convolutions = [layer for layer in self.body if isinstance(layer, nn.Conv2d)]
        radius = len(convolutions)
        return NetworkProperties(
            architecture=self.architecture,
            scale=self.scale,
            parameters=count_parameters(self),
            mflop_per_input_pixel=2e-6 * sum(layer.weight.numel() for layer in convolutions),
            receptive_radius=radius,
            tile_overlap=radius,
            activation_bytes_per_input_pixel=round(_ACTIVATION_BYTES_PER_FEATURE * self._features),
            widest_tensor_values_per_input_pixel=max(self._features, 3 * self.scale**2),
            exact_precisions=self.exact_precisions,
            reduced_precision="bf16",
            least_decibels=60,
        )

    def layers_in_bf16(self, precision: ReducedPrecision) -> Sequence[nn.Module]:
        # The first convolution and its PReLU keep 32 bits; in mixed the last convolution does too.
        layers = list(self.body)
        return layers[2:] if precision == "bf16" else layers[2:-1]

    @classmethod
    def dimensions_of_state(cls, shapes: Shapes) -> Mapping[str, int] | None:
        convolutions = [
            (shape[0], shape[1])
            for index in range(len(shapes))
            if len(shape := shapes.get(f"body.{2 * index}.weight", ())) == 4
        ]
        return cls.dimensions_of_layers(convolutions, prelus=len(convolutions) - 1)

    @classmethod
    def dimensions_of_layers(
        cls, convolutions: Sequence[tuple[int, int]], prelus: int
    ) -> Mapping[str, int] | None:
        if len(convolutions) < 2 or prelus != len(convolutions) - 1:
            return None
        scale = math.isqrt(convolutions[-1][0] // 3)
        return {"features": convolutions[0][0], "convolutions": len(convolutions) - 2, "scale": scale}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """N x 3 x H x W -> N x 3 x scale*H x scale*W, in the dtype of `x`."""
        return self.enlarge(_run(list(self.body)[2:-1], self.shallow(x)), x)

    def shallow(self, x: torch.Tensor) -> torch.Tensor:
        """What the first convolution and its PReLU make of the input."""
        return _run(list(self.body)[:2], x)

    def enlarge(self, features: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """N x features x H x W of the hidden convolutions -> N x 3 x scale*H x scale*W, in the dtype of `x`."""
        features = _run([self.body[-1]], features)
        # The enlarged input carries most of the picture: it keeps the precision of the input.
        enlarged = F.interpolate(x, scale_factor=self.scale, mode="nearest")
        return F.pixel_shuffle(features, self.scale).to(x.dtype) + enlarged


def _run(layers: Sequence[nn.Module], features: torch.Tensor) -> torch.Tensor:
    """Each in the dtype of its own parameters."""
    for layer in layers:
        features = layer(features.to(next(layer.parameters()).dtype))
    return features
