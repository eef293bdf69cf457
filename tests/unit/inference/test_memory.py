import pytest
import torch

from models.architectures import RRDBNet, SRVGGNetCompact
from worker.inference.devices import CpuDevice, CudaDevice, cpu
from worker.inference.frames import FrameFormat
from worker.inference.memory import is_out_of_memory

GIB = 1024**3
DEVICES = {"cpu": CpuDevice(), "cuda": CudaDevice(torch.device("cuda", 0))}


def properties_of(engine):
    with torch.device("meta"):
        return {"regen-4x-lite": SRVGGNetCompact, "regen-4x": RRDBNet}[engine]().properties


def plan(*, width, height, engine="regen-4x-lite", device_type="cuda", gib=80.0, precision="fp16"):
    return DEVICES[device_type].plan_workload(
        properties=properties_of(engine),
        precision=precision,
        source=FrameFormat(width=width, height=height),
        memory_bytes=int(gib * GIB),
    )


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
        ),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_a_lack_of_memory_is_recognised(error):
    assert is_out_of_memory(error)


def test_a_real_refusal_of_memory_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("out of memory"), KeyError("x")])
def test_other_errors_are_not(error):
    assert not is_out_of_memory(error)


def test_a_large_frame_on_a_cpu_is_tiled_well_below_16_gib():
    for engine in ("regen-4x-lite", "regen-4x"):
        workload = plan(width=4096, height=2304, engine=engine, device_type="cpu", gib=16, precision="fp32")
        assert workload.batch_size == 1
        assert workload.tile_pixels * properties_of(engine).activation_bytes_per_input_pixel <= 4 * GIB


def test_a_cpu_short_of_memory_gets_smaller_tiles():
    small, large = (plan(width=1920, height=1080, device_type="cpu", gib=g, precision="fp32") for g in (1, 8))
    assert small.tile_pixels < large.tile_pixels


def test_what_keeps_its_widest_tensor_in_32_bits_gets_no_larger_tiles():
    def tile_pixels(engine, precision):
        workload = plan(width=4096, height=2304, engine=engine, gib=8, precision=precision)
        return workload.tile_pixels

    assert (
        tile_pixels("regen-4x", "bf16") == tile_pixels("regen-4x", "mixed") == tile_pixels("regen-4x", "fp32")
    )
    assert tile_pixels("regen-4x", "fp16") > tile_pixels("regen-4x", "fp32")


def test_a_gpu_takes_many_small_frames_or_one_large():
    assert plan(width=240, height=136).batch_size == 16
    assert plan(width=640, height=360).batch_size == 4
    assert plan(width=1920, height=1080).batch_size == 1


def test_a_small_gpu_takes_fewer_frames_then_smaller_tiles():
    assert plan(width=240, height=136, engine="regen-4x", gib=2).batch_size < 16
    tight = plan(width=1920, height=1080, engine="regen-4x", gib=8)
    assert tight.batch_size == 1
    assert 0 < tight.tile_pixels < 1920 * 1080


@pytest.mark.parametrize("engine", ["regen-4x", "regen-4x-lite"])
@pytest.mark.parametrize("size", [(240, 136), (1280, 720), (4096, 2304)])
def test_no_tensor_outgrows_32_bit_counting(engine, size):
    workload = plan(width=size[0], height=size[1], engine=engine, gib=1000)
    pixels = min(size[0] * size[1], workload.tile_pixels)
    assert workload.batch_size * pixels * properties_of(engine).widest_tensor_values_per_input_pixel < 2**31


def test_the_limit_of_a_container_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(cpu, "_CGROUP", tmp_path)
    without = CpuDevice().available_bytes()
    assert without > 0
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert CpuDevice().available_bytes() == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert CpuDevice().available_bytes() > 2_000_000
