"""Both networks as fused convolutions beside torch's modules in 32 bits."""

import pytest
import torch

from bench.shapes import random_network
from models.architectures import NearestNeighbour, RRDBNet, SRVGGNetCompact
from models.catalog import ENGINES
from models.loader import load_network
from worker.inference.cuda.fused import can_fuse, fuse
from worker.inference.cuda.layers import LaunchConfig

CONFIG = LaunchConfig(columns=32, rows=4, chunk=64, warps=4, stages=2)


def shallow(network):
    """With weights that 16 bits hold exactly: the arithmetic alone is compared."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, a=0.2)
            torch.nn.init.normal_(module.bias, std=0.1)
    for parameter in network.parameters():
        parameter.data = parameter.data.half().float()
    return network.requires_grad_(False).eval()


@pytest.mark.parametrize(
    ("make", "images", "height", "width"),
    [
        (lambda: SRVGGNetCompact(convolutions=2), 2, 5, 33),
        (lambda: SRVGGNetCompact(convolutions=1), 1, 1, 1),
        (lambda: RRDBNet(blocks=2), 1, 2, 3),
    ],
    ids=["srvgg", "srvgg of a pixel", "rrdbnet"],
)
def test_agrees_with_the_modules(device, make, images, height, width):
    network = shallow(make())
    fused = fuse(network, images=images, height=height, width=width, device=device, configs=[CONFIG])
    generator = torch.Generator().manual_seed(2)
    for _ in range(1 if device.type == "cpu" else 3):  # what one run leaves behind is not to reach the next
        x = torch.rand(images, 3, height, width, generator=generator)
        fused.input.copy_(x)
        fused.run()
        expected = network(x)
        error = (fused.output.cpu() - expected).abs().max()
        assert error <= 2e-3 * expected.abs().max()


@pytest.mark.parametrize("engine_id", ENGINES)
def test_both_engines_can_be_fused(engine_id, weights_directory):
    assert can_fuse(load_network(engine_id, weights_directory=weights_directory))


def test_other_networks_cannot():
    with torch.device("meta"):
        others = [
            NearestNeighbour(),
            RRDBNet(features=32, blocks=1),
            RRDBNet(growth=16, blocks=1),
            SRVGGNetCompact(features=32, convolutions=1),
            SRVGGNetCompact(scale=2, convolutions=1),
        ]
    assert not any(can_fuse(network) for network in others)
    with pytest.raises(ValueError, match="cannot be fused"):
        fuse(others[0], images=1, height=2, width=2, device=torch.device("cpu"))


def test_a_random_network_gives_what_looks_like_a_picture():
    network = random_network("srvgg")
    found = network(torch.rand(1, 3, 16, 16))
    assert 0.1 < found.std() < 1 and found.abs().max() < 10
