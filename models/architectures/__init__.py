"""The networks, as `torch.nn.Module`s.

All take N x 3 x H x W (RGB, nominally 0 to 1) and give N x 3 x scale*H x scale*W in the same range (values may be
slightly outside). Each layer computes in the dtype of its own parameters; where all are float32, so is everything.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import torch

from models.architectures.nearest import NearestNeighbour
from models.architectures.network import NetworkProperties, Shapes, UpscalingNetwork
from models.architectures.rrdbnet import ResidualDenseBlock, RRDBNet
from models.architectures.srvgg import SRVGGNetCompact

__all__ = [
    "ARCHITECTURES",
    "NearestNeighbour",
    "NetworkProperties",
    "RRDBNet",
    "ResidualDenseBlock",
    "SRVGGNetCompact",
    "UpscalingNetwork",
    "network_for_layers",
    "network_for_state",
]

ARCHITECTURES: Mapping[str, type[UpscalingNetwork]] = MappingProxyType(
    {one.architecture: one for one in (SRVGGNetCompact, RRDBNet, NearestNeighbour)}
)

# An empty tensor's other dimensions may be anything, which the file's size does not bound: torch cannot multiply them.
_LARGEST_DIMENSION = 2**16


def network_for_state(shapes: Shapes) -> UpscalingNetwork | None:
    """Returns the network whose state dict has these names and shapes, on the meta device (no memory, no weights).

    None means that no architecture fits.
    """
    if not _are_possible(size for shape in shapes.values() for size in shape):
        return None
    for architecture in ARCHITECTURES.values():
        dimensions = architecture.dimensions_of_state(shapes)
        if dimensions is not None:
            with torch.device("meta"):
                network = architecture(**dimensions)
            expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
            return network if expected == {name: tuple(shape) for name, shape in shapes.items()} else None
    return None


def network_for_layers(convolutions: Sequence[tuple[int, int]], prelus: int) -> UpscalingNetwork | None:
    """Returns the network of these convolutions (outputs, inputs), in computing order, and so many PReLUs; otherwise
    like `network_for_state`.
    """
    if not _are_possible(size for layer in convolutions for size in layer):
        return None
    for architecture in ARCHITECTURES.values():
        dimensions = architecture.dimensions_of_layers(convolutions, prelus)
        if dimensions is not None:
            with torch.device("meta"):
                return architecture(**dimensions)
    return None


def _are_possible(sizes: Iterable[int]) -> bool:
    return all(0 < size <= _LARGEST_DIMENSION for size in sizes)
