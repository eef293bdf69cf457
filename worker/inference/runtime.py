"""How a network is run on a device: as torch's modules, or by what is faster there and as right.

What takes the place of the modules takes and gives the same: N x 3 x H x W (RGB, 0 to 1) -> N x 3 x 4H x 4W.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import nn

from models.catalog import Engine
from worker.inference.precision import Precision, place_network

Network: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


def make_runtime(
    network: nn.Module, *, engine: Engine, device: torch.device, precision: Precision
) -> Network:
    """The network ready to run there; `network` is only read."""
    return place_network(network, device=device, precision=precision)
