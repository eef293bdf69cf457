"""A stand-in without weights: it exercises everything around the networks fast and exactly."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from models.architectures.network import NetworkProperties, UpscalingNetwork


class NearestNeighbour(UpscalingNetwork):
    """Repeats every pixel `scale` times in both directions, exactly, in the dtype of its input."""

    architecture = "nearest"

    def __init__(self, *, scale: int = 4) -> None:
        super().__init__()
        self.scale = scale

    @property
    def dimensions(self) -> Mapping[str, int]:
        return {"scale": self.scale}

    @property
    def properties(self) -> NetworkProperties:
        """Figures of the engines' networks, so that batches, tiles and time limits are planned as for those.

        The work per pixel is that of regen-4x-lite.
        """
        return NetworkProperties(
            architecture=self.architecture,
            scale=self.scale,
            parameters=0,
            mflop_per_input_pixel=1.238,
            receptive_radius=18,
            tile_overlap=18,
            activation_bytes_per_input_pixel=850,
            widest_tensor_values_per_input_pixel=64,
            reduced_precision="bf16",
            least_decibels=60,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """N x 3 x H x W -> N x 3 x scale*H x scale*W, same dtype."""
        return F.interpolate(x, scale_factor=self.scale, mode="nearest")
