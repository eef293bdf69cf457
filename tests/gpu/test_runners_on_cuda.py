"""Every way to run a network on a CUDA device, beside the network in 32 bits. Real weights where they are at hand."""

import os

import numpy as np
import pytest
import torch

from bench.shapes import network_without_weights
from models.catalog import ENGINES, get_engine
from models.loader import load_network
from worker.inference.cuda.candidates import make_candidates
from worker.inference.cuda.choice import choose, find_fault, psnr, test_picture
from worker.inference.cuda.layers import Autotuner
from worker.inference.cuda.runtime import CALLS_BEFORE_CHOOSING, CudaRuntime
from worker.inference.cuda.trial import run_trial
from worker.inference.frames import FrameFormat
from worker.inference.precision import place_network
from worker.inference.upscaler import Upscaler

pytestmark = pytest.mark.gpu
test_picture.__test__ = False

ENGINE_IDS = tuple(ENGINES)
CANDIDATES = ("modules, graph", "fused, graph")


class Setup:
    """One engine's network in both precisions, and the ways to run it."""

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
        self.candidates = {
            one.name: one
            for one in make_candidates(
                self.network, modules=self.modules, device=self.device, tuner=Autotuner()
            )
        }


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


@pytest.mark.parametrize("engine_id", ENGINE_IDS)
@pytest.mark.parametrize("name", CANDIDATES)
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (3, 3, 37, 131), (2, 3, 64, 128), (1, 3, 270, 480)])
@pytest.mark.parametrize("picture", [test_picture, noise], ids=["structure", "noise"])
def test_agrees_with_32_bits(engine_id, name, shape, picture, cuda, setups):
    setup = setups(engine_id, cuda)
    if name not in setup.candidates:
        pytest.skip("Triton is not installed")
    run = setup.candidates[name].make(shape)
    for _ in range(2):  # a second run is not to see the first
        x = picture(shape, cuda.torch_device)
        run.input.copy_(x)
        run.run()
        expected = setup.modules(x)
        assert find_fault(run.output, expected, setup.exact(x[:1])) is None
        run.input.fill_(torch.nan)
        run.run()


@pytest.mark.parametrize("engine_id", ENGINE_IDS)
def test_the_trial_passes_them_all(engine_id, cuda, setups):
    setup = setups(engine_id, cuda)
    passed, dropped = run_trial(setup.network, cuda.torch_device)
    assert dropped == {} and set(passed) == set(setup.candidates)


@pytest.mark.parametrize("engine_id", ENGINE_IDS)
def test_the_choice_drops_none_and_takes_what_it_timed_as_fastest(engine_id, cuda, setups):
    setup = setups(engine_id, cuda)
    found = choose(
        list(setup.candidates.values()),
        modules=setup.modules,
        exact=setup.exact,
        shape=(2, 3, 90, 160),
        device=cuda.torch_device,
    )
    assert found.dropped == {}
    assert found.seconds[found.name] == min(found.seconds.values())


class Passed:
    dropped: dict[str, str] = {}  # noqa: RUF012

    def passed(self):
        return frozenset(CANDIDATES)


@pytest.mark.parametrize("engine_id", ENGINE_IDS)
def test_the_runtime_gives_the_same_before_and_after_it_chose_and_after_memory_ran_out(
    engine_id, cuda, setups
):
    setup = setups(engine_id, cuda)
    runtime = CudaRuntime(setup.network, device=cuda.torch_device, trial=Passed)
    x = test_picture((4, 3, 45, 80), cuda.torch_device)
    before = runtime(x).clone()
    for _ in range(CALLS_BEFORE_CHOOSING):
        after = runtime(x).clone()
    assert runtime.choice is not None
    assert psnr(after, before) >= 50
    assert psnr(runtime(x[:1]).clone(), before[:1]) >= 50
    runtime.release()
    assert psnr(runtime(x[:2]).clone(), before[:2]) >= 50


def test_what_a_choice_took_is_given_back_with_the_runtime(cuda, setups):
    setup = setups("regen-4x-lite", cuda)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    runtime = CudaRuntime(setup.network, device=cuda.torch_device, trial=Passed)
    x = test_picture((2, 3, 270, 480), cuda.torch_device)
    for _ in range(CALLS_BEFORE_CHOOSING + 1):
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
