"""What only a CUDA device can show. Needs torch, numpy and safetensors; real weights where they are at hand."""

import math
import os

import numpy as np
import pytest
import torch

from bench.shapes import ARCHITECTURE_OF, properties_of
from models.architectures import ARCHITECTURES
from models.catalog import ENGINES, get_engine
from models.loader import load_network
from models.weights import WeightsError
from worker.inference.devices import choose_device
from worker.inference.frames import FrameFormat
from worker.inference.upscaler import Upscaler, make_upscaler

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("cuda")]


def network_of(engine_id, tmp_path_factory):
    """With real weights, or random ones scaled so that activations neither vanish nor overflow."""
    directory = os.environ.get("REGEN_TEST_WEIGHTS") or tmp_path_factory.mktemp("weights")
    try:
        return load_network(engine_id, weights_directory=directory)
    except WeightsError:
        torch.manual_seed(0)
        return ARCHITECTURES[ARCHITECTURE_OF[engine_id]]().requires_grad_(False).eval()


def upscale(network, engine_id, source, frames, device, precision, **options):
    upscaler = Upscaler(
        network,
        engine=get_engine(engine_id),
        source=source,
        target=source.enlarged(4),
        device=choose_device(str(device)),
        precision=precision,
        **options,
    )
    return upscaler.upscale(frames)


def smooth_frames(source, count):
    """Moving waves and an edge: frames with content at all scales."""
    y, x = np.mgrid[0 : source.height, 0 : source.width]
    frames = []
    for index in range(count):
        picture = 128 + 60 * np.sin((x + 3 * index) / 9) + 40 * np.sin(y / 5 + x / 17) + 20 * (x > y)
        frames.append(source.join([np.clip(picture + 10 * plane, 16, 235) for plane in range(3)]))
    return frames


def psnr(a, b):
    error = np.mean((a.astype(float) - b.astype(float)) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


@pytest.mark.parametrize("engine_id", ENGINES)
@pytest.mark.parametrize(("precision", "at_least"), [("fp32", 60), ("fp16", 50)])
def test_cuda_agrees_with_the_cpu(engine_id, precision, at_least, cuda, tmp_path_factory):
    network = network_of(engine_id, tmp_path_factory)
    source = FrameFormat(width=96, height=64, layout="yuv444")
    frames = smooth_frames(source, 3)
    expected = upscale(network, engine_id, source, frames, "cpu", "fp32")
    found = upscale(network, engine_id, source, frames, cuda, precision)
    assert min(psnr(a, b) for a, b in zip(found, expected, strict=True)) >= at_least


def test_auto_is_fp16(cuda):
    for engine in ENGINES.values():
        assert cuda.possible_precisions("auto", properties_of(engine)) == ("fp16",)


@pytest.mark.parametrize("bit_depth", [8, 10])
@pytest.mark.parametrize("layout", ["gray", "yuv420", "yuv422", "yuv444", "gbr"])
def test_conversions_give_the_same_codes_as_on_the_cpu(layout, bit_depth, cuda, tmp_path):
    source = FrameFormat(width=37, height=23, layout=layout, bit_depth=bit_depth)
    generator = np.random.default_rng(0)
    frames = [
        source.join([generator.integers(0, source.max_code + 1, shape) for shape in source.plane_shapes])
        for _ in range(3)
    ]
    on_cpu, on_cuda = (
        make_upscaler(
            engine_id="regen-4x-lite",
            source=source,
            target=source.enlarged(4),
            weights_directory=tmp_path,
            device=device,
            stand_in=True,
        ).upscale(frames)
        for device in ("cpu", "cuda")
    )
    target = source.enlarged(4)
    for a, b in zip(on_cpu, on_cuda, strict=True):
        for plane_a, plane_b in zip(target.split(a), target.split(b), strict=True):
            assert np.abs(plane_a.astype(int) - plane_b.astype(int)).max() <= 1


def test_tiles_of_lite_change_next_to_nothing(cuda, tmp_path_factory):
    network = network_of("regen-4x-lite", tmp_path_factory)
    source = FrameFormat(width=201, height=117, layout="yuv444")
    frames = smooth_frames(source, 2)
    whole = upscale(network, "regen-4x-lite", source, frames, cuda, "fp32")
    tiled = upscale(network, "regen-4x-lite", source, frames, cuda, "fp32", tile_pixels=6000)
    assert max(np.abs(a.astype(int) - b.astype(int)).max() for a, b in zip(whole, tiled, strict=True)) <= 1


def test_a_device_with_too_little_memory_still_gives_every_frame(cuda, tmp_path_factory):
    network = network_of("regen-4x-lite", tmp_path_factory)
    source = FrameFormat(width=640, height=360, layout="yuv420")
    frames = list(np.full((8, source.frame_bytes), 128, np.uint8))
    for index, frame in enumerate(frames):
        frame[: 640 * 360] = 40 + 20 * index
    expected = upscale(network, "regen-4x-lite", source, frames, cuda, "fp32")
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(cuda.torch_device).total_memory
    torch.cuda.set_per_process_memory_fraction(
        (torch.cuda.memory_reserved(cuda.torch_device) + 400 * 1024**2) / total, cuda.torch_device
    )
    try:
        found = upscale(network, "regen-4x-lite", source, frames, cuda, "fp32", batch_size=8)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, cuda.torch_device)
    assert len(found) == 8
    for a, b in zip(found, expected, strict=True):
        assert np.abs(a.astype(int) - b.astype(int)).max() <= 1
