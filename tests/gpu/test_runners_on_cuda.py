"""The fused network on a CUDA device, beside the network in 32 bits. Real weights where they are at hand."""

import os

import numpy as np
import pytest
import torch

from bench.shapes import network_without_weights
from models.catalog import ENGINES, get_engine
from models.loader import load_network
from worker.inference.cuda import kernels
from worker.inference.cuda.fused import FusedNetwork
from worker.inference.cuda.runtime import FusedRuntime, find_fault, psnr, trial_picture
from worker.inference.frames import FrameFormat
from worker.inference.precision import place_network
from worker.inference.upscaler import Upscaler

pytestmark = pytest.mark.gpu
ENGINE_IDS = tuple(ENGINES)
# In dB, against the network in 32 bits: as near as Winograd's 16-bit factors bring it.
ENOUGH_PSNR = 55.0


class Setup:
    """One engine's network in both precisions."""

    def __init__(self, engine_id, device):
        directory = os.environ.get("REGEN_TEST_WEIGHTS")
        self.engine = get_engine(engine_id)
        self.device = device.torch_device
        if directory:
            self.network = load_network(engine_id, weights_directory=directory)
        else:
            self.network = network_without_weights(self.engine)
        self.modules = place_network(self.network, device=self.device, precision="fp16")
        self.exact = place_network(self.network, device=self.device, precision="fp32")


@pytest.fixture(scope="module")
def setups():
    made = {}

    def setup(engine_id, device):
        if engine_id not in made:
            made[engine_id] = Setup(engine_id, device)
        return made[engine_id]

    return setup


@pytest.fixture(autouse=True)
def arithmetic():
    with (
        torch.inference_mode(),
        torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=False),
    ):
        yield


def noise(shape, device):
    return torch.rand(shape, generator=torch.Generator().manual_seed(3)).to(device)


@pytest.mark.skipif(not kernels.AVAILABLE, reason="Triton is not installed")
@pytest.mark.parametrize("engine_id", ENGINE_IDS)
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (3, 3, 37, 131), (2, 3, 64, 128), (1, 3, 270, 480)])
@pytest.mark.parametrize("picture", [trial_picture, noise], ids=["structure", "noise"])
def test_agrees_with_the_modules_and_with_32_bits(engine_id, shape, picture, cuda, setups):
    setup = setups(engine_id, cuda)
    images, _, height, width = shape
    fused = FusedNetwork(setup.network, setup.modules, images=images, height=height, width=width)
    for _ in range(2):  # a second run is not to see the first
        x = picture(shape, cuda.torch_device)
        found, expected, exact = fused(x), setup.modules(x), setup.exact(x[:1])
        assert find_fault(found, expected) is None
        assert psnr(found[:1], exact) >= min(ENOUGH_PSNR, psnr(expected[:1], exact) - 1)
        fused(torch.full_like(x, torch.nan))


@pytest.mark.skipif(not kernels.AVAILABLE, reason="Triton is not installed")
@pytest.mark.parametrize("engine_id", ENGINE_IDS)
def test_the_runtime_keeps_the_fused_network_and_gives_the_same_after_memory_ran_out(engine_id, cuda, setups):
    setup = setups(engine_id, cuda)
    runtime = FusedRuntime(setup.network, device=cuda.torch_device)
    x = trial_picture((4, 3, 45, 80), cuda.torch_device)
    before = runtime(x).clone()
    assert runtime._fused is not None
    assert psnr(runtime(x[:1]).clone(), before[:1]) >= 50
    runtime.release()
    assert psnr(runtime(x[:2]).clone(), before[:2]) >= 50


def test_what_it_took_is_given_back_with_the_runtime(cuda, setups):
    setup = setups("regen-4x-lite", cuda)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    runtime = FusedRuntime(setup.network, device=cuda.torch_device)
    x = trial_picture((2, 3, 270, 480), cuda.torch_device)
    for _ in range(2):
        runtime(x)
    del runtime, x
    assert torch.cuda.memory_allocated() - before < 32 * 1024**2


def test_frames_of_several_groups_come_back_whole_in_order_and_stay_as_they_are(cuda, setups):
    setup = setups("regen-4x-lite", cuda)
    source = FrameFormat(width=96, height=64)
    generator = np.random.default_rng(0)
    frames = [generator.integers(16, 236, source.frame_bytes).astype(np.uint8) for _ in range(11)]

    def upscaler():
        return Upscaler(
            setup.network,
            engine=setup.engine,
            source=source,
            target=source.enlarged(4),
            device=cuda,
            precision="fp32",
            batch_size=2,
        )

    one_by_one = upscaler()
    expected = [one_by_one.upscale([frame])[0].copy() for frame in frames]
    together = upscaler()
    found = together.upscale(frames)
    kept = [frame.copy() for frame in found]
    together.upscale(frames[::-1])
    assert len(found) == len(frames)
    for frame, copied, wanted in zip(found, kept, expected, strict=True):
        assert np.array_equal(frame, copied)
        assert np.abs(copied.astype(int) - wanted.astype(int)).max() <= 1
