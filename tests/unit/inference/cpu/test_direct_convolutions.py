"""Direct convolutions of bfloat16 values, in plain C and by an emulated matrix unit, beside torch's in 64 bits."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.architectures import RRDBNet, SRVGGNetCompact
from models.loader import load_network
from worker.inference.cpu import direct_network, direct_trial, kernels
from worker.inference.cpu.direct_network import DirectNetwork, can_run_directly
from worker.inference.cpu.direct_trial import (
    DirectTrial,
    compile_directly,
    find_agreeing_matrix_unit,
    random_trial,
)
from worker.inference.cpu.kernels import find_kernels
from worker.inference.devices import CpuDevice, CudaDevice
from worker.inference.errors import PrecisionUnsupported

BEST = find_kernels()
pytestmark = pytest.mark.skipif(BEST is None, reason="the package was installed without a C compiler")
# A processor with AVX-512 has AVX2 too.
SETS = {"avx512": ["avx512", "avx2"], "avx2": ["avx2"], "neon": ["neon"]}[BEST.instructions] if BEST else []
SHAPES = [(1, 1, 32, 16), (1, 40, 64, 48), (5, 16, 32, 64), (3, 17, 96, 32), (7, 33, 160, 3), (2, 64, 64, 80)]
EMULATION = Path(__file__).with_name("emulated_matrix_unit.h")


def convolved(trial):
    return F.conv2d(
        trial.values.double()[None],
        trial.weights.to(torch.bfloat16).double(),
        trial.bias.double(),
        padding=1,
    )[0].permute(1, 2, 0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("instructions", SETS)
def test_shapes(shape, instructions):
    trial = random_trial(*shape)
    exact, rounded = trial.run(find_kernels(instructions), threads=2)
    torch.testing.assert_close(exact.double(), convolved(trial), rtol=1e-5, atol=2e-6)
    assert torch.equal(rounded, exact.to(torch.bfloat16))


@pytest.mark.parametrize("shape", SHAPES)
def test_instruction_sets_agree_to_the_last_bit(shape):
    first, *others = [random_trial(*shape).run(find_kernels(name)) for name in SETS]
    for other in others:
        assert torch.equal(first[0], other[0]) and torch.equal(first[1], other[1])


def hostile(shape, *, seed=3):
    """Infinities and numbers that are none, tiny, subnormal and huge ones among ordinary ones."""
    trial = random_trial(*shape, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    odd = torch.tensor([torch.inf, -torch.inf, torch.nan, 0.0, -0.0, 1e-40, 3e-39, 1e-30, 3e38, -3e38])
    for values in (trial.values, trial.weights):
        flat = values.view(-1)
        places = torch.randint(flat.numel(), (max(2, flat.numel() // 200),), generator=generator)
        flat[places] = odd[torch.randint(len(odd), places.shape, generator=generator)].to(flat.dtype)
    return DirectTrial(trial.values, trial.weights, trial.bias)


@pytest.mark.parametrize("instructions", SETS)
def test_numbers_that_are_none_stay_where_they_belong(instructions):
    trial = hostile((9, 35, 32, 32))
    exact, rounded = trial.run(find_kernels(instructions))
    expected = convolved(trial)
    usual = expected.isfinite() & (expected.abs() < 1e30)
    # Where products of huge numbers overflow in 32 bits there is nothing to compare.
    assert usual.any() and exact[usual].isfinite().all()
    assert not exact[expected.isnan()].isfinite().any()
    assert torch.equal(rounded.isnan(), exact.isnan())


def network(kind, features=32):
    torch.manual_seed(2)
    made = (
        SRVGGNetCompact(features=features, convolutions=2)
        if kind == "srvgg"
        else RRDBNet(features=features, growth=32, blocks=2)
    )
    return made.requires_grad_(False).eval()


def decibels(found, expected):
    return -10 * (found - expected).square().mean().log10()


@pytest.mark.parametrize("kind", ["srvgg", "rrdbnet"])
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 3, 5, 3), (1, 3, 17, 30), (1, 3, 3, 64)])
def test_networks_give_about_what_the_modules_give(kind, shape):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    plain = network(kind)
    direct = compile_directly(plain)
    with torch.inference_mode():
        expected = plain(x)
    first = direct(x).clone()
    assert decibels(first, expected) > 60
    # Other sizes in between leave nothing behind, and threads change nothing.
    direct(torch.rand(1, 3, 9, 50))
    assert torch.equal(direct(x.contiguous(memory_format=torch.channels_last)), first)


def test_any_number_of_threads_gives_the_same(monkeypatch):
    direct, x = compile_directly(network("rrdbnet")), torch.rand(1, 3, 21, 18)
    expected = direct(x).clone()
    for threads in (1, 3, 9):
        monkeypatch.setattr(direct_network.torch, "get_num_threads", lambda threads=threads: threads)
        assert torch.equal(direct(x), expected)


def test_a_pixel_changes_nothing_beyond_its_reach_and_parts_equal_the_whole():
    direct = compile_directly(network("srvgg"))
    reach, x = direct.reach_pixels, torch.rand(1, 3, 40, 52)
    changed = x.clone()
    changed[..., 20, 25] = 0
    before, after = direct(x).clone(), direct(changed)
    differs = (before != after).any(dim=1)[0].nonzero() // 4
    assert 0 < (differs - torch.tensor([20, 25])).abs().max() <= reach
    part = direct(x[..., 8:36, 12:48])
    inner = slice(4 * reach, -4 * reach)
    whole = before[..., 4 * (8 + reach) : 4 * (36 - reach), 4 * (12 + reach) : 4 * (48 - reach)]
    assert torch.equal(part[..., inner, inner], whole)


@pytest.mark.parametrize(("engine_id", "least"), [("regen-4x-lite", 60), ("regen-4x", 55)])
def test_real_weights_on_a_photograph(engine_id, least, weights_directory, crop_pixels):
    plain = load_network(engine_id, weights_directory=weights_directory)
    picture = torch.from_numpy(crop_pixels).permute(2, 0, 1)[None].float()[..., :20, :29] / 255
    fast = CpuDevice().make_runtime(plain, properties=plain.properties, precision="bf16-direct")
    assert isinstance(fast.network, DirectNetwork)
    exact = CpuDevice().make_runtime(plain, properties=plain.properties, precision="fp32")
    assert decibels(fast(picture).clamp(0, 1), exact(picture).clamp(0, 1)) > least


def test_other_shapes_and_devices(monkeypatch):
    odd = SRVGGNetCompact(features=16, convolutions=1)
    assert not can_run_directly(odd) and not can_run_directly(nn.Identity())
    runtime = CpuDevice().make_runtime(odd, properties=odd.properties, precision="bf16-direct")
    assert (
        runtime.reach_pixels
        == CpuDevice().make_runtime(odd, properties=odd.properties, precision="fp32").reach_pixels
    )
    with pytest.raises(PrecisionUnsupported, match="compiled kernels"):
        CudaDevice(torch.device("cuda", 0)).check_precision("bf16-direct")
    with pytest.raises(ValueError, match="direct"):
        BEST.prepare_direct_weights(torch.zeros(16, 16, 3, 3), torch.zeros(1))
    monkeypatch.setattr(direct_trial, "find_kernels", lambda: None)
    assert compile_directly(network("srvgg")) is None


def test_a_matrix_unit_that_is_wrong_is_no_candidate(monkeypatch):
    properties = network("srvgg").properties
    unit = SimpleNamespace()
    run = DirectTrial.run
    error = [0.0]
    monkeypatch.setattr(
        DirectTrial,
        "run",
        lambda self, used: (run(self, BEST)[0] + (error[0] if used is unit else 0.0), None),
    )
    monkeypatch.setattr(direct_trial, "find_matrix_unit", lambda: unit)
    for error[0], is_candidate in ((0.0, True), (1e-7, True), (1e-2, False), (float("nan"), False)):
        find_agreeing_matrix_unit.cache_clear()
        assert ("bf16-direct" in CpuDevice().candidate_precisions(properties)) is is_candidate
    find_agreeing_matrix_unit.cache_clear()


def test_a_library_of_another_version_is_not_used(monkeypatch):
    class Longer(kernels.ConvolutionStep):
        _fields_ = (("another", kernels.c_int32),)

    assert kernels._load() is not None
    monkeypatch.setattr(kernels, "ConvolutionStep", Longer)
    assert kernels._load() is None


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    """Kernels whose code for the matrix unit was compiled with emulated intrinsics."""
    compiler = shutil.which("gcc")
    if compiler is None or sys.platform != "linux" or "avx512_bf16" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("there is no gcc, or this is not Linux on a processor with AVX512-BF16")
    source, library = Path(kernels.__file__).with_name("kernels.c"), tmp_path_factory.mktemp("amx") / "k.so"
    flags = ["-O2", "-ffp-contract=fast", "-pthread", "-fPIC", "-shared", "-w", "-include", EMULATION]
    subprocess.run([compiler, *flags, "-o", library, source, "-lm"], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels.importlib.util, "find_spec", lambda name: SimpleNamespace(origin=str(library)))
        loaded = kernels._load()
    if not hasattr(loaded, "regen_matrix_unit"):
        pytest.skip("this gcc does not know AMX")
    return kernels.Kernels(loaded, "amx")


@pytest.mark.slow
def test_the_code_for_the_matrix_unit_gives_what_plain_c_gives(emulated):
    """To the last bit, by the manual's description of the instructions."""
    for shape in SHAPES[:-1]:
        for trial in (random_trial(*shape), hostile(shape)):
            found, expected = trial.run(emulated, threads=2), trial.run(BEST)
            for one, other in zip(found, expected, strict=True):
                assert torch.equal(one.isnan(), other.isnan())
                assert torch.equal(one.nan_to_num(), other.nan_to_num())
    for kind in ("srvgg", "rrdbnet"):
        plain, x = network(kind), torch.rand(1, 3, 4, 19)
        assert torch.equal(DirectNetwork(plain, emulated)(x), DirectNetwork(plain, BEST)(x))
