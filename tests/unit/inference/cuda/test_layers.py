"""The convolution kernel beside torch's convolutions in 32 bits."""

import pytest
import torch
import torch.nn.functional as F

from worker.inference.cuda import kernels
from worker.inference.cuda.buffers import FeatureMap
from worker.inference.cuda.layers import FusedConvolution, LaunchConfig

WIDE = LaunchConfig(columns=32, rows=2, chunk=32, warps=4, stages=2)
TALL = LaunchConfig(columns=16, rows=4, chunk=64, warps=4, stages=2)


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
    layer = FusedConvolution(weight, bias, slopes=None, device=device, configs=[config])
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
    layer = FusedConvolution(weight, bias, slopes=slopes, device=device, configs=[WIDE])
    part = a_map.channels(128)
    layer(a_map.channels(96), part, before=part)  # 96 to 127 are read, 128 to 159 summed and written
    found = a_map.interior(192).float().cpu()
    summed = F.conv2d(values[:, :32].float(), weight, bias, padding=1) + values[:, 32:].float()
    assert torch.allclose(found[:, 128:160], F.prelu(summed, slopes), atol=4e-3, rtol=2e-3)
    assert torch.equal(found[:, 96:128], values[:, :32].float())
    assert found[:, 1:96].isnan().all() and found[:, 160:].isnan().all()


def test_residuals_are_summed_after_the_activation(device):
    size = {"images": 1, "height": 3, "width": 5}
    source, values = random_map(device, **size, stride=64)
    first, first_values = random_map(device, **size, stride=192, channels=64, seed=5)
    second, second_values = random_map(device, **size, stride=64, seed=6)
    out, _ = random_map(device, **size, stride=192)
    weight, bias = random_weights(64, 64)
    slopes = torch.full((64,), 0.2)
    layer = FusedConvolution(weight, bias, slopes=slopes, device=device, configs=[WIDE])
    layer(source, out, residual=first, scale=0.5, second=second, second_scale=0.25)
    made = F.leaky_relu(F.conv2d(values, weight.to(device), bias.to(device), padding=1), 0.2)
    expected = second_values + 0.25 * (first_values + 0.5 * made)
    assert torch.allclose(out.interior(64).float(), expected, atol=4e-3, rtol=2e-3)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 9), (4, 8)])
def test_doubles_what_it_reads(device, height, width):
    source, values = random_map(device, images=2, height=height, width=width, stride=64)
    out, _ = random_map(device, images=2, height=2 * height, width=2 * width, stride=64)
    weight, bias = random_weights(64, 64)
    layer = FusedConvolution(weight, bias, slopes=None, device=device, configs=[WIDE], doubles=True)
    layer(source, out)
    doubled = F.interpolate(values, scale_factor=2, mode="nearest")
    expected = F.conv2d(doubled, weight.to(device), bias.to(device), padding=1)
    assert torch.allclose(out.interior(64).float(), expected, atol=4e-3, rtol=2e-3)


@pytest.mark.parametrize("factor", [1, 4])
def test_shuffles_what_it_writes(device, factor):
    source, values = random_map(device, images=2, height=3, width=5, stride=64)
    weight, bias = random_weights(3 * factor**2, 64)
    layer = FusedConvolution(weight, bias, slopes=None, device=device, configs=[WIDE], shuffle=factor)
    out = torch.full((2, 3, 3 * factor, 5 * factor), torch.nan, device=device)
    small = torch.rand(2, 3, 3, 5).to(device)
    layer(source, out, enlarged=small)
    expected = F.pixel_shuffle(F.conv2d(values, weight.to(device), bias.to(device), padding=1), factor)
    if factor == 4:
        expected = expected + F.interpolate(small, scale_factor=4, mode="nearest")
    assert torch.allclose(out, expected, atol=1e-3, rtol=1e-3)


class Launches:
    """In place of the kernel: notes how it is launched, and fails for what the device cannot run."""

    def __init__(self, *unfit):
        self.unfit = [one.columns for one in unfit]
        self.columns = []

    def __getitem__(self, grid):
        def launch(*arguments, COLUMNS, **options):  # noqa: N803
            self.columns.append(COLUMNS)
            if COLUMNS in self.unfit:
                raise RuntimeError("out of resource: shared memory")

        return launch


def launch_twice(monkeypatch, launches):
    monkeypatch.setattr(kernels, "convolve", launches)
    device = torch.device("cpu")
    weight, bias = random_weights(64, 64)
    layer = FusedConvolution(weight, bias, slopes=None, device=device, configs=[WIDE, TALL])
    source, _ = random_map(device, images=1, height=3, width=5, stride=64)
    for _ in range(2):
        layer(source, source)


def test_the_first_configuration_that_fits_the_device_is_kept(monkeypatch):
    launches = Launches()
    launch_twice(monkeypatch, launches)
    assert launches.columns == [WIDE.columns] * 2
    launches = Launches(WIDE)
    launch_twice(monkeypatch, launches)
    assert launches.columns == [WIDE.columns, TALL.columns, TALL.columns]


def test_where_no_configuration_can_be_launched_the_error_is_told(monkeypatch):
    with pytest.raises(RuntimeError, match="shared memory"):
        launch_twice(monkeypatch, Launches(WIDE, TALL))
