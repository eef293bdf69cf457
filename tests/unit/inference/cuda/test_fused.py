"""Both networks as fused convolutions beside torch's modules in 32 bits."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.clips import FILM, LARGE_CARTOON, PHOTOGRAPHS, read_picture
from bench.shapes import random_network
from models.architectures import NearestNeighbour, RRDBNet, SRVGGNetCompact
from models.catalog import ENGINES
from models.loader import load_network
from worker.inference.cuda import layers
from worker.inference.cuda.fused import can_fuse, fuse
from worker.inference.cuda.runtime import psnr


@pytest.fixture(autouse=True)
def whole_chunks(monkeypatch):
    """The interpreter takes as long for a few channels as for many."""
    for name in ("DIRECT", "WINOGRAD"):
        monkeypatch.setattr(layers, name, replace(getattr(layers, name), chunk=64))


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


@pytest.mark.parametrize("winograd", [False, True], ids=["direct", "winograd"])
@pytest.mark.parametrize(
    ("make", "images", "height", "width"),
    [
        (lambda: SRVGGNetCompact(convolutions=2), 2, 5, 33),
        (lambda: SRVGGNetCompact(convolutions=1), 1, 1, 1),
        (lambda: RRDBNet(blocks=2), 1, 2, 3),
    ],
    ids=["srvgg", "srvgg of a pixel", "rrdbnet"],
)
def test_agrees_with_the_modules(device, make, images, height, width, winograd):
    network = shallow(make())
    fused = fuse(network, images=images, height=height, width=width, device=device, winograd=winograd)
    generator = torch.Generator().manual_seed(2)
    for _ in range(1 if device.type == "cpu" else 3):  # what one run leaves behind is not to reach the next
        x = torch.rand(images, 3, height, width, generator=generator)
        fused.input.copy_(x)
        fused.run()
        expected = network(x)
        error = (fused.output.cpu() - expected).abs().max()
        assert error <= (8e-3 if winograd else 2e-3) * expected.abs().max()


def test_winograd_keeps_the_precision_with_real_weights_and_frames(device, weights_directory):
    network = load_network("regen-4x-lite", weights_directory=weights_directory)
    clips = ((PHOTOGRAPHS, 30), (FILM, 20), (LARGE_CARTOON, 40))
    frames = np.stack([read_picture(clip, index, size=(64, 8)) for clip, index in clips])
    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    fused = fuse(network, images=3, height=8, width=64, device=device, winograd=True)
    fused.input.copy_(pictures)
    fused.run()
    expected = network(pictures).clamp(0, 1)
    found = fused.output.cpu().clamp(0, 1)
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
            SRVGGNetCompact(scale=2, convolutions=1),
        ]
    assert not any(can_fuse(network) for network in others)
    with pytest.raises(ValueError, match="cannot be fused"):
        fuse(others[0], images=1, height=2, width=2, device=torch.device("cpu"))


def test_a_random_network_gives_what_looks_like_a_picture():
    network = random_network("srvgg")
    found = network(torch.rand(1, 3, 16, 16))
    assert 0.1 < found.std() < 1 and found.abs().max() < 10
