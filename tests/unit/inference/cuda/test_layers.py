"""The convolution kernel beside torch's convolutions in 32 bits."""

import pytest
import torch
import torch.nn.functional as F

from worker.inference.cuda import layers
from worker.inference.cuda.buffers import FeatureMap
from worker.inference.cuda.layers import WinogradConvolution
from worker.inference.cuda.runtime import psnr


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """The interpreter takes as long for a few pixels and channels as for many."""
    monkeypatch.setattr(layers, "CHUNK", 64)
    monkeypatch.setattr(layers, "COLUMNS", 64)


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


def test_reads_and_writes_only_its_channels_and_sums_before_the_activation(device):
    size = {"images": 2, "height": 3, "width": 19}
    a_map, _ = random_map(device, **size, stride=192, channels=1)
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(2, 64, 3, 19, generator=generator).half()
    a_map.channels(96).interior(64).copy_(values)
    weight, bias = random_weights(32, 32)
    slopes = torch.linspace(-0.5, 1, 32)
    layer = WinogradConvolution(weight, bias, slopes=slopes, device=device)
    part = a_map.channels(128)
    layer(a_map.channels(96), part, first=part)  # 96 to 127 are read, 128 to 159 summed and written
    found = a_map.interior(192).float().cpu()
    summed = F.conv2d(values[:, :32].float(), weight, bias, padding=1) + values[:, 32:].float()
    assert torch.allclose(found[:, 128:160], F.prelu(summed, slopes), atol=1e-2, rtol=2e-3)
    assert torch.equal(found[:, 96:128], values[:, :32].float())
    assert found[:, 1:96].isnan().all() and found[:, 160:].isnan().all()


def test_maps_are_summed_before_the_activation(device):
    size = {"images": 1, "height": 3, "width": 5}
    source, values = random_map(device, **size, stride=64)
    first, first_values = random_map(device, **size, stride=192, channels=64, seed=5)
    second, second_values = random_map(device, **size, stride=64, seed=6)
    out, _ = random_map(device, **size, stride=192, channels=1)
    weight, bias = random_weights(64, 64)
    layer = WinogradConvolution(weight, bias, slopes=torch.full((64,), 0.2), device=device)
    layer(source, out, first=first, scale=0.5, second=second)
    made = F.conv2d(values, weight.to(device), bias.to(device), padding=1)
    expected = F.leaky_relu(made + 0.5 * first_values + second_values, 0.2)
    assert torch.allclose(out.interior(64).float(), expected, atol=1e-2, rtol=2e-3)
    assert borders_are_zero(out) and out.channels(64).interior(64).isnan().all()


@pytest.mark.parametrize(
    ("images", "height", "width", "inputs", "outputs"),
    [(1, 1, 1, 32, 64), (2, 5, 7, 64, 64), (1, 4, 65, 96, 32), (1, 9, 16, 64, 32), (1, 3, 9, 192, 64)],
)
def test_agrees_with_torch(device, images, height, width, inputs, outputs):
    source, values = random_map(device, images=images, height=height, width=width, stride=inputs)
    weight, bias = random_weights(outputs, inputs)
    slopes = torch.linspace(-0.5, 1, outputs)
    layer = WinogradConvolution(weight, bias, slopes=slopes, device=device)
    out, _ = random_map(device, images=images, height=height, width=width, stride=outputs)
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
