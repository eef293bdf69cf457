"""The shapes of the engines' networks, for machines without their weights."""

import torch

from models.architectures import ARCHITECTURES, NetworkProperties, UpscalingNetwork
from models.catalog import Engine
from worker.inference.cuda.trial import random_network

# Of the architecture's own default dimensions.
ARCHITECTURE_OF = {"regen-4x-lite": "srvgg", "regen-4x": "rrdbnet"}


def network_without_weights(engine: Engine) -> UpscalingNetwork:
    """The engine's network with random weights."""
    return random_network(ARCHITECTURE_OF[engine.id])


def properties_of(engine: Engine) -> NetworkProperties:
    with torch.device("meta"):
        return ARCHITECTURES[ARCHITECTURE_OF[engine.id]]().properties
