"""The convolution kernels beside torch's convolutions in 32 bits."""

import pytest
import torch
import torch.nn.functional as F

from worker.inference.cuda import layers
from worker.inference.cuda.buffers import FeatureMap
from worker.inference.cuda.layers import FusedConvolution, LaunchConfig
from worker.inference.cuda.runtime import psnr

WIDE = LaunchConfig(columns=32, rows=2, chunk=32, warps=4, stages=2)
TALL = LaunchConfig(columns=16, rows=4, chunk=64, warps=4, stages=2)
WINOGRAD = LaunchConfig(columns=64, rows=4, chunk=32, warps=4, stages=1)


def random_map(device, *, images, height, width, stride, channels=None, seed=0):
    """A map and what its first `channels` (all) hold, as float32. The others hold what must not be read."""
    made = FeatureMap.allocate(images=images, height=height, width=width, channels=stride, device=device)
    made.interior(stride).fill_(torch.nan)
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(images, channels or stride, height, width, generator=generator).half()
    made.interior(values.shape[1]).copy_(values)
    return made, values.float().to(device)


def random_weights(outputs, inputs, seed=1):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator) / (3 * inputs**0.5)
    # Exact in 16 bits: the kernel is compared, not rounded weights.
    return weight.half().float(), torch.randn(outputs, generator=generator)


def borders_are_zero(a_map):
    whole = a_map.values[: a_map.images * (a_map.height + 2) * (a_map.width + 2) * a_map.stride]
    whole = whole.view(a_map.images, a_map.height + 2, a_map.width + 2, a_map.stride)
    return not (whole[:, 0].any() or whole[:, -1].any() or whole[:, :, 0].any() or whole[:, :, -1].any())


@pytest.mark.parametrize(
    ("images", "height", "width", "config"),
    [(1, 1, 1, WIDE), (2, 5, 7, WIDE), (1, 4, 33, WIDE), (2, 5, 17, TALL), (1, 8, 16, TALL)],
)
@pytest.mark.parametrize(("inputs", "outputs"), [(3, 64), (64, 64), (96, 32), (64, 48)])
def test_agrees_with_torch(device, images, height, width, config, inputs, outputs):
    channels = 16 if inputs == 3 else inputs
    source, values = random_map(device, images=images, height=height, width=width, stride=channels)
    weight, bias = random_weights(outputs, inputs)
    layer = FusedConvolution(weight, bias, device=device, config=config)
    out, _ = random_map(device, images=images, height=height, width=width, stride=layer.outputs)
    layer(source, out)
    expected = F.conv2d(values[:, :inputs], weight.to(device), bias.to(device), padding=1)
    assert torch.allclose(out.interior(outputs).float(), expected, atol=4e-3, rtol=2e-3)
    assert borders_are_zero(out)


def test_reads_and_writes_only_its_channels_and_sums_before_the_activation(device):
    size = {"images": 2, "height": 3, "width": 19}
    a_map, _ = random_map(device, **size, stride=192, channels=1)
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(2, 64, 3, 19, generator=generator).half()
    a_map.channels(96).interior(64).copy_(values)
    weight, bias = random_weights(32, 32)
    slopes = torch.linspace(-0.5, 1, 32)
    layer = FusedConvolution(weight, bias, slopes=slopes, device=device, config=WIDE)
    part = a_map.channels(128)
    layer(a_map.channels(96), part, first=part)  # 96 to 127 are read, 128 to 159 summed and written
    found = a_map.interior(192).float().cpu()
    summed = F.conv2d(values[:, :32].float(), weight, bias, padding=1) + values[:, 32:].float()
    assert torch.allclose(found[:, 128:160], F.prelu(summed, slopes), atol=4e-3, rtol=2e-3)
    assert torch.equal(found[:, 96:128], values[:, :32].float())
    assert found[:, 1:96].isnan().all() and found[:, 160:].isnan().all()


