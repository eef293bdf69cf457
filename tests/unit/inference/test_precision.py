import copy
import math

import pytest
import torch

from models.architectures import RRDBNet, SRVGGNetCompact
from models.catalog import ENGINES
from models.loader import load_network
from worker.inference.devices import CpuDevice, CudaDevice, MpsDevice, choose_device, cpu
from worker.inference.devices.cpu import has_native_bf16
from worker.inference.errors import DeviceUnavailable, InferenceError, PrecisionUnsupported
from worker.inference.precision import place_network

CPU = torch.device("cpu")
CPU_DEVICE = CpuDevice()
CUDA = CudaDevice(torch.device("cuda", 0))
MPS = MpsDevice(torch.device("mps"))
with torch.device("meta"):
    LITE, FULL = SRVGGNetCompact().properties, RRDBNet().properties


def convolution_dtypes(network):
    return {name: m.weight.dtype for name, m in network.named_modules() if isinstance(m, torch.nn.Conv2d)}


def test_the_best_device_there_is_is_chosen(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device() == CPU_DEVICE
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device() == MPS
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert choose_device() == CUDA
    assert choose_device("cuda:1") == CudaDevice(torch.device("cuda", 1))
    assert choose_device("cpu") == CPU_DEVICE
    with pytest.raises(DeviceUnavailable, match="cuda:2"):
        choose_device("cuda:2")


@pytest.mark.parametrize("choice", ["cuda", "cuda:7", "mps", "meta", "gpu", ""])
def test_devices_that_are_not_there_are_refused(choice, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceUnavailable):
        choose_device(choice)


@pytest.mark.parametrize(
    ("device", "native_bf16", "lite", "full"),
    [
        (CUDA, False, ["fp16"], ["fp16"]),
        (MPS, False, ["fp32"], ["fp32"]),
        (CPU_DEVICE, False, ["fp32"], ["fp32"]),
        (CPU_DEVICE, True, ["fp32", "bf16"], ["fp32", "mixed"]),
    ],
)
def test_auto_is_chosen_among_what_suits_device_and_engine(device, native_bf16, lite, full, monkeypatch):
    monkeypatch.setattr(cpu, "has_native_bf16", lambda: native_bf16)
    assert list(device.possible_precisions("auto", LITE)) == lite
    assert list(device.possible_precisions("auto", FULL)) == full


@pytest.mark.parametrize(
    ("machine", "present", "native"),
    [
        ("x86_64", {"_is_avx512_bf16_supported": True, "_is_amx_tile_supported": False}, True),
        ("AMD64", {"_is_avx512_bf16_supported": False, "_is_amx_tile_supported": True}, True),
        ("x86_64", {"_is_avx512_bf16_supported": False, "_is_amx_tile_supported": False}, False),
        ("x86_64", {}, False),
        ("riscv64", {"_is_avx512_bf16_supported": True}, False),
    ],
)
def test_native_bf16_is_found_and_never_assumed(machine, present, native, monkeypatch):
    monkeypatch.setattr(cpu.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
        if name in present:
            monkeypatch.setattr(torch.cpu, name, lambda found=present[name]: found, raising=False)
    assert has_native_bf16() is native


def test_explicit_choices_are_taken_or_refused(monkeypatch):
    assert [CPU_DEVICE.possible_precisions(c, FULL) for c in ("fp32", "bf16", "mixed")] == [
        ["fp32"],
        ["bf16"],
        ["mixed"],
    ]
    assert MPS.possible_precisions("fp16", LITE) == ["fp16"]
    for choice in ("fp16", "int8", ""):
        with pytest.raises(PrecisionUnsupported) as caught:
            CPU_DEVICE.possible_precisions(choice, LITE)
        assert isinstance(caught.value, InferenceError)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    for choice in ("bf16", "mixed"):
        with pytest.raises(PrecisionUnsupported, match="bfloat16"):
            CUDA.possible_precisions(choice, LITE)


def test_mixed_keeps_everything_outside_the_dense_blocks_in_fp32(weights_directory):
    network = load_network("regen-4x", weights_directory=weights_directory)
    placed = place_network(network, device=CPU, precision="mixed")
    for name, dtype in convolution_dtypes(placed).items():
        assert dtype == (torch.bfloat16 if ".rdb" in name else torch.float32), name
    streams = []
    for module in placed.body:
        module.register_forward_hook(lambda module, inputs, output: streams.append(output.dtype))
    with torch.inference_mode():
        assert placed(torch.rand(1, 3, 4, 4)).dtype == torch.float32
    assert set(streams) == {torch.float32}
    assert set(convolution_dtypes(network).values()) == {torch.float32}  # the original is untouched


def test_bf16_keeps_what_goes_in_and_what_comes_out_of_regen_4x_in_fp32(weights_directory):
    network = load_network("regen-4x", weights_directory=weights_directory)
    dtypes = convolution_dtypes(place_network(network, device=CPU, precision="bf16"))
    assert dtypes.pop("conv_first") == dtypes.pop("conv_last") == torch.float32
    assert set(dtypes.values()) == {torch.bfloat16}


def test_bf16_lite_keeps_the_first_convolution_and_the_sum_in_fp32(weights_directory):
    network = load_network("regen-4x-lite", weights_directory=weights_directory)
    dtypes = convolution_dtypes(place_network(network, device=CPU, precision="bf16"))
    assert dtypes.pop("body.0") == torch.float32
    assert set(dtypes.values()) == {torch.bfloat16}
    mixed = convolution_dtypes(place_network(network, device=CPU, precision="mixed"))
    assert mixed["body.34"] == torch.float32
    # With nothing to add, what comes out is the enlarged input: bfloat16 would keep 8 of its bits.
    silent = copy.deepcopy(network)
    torch.nn.init.zeros_(silent.body[34].weight)
    torch.nn.init.zeros_(silent.body[34].bias)
    image = torch.rand(1, 3, 4, 4)
    placed = place_network(silent, device=CPU, precision="bf16")
    assert torch.equal(placed(image)[:, :, ::4, ::4], image)


@pytest.mark.parametrize("engine_id", ENGINES)
def test_fp16_turns_every_layer(engine_id, weights_directory):
    network = load_network(engine_id, weights_directory=weights_directory)
    placed = place_network(network, device=CPU, precision="fp16")
    assert {parameter.dtype for parameter in placed.parameters()} == {torch.float16}


@pytest.mark.parametrize("engine_id", ENGINES)
def test_convolutions_are_laid_out_channels_last(engine_id, weights_directory):
    network = load_network(engine_id, weights_directory=weights_directory)
    placed = place_network(network, device=CPU, precision="fp32")
    for module in placed.modules():
        if isinstance(module, torch.nn.Conv2d):
            assert module.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("engine_id", "reduced"), [("regen-4x-lite", "bf16"), ("regen-4x", "mixed"), ("regen-4x-anime", "mixed")]
)
def test_reduced_precision_stays_within_50_db_of_fp32_on_film(
    engine_id, reduced, crop_pixels, weights_directory
):
    network = load_network(engine_id, weights_directory=weights_directory)
    image = torch.from_numpy(crop_pixels).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        exact, found = (
            place_network(network, device=CPU, precision=choice)(image).clamp(0, 1)
            for choice in ("fp32", reduced)
        )
    error = torch.mean((found.double() - exact.double()) ** 2).item()
    assert error > 0  # it was computed otherwise at all
    assert -10 * math.log10(error) >= 50
