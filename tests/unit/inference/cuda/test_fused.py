"""Both networks by Winograd beside torch's modules in 32 bits."""

import numpy as np
import pytest
import torch

from bench.clips import FILM, LARGE_CARTOON, PHOTOGRAPHS, read_picture
from bench.shapes import random_network
from models.architectures import NearestNeighbour, RRDBNet, SRVGGNetCompact
from models.catalog import ENGINES
from models.loader import load_network
from worker.inference.cuda import layers
from worker.inference.cuda.fused import FusedNetwork, can_fuse
from worker.inference.cuda.runtime import psnr
from worker.inference.precision import place_network


@pytest.fixture(autouse=True)
def whole_chunks(monkeypatch):
    """The interpreter takes as long for a few channels as for many."""
    monkeypatch.setattr(layers, "CHUNK", 64)


def fused(network, device, *, images, height, width):
    modules = place_network(network, device=device, precision="fp16")
    return FusedNetwork(network, modules, images=images, height=height, width=width)


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
    found_by = fused(network, device, images=images, height=height, width=width)
    generator = torch.Generator().manual_seed(2)
    for count in (images,) if device.type == "cpu" else (images, 1, images):
        # What one run leaves behind is not to reach the next.
        x = torch.rand(count, 3, height, width, generator=generator)
        found, expected = found_by(x.to(device)).cpu(), network(x)
        assert found.dtype == torch.float32 and found.shape == expected.shape
        assert (found - expected).abs().max() <= 8e-3 * expected.abs().max()


def test_fewer_images_than_it_was_made_for(device):
    network = shallow(SRVGGNetCompact(convolutions=1))
    found_by = fused(network, device, images=2, height=3, width=4)
    x = torch.rand(2, 3, 3, 4, generator=torch.Generator().manual_seed(2)).to(device)
    both = found_by(x)
    assert torch.allclose(found_by(x[1:]), both[1:], atol=2e-3)


def test_winograd_keeps_the_precision_with_real_weights_and_frames(device, weights_directory):
    network = load_network("regen-4x-lite", weights_directory=weights_directory)
    clips = ((PHOTOGRAPHS, 30), (FILM, 20), (LARGE_CARTOON, 40))
    frames = np.stack([read_picture(clip, index, size=(128, 4)) for clip, index in clips])
    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    expected = network(pictures).clamp(0, 1)
    found = fused(network, device, images=3, height=4, width=128)(pictures.to(device)).cpu().clamp(0, 1)
    # What is seldom seen is 50 dB; plain 16 bits have 78 here.
    assert min(psnr(one, other) for one, other in zip(found, expected, strict=True)) >= 70


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
        ]
    assert not any(can_fuse(network) for network in others)
    with pytest.raises(ValueError, match="cannot be fused"):
        FusedNetwork(others[0], others[0], images=1, height=2, width=2)


def test_a_random_network_gives_what_looks_like_a_picture():
    network = random_network("srvgg")
    found = network(torch.rand(1, 3, 16, 16))
    assert 0.1 < found.std() < 1 and found.abs().max() < 10
