"""A network that is ready to run on a device."""

from collections.abc import Callable

import torch


def _keep_nothing() -> None:
    """Releases nothing: torch's modules hold no memory beside their weights."""


class Runtime:
    """Takes N x 3 x H x W (RGB, 0 to 1) and gives N x 3 x 4H x 4W; the next call may overwrite the result.

    `network` computes. `memory_format` is the layout of the pictures that it reads. `reach_pixels` is the largest
    distance at which an input pixel affects a result, even if only its last bit. `release` frees what the network
    holds on the device beside its weights, after memory ran out.
    """

    def __init__(
        self,
        network: Callable[[torch.Tensor], torch.Tensor],
        *,
        memory_format: torch.memory_format,
        reach_pixels: int,
        release: Callable[[], None] = _keep_nothing,
    ) -> None:
        self.network = network
        self.memory_format = memory_format
        self.reach_pixels = reach_pixels
        self.release = release

    def __call__(self, rgb: torch.Tensor) -> torch.Tensor:
        return self.network(rgb)
