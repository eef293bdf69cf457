"""The shapes of the engines' networks, for machines without their weights."""

import torch
from torch import nn

from models.architectures import ARCHITECTURES, NetworkProperties, UpscalingNetwork
from models.catalog import Engine

# Of the architecture's own default dimensions.
ARCHITECTURE_OF = {"regen-4x-lite": "srvgg", "regen-4x": "rrdbnet"}


def network_without_weights(engine: Engine) -> UpscalingNetwork:
    """The engine's network with random weights."""
    return random_network(ARCHITECTURE_OF[engine.id])


def properties_of(engine: Engine) -> NetworkProperties:
    with torch.device("meta"):
        return ARCHITECTURES[ARCHITECTURE_OF[engine.id]]().properties


def random_network(architecture: str, **dimensions: int) -> UpscalingNetwork:
    """Returns a network with random weights under which activations neither vanish nor overflow."""
    torch.manual_seed(0)
    network = ARCHITECTURES[architecture](**dimensions).requires_grad_(False).eval()
    last: nn.Module = network
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, a=0.2)
            last = module
    # The output should have about the range of a picture.
    spread: list[torch.Tensor] = []
    hook = last.register_forward_hook(lambda _, __, found: spread.append(found.std()))
    network(torch.rand(1, 3, 12, 12))
    hook.remove()
    for parameter in last.parameters():
        parameter.mul_(0.2 / spread[0])
    return network
