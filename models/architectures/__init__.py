"""The networks, as plain `torch.nn.Module`s.

All take N x 3 x H x W (RGB, nominally 0 to 1) and give N x 3 x 4H x 4W in the same range (values may lie
slightly outside). Each layer computes in the dtype of its own parameters; where all are float32, so is
everything.
"""

from torch import nn

from models.architectures.nearest import NearestNeighbour
from models.architectures.rrdbnet import ResidualDenseBlock, RRDBNet
from models.architectures.srvgg import SRVGGNetCompact
from models.catalog import Engine

__all__ = ["NearestNeighbour", "RRDBNet", "ResidualDenseBlock", "SRVGGNetCompact", "build_network"]


def build_network(engine: Engine) -> nn.Module:
    """The engine's network in float32, with weights not yet meaningful."""
    if engine.architecture == "srvgg":
        return SRVGGNetCompact(features=engine.features, convolutions=engine.depth, scale=engine.scale)
    return RRDBNet(features=engine.features, blocks=engine.depth, growth=engine.growth)
