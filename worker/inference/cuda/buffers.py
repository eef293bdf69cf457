"""Feature maps in memory that is allocated once, in the layout that the kernels read without masks."""

from dataclasses import dataclass

import torch

# What tiles may reach over the last pixel's end; no kernel's tile is larger.
MAX_TILE_ROWS, MAX_TILE_COLUMNS = 8, 256


@dataclass(frozen=True, kw_only=True)
class FeatureMap:
    """images x (height + 2) x (width + 2) x stride values, channels next to each other, and slack behind them.

    The border of one pixel is zero, as a convolution's padding is, and nobody writes to it. `begin` is the first
    channel that this view means; the memory is shared with the views that `channels` gives.
    """

    values: torch.Tensor
    images: int
    height: int
    width: int
    stride: int
    begin: int = 0

    @classmethod
    def allocate(
        cls, *, images: int, height: int, width: int, channels: int, device: torch.device
    ) -> "FeatureMap":
        """Zeros, in 16-bit floats. torch's own error where memory runs out."""
        pixels = images * (height + 2) * (width + 2) + MAX_TILE_ROWS * (width + 2) + MAX_TILE_COLUMNS
        values = torch.zeros(pixels * channels, dtype=torch.float16, device=device)
        return cls(values=values, images=images, height=height, width=width, stride=channels)

    def channels(self, begin: int) -> "FeatureMap":
        """The same map from that channel on."""
        return FeatureMap(
            values=self.values,
            images=self.images,
            height=self.height,
            width=self.width,
            stride=self.stride,
            begin=begin,
        )

    @property
    def pointer(self) -> torch.Tensor:
        """What a kernel takes: 1-D, from the first channel that is meant."""
        return self.values[self.begin :]

    def interior(self, channels: int) -> torch.Tensor:
        """images x channels x height x width of it, a view: writing to it fills the map."""
        pixels = self.images * (self.height + 2) * (self.width + 2)
        whole = self.values[: pixels * self.stride].view(
            self.images, self.height + 2, self.width + 2, self.stride
        )
        part = whole[:, 1:-1, 1:-1, self.begin : self.begin + channels]
        return part.permute(0, 3, 1, 2)
