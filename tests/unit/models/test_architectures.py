"""The networks compared with ncnn running the original files, and with their published figures."""

import importlib.util
import math
from pathlib import Path

import ncnn
import numpy as np
import pytest
import torch

from models.architectures import (
    NearestNeighbour,
    RRDBNet,
    SRVGGNetCompact,
    network_for_layers,
    network_for_state,
)
from models.catalog import ENGINES, get_engine
from models.loader import load_network, read_properties

PUBLISHED_PARAMETERS = {"regen-4x-lite": 621_424, "regen-4x": 16_697_987, "regen-4x-anime": 4_467_779}
MFLOP_PER_INPUT_PIXEL = {"regen-4x-lite": 1.238, "regen-4x": 35.85, "regen-4x-anime": 11.41}


def psnr(a, b):
    error = torch.mean((a.double() - b.double()) ** 2).item()
    return math.inf if error == 0 else -10 * math.log10(error)


def run_ncnn(engine, image):
    spec = importlib.util.find_spec(engine.source.package)
    folder = Path(spec.submodule_search_locations[0]) / "models"
    net = ncnn.Net()
    for option in (
        "use_vulkan_compute",
        "use_fp16_packed",
        "use_fp16_storage",
        "use_fp16_arithmetic",
        "use_bf16_storage",
        "use_winograd_convolution",
        "use_sgemm_convolution",
    ):
        setattr(net.opt, option, False)
    assert net.load_param(str(folder / engine.source.param_file)) == 0
    assert net.load_model(str(folder / engine.source.bin_file)) == 0
    extractor = net.create_extractor()
    pixels = np.ascontiguousarray(image[0].numpy())
    mat = ncnn.Mat(pixels).clone()
    extractor.input("data", mat)
    status, output = extractor.extract("output")
    assert status == 0
    return torch.from_numpy(np.array(output, copy=True))[None]


@pytest.mark.parametrize("engine_id", ENGINES)
def test_fp32_agrees_with_ncnn_on_the_original_files(engine_id, crop, weights_directory):
    network = load_network(engine_id, weights_directory=weights_directory)
    # Larger than a layer's window and cheap: ncnn without its faster convolutions takes seconds for more.
    crop = crop[..., :12, :12]
    with torch.inference_mode():
        ours = network(crop)
    theirs = run_ncnn(get_engine(engine_id), crop)
    assert ours.shape == theirs.shape == (1, 3, 4 * crop.shape[2], 4 * crop.shape[3])
    assert psnr(ours, theirs) >= 100


@pytest.mark.parametrize("engine_id", ENGINES)
def test_parameters_are_as_many_as_published(engine_id, weights_directory):
    network = load_network(engine_id, weights_directory=weights_directory)
    assert sum(parameter.numel() for parameter in network.parameters()) == PUBLISHED_PARAMETERS[engine_id]
    assert network.properties.parameters == PUBLISHED_PARAMETERS[engine_id]


@pytest.mark.parametrize("engine_id", ENGINES)
def test_work_per_pixel_follows_from_the_weights(engine_id, weights_directory):
    """A convolution's weights are used once a pixel of the resolution that it works at."""
    network = load_network(engine_id, weights_directory=weights_directory)
    enlargement = {"conv_up1": 4, "conv_up2": 16, "conv_hr": 16, "conv_last": 16}
    mflop = sum(
        2e-6 * module.weight.numel() * enlargement.get(name, 1)
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Conv2d)
    )
    assert mflop == pytest.approx(MFLOP_PER_INPUT_PIXEL[engine_id], rel=1e-3)
    assert network.properties.mflop_per_input_pixel == pytest.approx(mflop)


def test_parameter_names_are_those_of_the_official_checkpoints(weights_directory):
    lite, full = (
        list(load_network(engine_id, weights_directory=weights_directory).state_dict())
        for engine_id in ("regen-4x-lite", "regen-4x")
    )
    assert lite[:4] == ["body.0.weight", "body.0.bias", "body.1.weight", "body.2.weight"]
    assert lite[-1] == "body.34.bias"
    assert full[:2] == ["conv_first.weight", "conv_first.bias"]
    assert "body.22.rdb3.conv5.weight" in full
    assert [name for name in full if name.startswith("conv_") and name.endswith("weight")] == [
        f"conv_{part}.weight" for part in ("first", "body", "up1", "up2", "hr", "last")
    ]


