"""Whole networks by compiled kernels beside torch's modules in plain fp32."""

import pytest
import torch
from torch import nn

from models.architectures import RRDBNet, SRVGGNetCompact
from models.loader import load_network
from worker.inference.cpu import network as compiled
from worker.inference.cpu.kernels import find_kernels
from worker.inference.cpu.network import TILE, CompiledNetwork, compile_network
from worker.inference.devices import CpuDevice

KERNELS = find_kernels()
pytestmark = pytest.mark.skipif(KERNELS is None, reason="the package was installed without a C compiler")
# A processor with AVX-512 has AVX2 too.
SETS = (
    {"avx512": ["avx512", "avx2"], "avx2": ["avx2"], "neon": ["neon"]}[KERNELS.instructions]
    if KERNELS
    else []
)


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def dense(**options):
    torch.manual_seed(2)
    return RRDBNet(features=32, growth=16, **options).requires_grad_(False).eval()


def plain(convolutions=3):
    torch.manual_seed(2)
    network = SRVGGNetCompact(features=32, convolutions=convolutions).requires_grad_(False).eval()
    for layer in network.body:
        if isinstance(layer, nn.PReLU):
            layer.weight.copy_(torch.randn(32))
    return network


@pytest.mark.parametrize(
    "network",
    [plain(), plain(0), dense(blocks=1), dense(blocks=3)],
    ids=lambda network: type(network).__name__,
)
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 3, 5, 3), (1, 3, 17, 30)])
def test_every_shape_gives_what_the_modules_give(network, shape):
    x = random(*shape)
    with torch.inference_mode():
        expected = network(x)
    fast = compile_network(network)

    for layout in (torch.contiguous_format, torch.channels_last):
        torch.testing.assert_close(fast(x.contiguous(memory_format=layout)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine_id", ["regen-4x-lite", "regen-4x"])
@pytest.mark.parametrize("instructions", SETS)
def test_real_weights_on_a_photograph_and_on_noise(engine_id, instructions, weights_directory, crop_pixels):
    network = load_network(engine_id, weights_directory=weights_directory)
    fast = CompiledNetwork(network, find_kernels(instructions))
    picture = torch.from_numpy(crop_pixels).permute(2, 0, 1)[None].float() / 255
    for x in (picture[..., :21, :26], random(1, 3, 14, 19)):
        with torch.inference_mode():
            difference = fast(x) - network(x)
        assert -10 * torch.log10(difference.square().mean()) > 110
        assert difference.abs().max() < 1e-4


def test_sizes_in_turn_and_any_number_of_threads_give_the_same(monkeypatch):
    """With more threads than cores, the system preempts some of them anywhere: no thread may miss a wake-up."""
    network = dense(blocks=3)
    pictures = [random(1, 3, 9, 14), random(1, 3, 60, 33), random(1, 3, 2, 2), random(1, 3, 40, 3)]
    expected = [compile_network(network)(picture) for picture in pictures]
    for threads in (1, 2, 7, 24):
        monkeypatch.setattr(compiled.torch, "get_num_threads", lambda threads=threads: threads)
        fast = compile_network(network)
        for _ in range(2):
            for picture, first in zip(pictures, expected, strict=True):
                assert torch.equal(fast(picture), first)


def test_a_pixel_changes_nothing_beyond_its_reach_and_parts_equal_the_whole():
    network = plain(1)
    fast = compile_network(network)
    reach = fast.reach_pixels
    x = random(1, 3, 48, 60)
    changed = x.clone()
    changed[..., 21, 30] = 0
    before, after = fast(x).clone(), fast(changed)

    differs = (before != after).any(dim=1)[0].nonzero() // TILE
    assert len(differs) > 0
    distances = (differs - torch.tensor([21, 30])).abs()
    assert distances.max() <= reach
    # A part that starts at a square's border; only pixels beyond the reach of its edges are compared.
    part = fast(x[..., 8:44, 12:52])
    assert torch.equal(
        part[..., TILE * reach : -TILE * reach, TILE * reach : -TILE * reach],
        before[..., TILE * (8 + reach) : TILE * (44 - reach), TILE * (12 + reach) : TILE * (52 - reach)],
    )


def test_it_is_what_runs_on_a_cpu_in_32_bits_and_nowhere_else():
    properties = plain().properties
    fast = CpuDevice().make_runtime(plain(), properties=properties, precision="fp32")
    assert isinstance(fast.network, CompiledNetwork)
    assert fast.reach_pixels == fast.network.reach_pixels > properties.receptive_radius
    for network, precision in ((plain(), "bf16"), (nn.Identity(), "fp32")):
        other = CpuDevice().make_runtime(network, properties=properties, precision=precision)
        assert isinstance(other.network, nn.Module)
        assert other.reach_pixels == properties.receptive_radius


def test_the_next_call_writes_where_the_last_one_did():
    """A frame's worth of fresh memory costs the system as much as converting the frame."""
    fast = compile_network(plain())
    x = random(1, 3, 8, 12)
    first = fast(x)
    assert fast(x).data_ptr() == first.data_ptr()


def test_channels_that_fill_no_block_are_left_to_torch():
    assert compile_network(SRVGGNetCompact(features=24, convolutions=1)) is None
    assert compile_network(SRVGGNetCompact(features=32, convolutions=1, scale=2)) is None
    assert compile_network(RRDBNet(features=32, blocks=1, growth=8)) is None


def test_without_kernels_torch_computes(monkeypatch):
    monkeypatch.setattr(compiled, "find_kernels", lambda: None)
    network = plain()
    fast = CpuDevice().make_runtime(network, properties=network.properties, precision="fp32")
    assert isinstance(fast.network, SRVGGNetCompact)


def test_memory_that_is_not_there_is_said_to_be_missing(monkeypatch):
    fast = compile_network(plain())
    monkeypatch.setattr(fast._program, "floats", lambda pixels: 1 << 60)
    with pytest.raises(MemoryError):
        fast(random(1, 3, 4, 4))