@pytest.mark.parametrize("winograd", [False, True])
def test_maps_are_summed_before_the_activation(device, winograd):
    size = {"images": 1, "height": 3, "width": 5}
    source, values = random_map(device, **size, stride=64)
    first, first_values = random_map(device, **size, stride=192, channels=64, seed=5)
    second, second_values = random_map(device, **size, stride=64, seed=6)
    out, _ = random_map(device, **size, stride=192, channels=1)
    weight, bias = random_weights(64, 64)
    slopes = torch.full((64,), 0.2)
    layer = FusedConvolution(weight, bias, slopes=slopes, device=device, winograd=winograd)
    layer(source, out, first=first, scale=0.5, second=second)
    made = F.conv2d(values, weight.to(device), bias.to(device), padding=1)
    expected = F.leaky_relu(made + 0.5 * first_values + second_values, 0.2)
    assert torch.allclose(out.interior(64).float(), expected, atol=1e-2 if winograd else 4e-3, rtol=2e-3)
    assert borders_are_zero(out) and out.channels(64).interior(64).isnan().all()


@pytest.mark.parametrize(
    ("images", "height", "width", "inputs", "outputs"),
    [(1, 1, 1, 32, 64), (2, 5, 7, 64, 64), (1, 4, 65, 96, 64), (1, 9, 16, 32, 48)],
)
def test_winograd_agrees_with_torch(device, images, height, width, inputs, outputs):
    source, values = random_map(device, images=images, height=height, width=width, stride=inputs)
    weight, bias = random_weights(outputs, inputs)
    slopes = torch.linspace(-0.5, 1, outputs)
    layer = FusedConvolution(weight, bias, slopes=slopes, device=device, winograd=True, config=WINOGRAD)
    assert layer.is_winograd
    out, _ = random_map(device, images=images, height=height, width=width, stride=layer.outputs)
    layer(source, out)
    expected = F.prelu(F.conv2d(values, weight.to(device), bias.to(device), padding=1), slopes.to(device))
    # Noise of variance 1, which no picture is: the factors' 16 bits and the larger sums leave this.
    assert psnr(out.interior(outputs), expected) >= 55
    assert torch.allclose(out.interior(outputs).float(), expected, atol=1.5e-2)
    assert borders_are_zero(out)


def test_the_transforms_are_those_of_a_convolution_of_six_values_with_three():
    pictures = torch.tensor(layers._OF_PICTURES, dtype=torch.float64)
    filters = torch.tensor(layers._OF_FILTERS, dtype=torch.float64)
    row, kernel = torch.randn(6, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    found = pictures[:, 6:].T @ ((pictures[:, :6] @ row) * (filters @ kernel))
    expected = F.conv1d(row.view(1, 1, 6), kernel.view(1, 1, 3)).flatten()
    assert torch.allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("inputs", "outputs", "options"),
    [(3, 64, {}), (64, 32, {}), (64, 64, {"doubles": True}), (64, 64, {"shuffle": 4})],
    ids=["few inputs", "few outputs", "doubles", "shuffle"],
)
def test_what_winograd_does_not_do_is_computed_directly(inputs, outputs, options):
    weight, bias = random_weights(outputs, inputs)
    assert not FusedConvolution(
        weight, bias, device=torch.device("cpu"), winograd=True, **options
    ).is_winograd


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 9), (4, 8)])
def test_doubles_what_it_reads(device, height, width):
    source, values = random_map(device, images=2, height=height, width=width, stride=64)
    out, _ = random_map(device, images=2, height=2 * height, width=2 * width, stride=64)
    weight, bias = random_weights(64, 64)
    layer = FusedConvolution(weight, bias, device=device, config=WIDE, doubles=True)
    layer(source, out)
    doubled = F.interpolate(values, scale_factor=2, mode="nearest")
    expected = F.conv2d(doubled, weight.to(device), bias.to(device), padding=1)
    assert torch.allclose(out.interior(64).float(), expected, atol=4e-3, rtol=2e-3)


@pytest.mark.parametrize("factor", [1, 4])
def test_shuffles_what_it_writes(device, factor):
    source, values = random_map(device, images=2, height=3, width=5, stride=64)
    weight, bias = random_weights(3 * factor**2, 64)
    layer = FusedConvolution(weight, bias, device=device, config=WIDE, shuffle=factor)
    out = torch.full((2, 3, 3 * factor, 5 * factor), torch.nan, device=device)
    small = torch.rand(2, 3, 3, 5).to(device)
    layer(source, out, enlarged=small)
    expected = F.pixel_shuffle(F.conv2d(values, weight.to(device), bias.to(device), padding=1), factor)
    if factor == 4:
        expected = expected + F.interpolate(small, scale_factor=4, mode="nearest")
    assert torch.allclose(out, expected, atol=1e-3, rtol=1e-3)