@pytest.mark.parametrize("engine_id", ENGINES)
def test_a_loaded_network_is_ready_for_inference(engine_id, weights_directory):
    network = load_network(engine_id, weights_directory=weights_directory)
    assert not network.training
    assert all(
        p.dtype == torch.float32 and not p.requires_grad and p.device.type == "cpu"
        for p in network.parameters()
    )


def test_the_stand_in_repeats_every_pixel_and_needs_no_weights(tmp_path):
    network = load_network("regen-4x", weights_directory=tmp_path / "absent", stand_in=True)
    image = torch.rand(2, 3, 5, 7)
    enlarged = network(image)
    assert isinstance(network, NearestNeighbour)
    assert torch.equal(enlarged, image.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3))
    assert list(tmp_path.iterdir()) == []


def test_lite_reaches_exactly_as_far_as_its_radius(weights_directory):
    """A pixel changed at the radius changes the result, one beyond it does not."""
    network = load_network("regen-4x-lite", weights_directory=weights_directory)
    radius = network.properties.receptive_radius
    image = torch.rand(1, 3, 5, 50, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        reference = network(image)[:, :, :, 0:4]
        for distance, changes in ((radius, True), (radius + 1, False)):
            other = image.clone()
            other[:, :, :, distance] = 1 - other[:, :, :, distance]
            other[:, :, :, distance] += 100  # far out of range, so that a faint influence shows
            assert (not torch.equal(network(other)[:, :, :, 0:4], reference)) == changes


@pytest.mark.parametrize("blocks", [1, 2])
def test_rrdbnet_reaches_exactly_as_far_as_its_radius(blocks):
    network = RRDBNet(features=2, blocks=blocks, growth=1).double().requires_grad_(False)
    # Every path adds up, and to nothing without input: the furthest influence is not lost in rounding.
    for name, parameter in network.named_parameters():
        parameter.fill_(float(name.endswith("weight")))
    radius = network.properties.receptive_radius
    image = torch.zeros(1, 3, 1, 2 * radius + 9, dtype=torch.float64)
    changed = image.clone()
    changed[..., radius + 4] = 1
    reached = (network(changed) != network(image)).any(dim=1)[0, 0].nonzero().flatten() // 4
    assert (int(reached.min()), int(reached.max())) == (4, 2 * radius + 4)


@pytest.mark.parametrize(
    "network", [SRVGGNetCompact(features=8, convolutions=3, scale=2), RRDBNet(features=8, blocks=2, growth=4)]
)
def test_dimensions_are_read_from_weights_and_from_layers(network):
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    convolutions = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    layers = [(layer.out_channels, layer.in_channels) for layer in convolutions]
    prelus = sum(isinstance(layer, torch.nn.PReLU) for layer in network.modules())
    for found in (network_for_state(shapes), network_for_layers(layers, prelus)):
        assert type(found) is type(network)
        assert found.dimensions == network.dimensions
    assert network_for_state({**shapes, "more": (1,)}) is None
    assert network_for_state({"body.0.weight": (1,)}) is None


@pytest.mark.parametrize("engine_id", ENGINES)
def test_properties_are_those_of_the_loaded_network(engine_id, weights_directory):
    network = load_network(engine_id, weights_directory=weights_directory)
    assert read_properties(engine_id, weights_directory=weights_directory) == network.properties


@pytest.mark.parametrize("size", [0, 2**62, 2**64 - 1])
def test_impossible_sizes_fit_no_network(size):
    """safetensors allows any size beside a zero, and torch cannot multiply them."""
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in SRVGGNetCompact(features=4, convolutions=1).state_dict().items()
    }
    for name, shape in shapes.items():
        for axis in range(len(shape)):
            changed = [0] * len(shape)
            changed[axis] = size
            assert network_for_state({**shapes, name: tuple(changed)}) is None
