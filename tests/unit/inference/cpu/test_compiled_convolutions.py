"""Convolutions by compiled kernels beside torch's in 64 bits, for each instruction set that this processor has."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from worker.inference.cpu.huge_pages import Arena, allocate_in_huge_pages
from worker.inference.cpu.kernels import BLOCK, CHANNELS_LAST, ConvolutionStep, find_kernels, weight_floats
from worker.inference.cpu.network import PackedConvolution, PixelPointer, StepList

BEST = find_kernels()
pytestmark = pytest.mark.skipif(BEST is None, reason="the package was installed without a C compiler")
# A processor with AVX-512 has AVX2 too.
SETS = {"avx512": ["avx512", "avx2"], "avx2": ["avx2"], "neon": ["neon"]}[BEST.instructions] if BEST else []


@pytest.fixture(params=SETS)
def kernels(request):
    return find_kernels(request.param)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def filled_up(values):
    return F.pad(values, (0, -values.numel() % BLOCK))


def convolution(kernels, inputs, outputs, *, slopes=False, seed=1):
    """As the kernels have it, and as torch computes it in 64 bits."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1).requires_grad_(False)
    layer.weight.copy_(random(*layer.weight.shape, seed=seed) / (3 * inputs**0.5))
    layer.bias.copy_(random(outputs, seed=seed + 1))
    slope = random(outputs, seed=seed + 2).abs() if slopes else None
    weights = torch.zeros(weight_floats(inputs, outputs))
    kernels.prepare_weights(layer.weight, weights)
    ready = PackedConvolution(
        inputs=inputs,
        outputs=outputs,
        weights=weights,
        bias=filled_up(layer.bias),
        slopes=None if slope is None else filled_up(slope),
    )
    layer.double()

    def expected(x):
        y = layer(x.double())
        return y if slope is None else F.prelu(y, slope.double())

    return ready, expected


def laid(x, stride=None):
    """1 x C x H x W to H x W x stride: channels last, with values behind them that must not be used."""
    channels = x.shape[1]
    picture = torch.full((*x.shape[2:], stride or -(-channels // BLOCK) * BLOCK), 1e30)
    picture[..., :channels] = x[0].permute(1, 2, 0)
    return picture


def place(picture, channel=0):
    return PixelPointer(picture.data_ptr() + 4 * channel, picture.shape[-1])


def run(kernels, steps, threads=1):
    listed = (ConvolutionStep * len(steps.listed))(*steps.listed)
    scratch = allocate_in_huge_pages(threads * kernels.scratch_floats(listed))
    kernels.run(listed, scratch, threads=threads)


def assert_close(found, expected):
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (4, 4), (5, 9), (1, 30), (23, 42)])
@pytest.mark.parametrize(("inputs", "outputs"), [(3, 64), (64, 48), (32, 16), (96, 32)])
def test_sizes_and_channels(kernels, height, width, inputs, outputs):
    x = random(1, inputs, height, width)
    ready, expected = convolution(kernels, inputs, outputs, slopes=True)
    source, made = laid(x), torch.full((height, width, outputs), torch.nan)

    steps = StepList(kernels, height=height, width=width)
    steps.add(ready, place(source), place(made))
    run(kernels, steps)

    assert_close(made.permute(2, 0, 1)[None], expected(x))


def test_channels_between_others_and_sums(kernels):
    """As a dense block uses it: two places to read from, one of them also written to, and two things to add."""
    height, width = 19, 26
    first, more, before = (
        random(1, 64, height, width),
        random(1, 32, height, width, seed=3),
        random(1, 64, height, width),
    )
    near, expected_near = convolution(kernels, 96, 32, slopes=True, seed=5)
    last, expected_last = convolution(kernels, 128, 64, seed=7)
    source, outer = laid(first), laid(before)
    added, made = laid(more, stride=64), torch.full((height, width, 80), 7.0)

    steps = StepList(kernels, height=height, width=width)
    steps.add(near, place(source), place(added, 32), more=place(added), first_inputs=64)
    steps.add(
        last,
        place(source),
        place(made, 16),
        more=place(added),
        first_inputs=64,
        residual=place(source),
        scale=0.2,
        outer=place(outer),
        outer_scale=0.5,
    )
    run(kernels, steps, threads=3)

    dense = torch.cat((first, more), 1).double()
    dense = torch.cat((dense, expected_near(dense)), 1)
    expected = (expected_last(dense) * 0.2 + first) * 0.5 + before
    assert_close(made[..., 16:].permute(2, 0, 1)[None], expected)
    assert (made[..., :16] == 7).all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 7), (10, 13)])
def test_a_doubled_picture(kernels, height, width):
    x = random(1, 32, height, width)
    ready, expected = convolution(kernels, 32, 32)
    source, made = laid(x), torch.empty((2 * height, 2 * width, 32))

    steps = StepList(kernels, height=height, width=width)
    steps.add(ready, place(source), place(made), enlarged=2, is_doubled=True, layout=CHANNELS_LAST)
    run(kernels, steps)

    assert_close(made.permute(2, 0, 1)[None], expected(F.interpolate(x, scale_factor=2.0, mode="nearest")))


def test_instruction_sets_agree_to_the_last_bit():
    """So that segments made on different machines make one video."""
    if len(SETS) < 2:
        pytest.skip(f"this processor has one of them: {SETS}")
    x, results = laid(random(1, 64, 21, 35)), []
    for name in SETS:
        kernels = find_kernels(name)
        ready, _ = convolution(kernels, 64, 48, slopes=True)
        results.append(torch.empty((21, 35, 48)))
        steps = StepList(kernels, height=21, width=35)
        steps.add(ready, place(x), place(results[-1]))
        run(kernels, steps)

    assert torch.equal(*results)


def test_weights_of_another_kind_are_refused(kernels):
    for weights in (torch.zeros(16, 16, 1, 1), torch.zeros(16, 16, 3, 3, dtype=torch.float64)):
        with pytest.raises(ValueError, match="3x3"):
            kernels.prepare_weights(weights, torch.zeros(weight_floats(16, 16)))


def test_too_little_scratch_is_refused(kernels):
    ready, _ = convolution(kernels, 16, 16)
    source = laid(random(1, 16, 8, 8))
    steps = StepList(kernels, height=8, width=8)
    steps.add(ready, place(source), place(source))
    with pytest.raises(ValueError, match="scratch"):
        kernels.run((ConvolutionStep * 1)(*steps.listed), torch.zeros(64), threads=1)


def test_an_arena_hands_out_separate_pieces():
    arena = Arena(48)
    first, second = arena.take(17), arena.take(16)
    first.fill_(1)
    assert second.sum() == 0
    assert (first.data_ptr() - second.data_ptr()) % 64 == 0
    with pytest.raises(ValueError, match="floats"):
        arena.take(1)
