"""A network that is ready to run on a device."""

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(kw_only=True)
class Runtime:
    """Takes N x 3 x H x W (RGB, 0 to 1) and gives N x 3 x 4H x 4W; the next call may overwrite the result.

    `network` computes. `memory_format` is the layout of the pictures that it reads. `reach_pixels` is the largest
    distance at which an input pixel affects a result, even if only its last bit. `release` frees what the network
    holds on the device beside its weights, after memory ran out; torch's modules hold nothing.
    """

    network: Callable[[torch.Tensor], torch.Tensor]
    memory_format: torch.memory_format
    reach_pixels: int
    release: Callable[[], None] = lambda: None

    def __call__(self, rgb: torch.Tensor) -> torch.Tensor:
        return self.network(rgb)
