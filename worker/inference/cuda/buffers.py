"""Feature maps in preallocated memory, in a layout that the kernels read without masks."""

from dataclasses import dataclass, replace

import torch

# How far a program may read beyond the last pixel, or more.
MAX_TILE_ROWS, MAX_TILE_COLUMNS = 8, 256


@dataclass(frozen=True, kw_only=True)
class FeatureMap:
    """images x (height + 2) x (width + 2) x stride values, channels last, and slack behind them.

    The border of one pixel is the convolutions' zero padding and is never written. `begin` is the first channel of this
    view; views made by `channels` share the memory.
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
        """Returns a map of zeros in 16-bit floats. Raises torch's error if memory runs out."""
        pixels = images * (height + 2) * (width + 2) + MAX_TILE_ROWS * (width + 2) + MAX_TILE_COLUMNS
        values = torch.zeros(pixels * channels, dtype=torch.float16, device=device)
        return cls(values=values, images=images, height=height, width=width, stride=channels)

    def channels(self, begin: int) -> "FeatureMap":
        """Returns a view of the map from that channel on."""
        return replace(self, begin=begin)

    @property
    def pointer(self) -> torch.Tensor:
        """The kernel's argument: 1-D, from the first channel of this view."""
        return self.values[self.begin :]

    def interior(self, channels: int) -> torch.Tensor:
        """Returns a view of images x channels x height x width: writing to it fills the map."""
        pixels = self.images * (self.height + 2) * (self.width + 2)
        whole = self.values[: pixels * self.stride].view(
            self.images, self.height + 2, self.width + 2, self.stride
        )
        part = whole[:, 1:-1, 1:-1, self.begin : self.begin + channels]
        return part.permute(0, 3, 1, 2)
