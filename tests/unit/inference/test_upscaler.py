from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.architectures import SRVGGNetCompact
from models.catalog import UnknownEngine, get_engine
from models.loader import load_network
from models.weights import WeightsError
from worker.inference import upscaler as module
from worker.inference.devices import CpuDevice
from worker.inference.errors import DeviceUnavailable, InsufficientMemory, PrecisionUnsupported
from worker.inference.frames import FrameFormat
from worker.inference.upscaler import Upscaler, make_upscaler

CPU = CpuDevice()
LITE = get_engine("regen-4x-lite")
PROPERTIES = SRVGGNetCompact().properties
RGB = {"layout": "gbr", "full_range": True}


class NearestWithFaults(nn.Module):
    """Enlarges by nearest neighbour, unless the memory that it pretends to have runs out."""

    def __init__(self, *, max_pixels=None, failing_calls=(), error=None):
        super().__init__()
        self.max_pixels = max_pixels
        self.failing_calls = failing_calls
        self.error = error or RuntimeError("DefaultCPUAllocator: can't allocate memory")
        self.calls = []

    def __deepcopy__(self, memo):
        return self  # so that the test sees the calls

    def forward(self, x):
        pixels = x.shape[0] * x.shape[2] * x.shape[3]
        self.calls.append(pixels)
        if len(self.calls) - 1 in self.failing_calls or (self.max_pixels and pixels > self.max_pixels):
            raise self.error
        return x.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)


def upscaler_with(network, source, **options):
    return Upscaler(
        network,
        engine=LITE,
        properties=PROPERTIES,
        source=source,
        target=source.enlarged(4),
        device=CPU,
        precision="fp32",
        **options,
    )


def random_frames(source, count, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, source.frame_bytes).astype(np.uint8) for _ in range(count)]


def nearest(frame, source):
    return source.enlarged(4).join([plane.repeat(4, 0).repeat(4, 1) for plane in source.split(frame)])


def equal(found, expected):
    return len(found) == len(expected) and all(
        np.array_equal(a, b) for a, b in zip(found, expected, strict=True)
    )


def test_frames_come_back_enlarged_whole_and_in_order():
    source = FrameFormat(width=33, height=21, **RGB)
    frames = random_frames(source, 5)
    results = upscaler_with(NearestWithFaults(), source).upscale(frames)
    assert equal(results, [nearest(frame, source) for frame in frames])
    assert all(r.dtype == np.uint8 and r.shape == (source.enlarged(4).frame_bytes,) for r in results)


def test_read_only_frames_are_taken_and_no_frame_is_nothing():
    source = FrameFormat(width=4, height=4, **RGB)
    upscaler = upscaler_with(NearestWithFaults(), source)
    frame = np.frombuffer(bytes(range(48)), np.uint8)
    assert equal(upscaler.upscale([frame]), [nearest(frame, source)])
    assert upscaler.upscale([]) == []


@pytest.mark.parametrize(
    "frame", [np.zeros(47, np.uint8), np.zeros(48, np.int8), np.zeros((4, 12), np.uint8)]
)
def test_frames_of_another_kind_are_refused_before_any_work(frame):
    source = FrameFormat(width=4, height=4, **RGB)
    network = NearestWithFaults()
    with pytest.raises(ValueError, match="48 bytes"):
        upscaler_with(network, source).upscale([np.zeros(48, np.uint8), frame])
    assert network.calls == []


def test_the_target_may_differ_in_layout_and_depth():
    source = FrameFormat(width=6, height=4, layout="yuv420")
    target = FrameFormat(width=24, height=16, layout="yuv444", bit_depth=10)
    upscaler = Upscaler(
        NearestWithFaults(),
        engine=LITE,
        properties=PROPERTIES,
        source=source,
        target=target,
        device=CPU,
        precision="fp32",
    )
    frame = source.join(
        [np.full(shape, code) for shape, code in zip(source.plane_shapes, (100, 120, 140), strict=True)]
    )
    (result,) = upscaler.upscale([frame])
    assert [np.unique(plane).tolist() for plane in target.split(result)] == [[400], [480], [560]]


@pytest.mark.parametrize("size", [(24, 17), (25, 16), (6, 17)])
def test_a_larger_target_is_refused(size):
    source = FrameFormat(width=6, height=4)
    with pytest.raises(ValueError, match="24x16"):
        Upscaler(
            NearestWithFaults(),
            engine=LITE,
            source=source,
            target=FrameFormat(width=size[0], height=size[1]),
            device=CPU,
            precision="fp32",
        )


@pytest.mark.parametrize("size", [(97, 61), (128, 40), (37, 150)])
@pytest.mark.parametrize("tile_pixels", [1, 3000, 5000])
def test_tiles_of_lite_change_nothing(size, tile_pixels, weights_directory):
    source = FrameFormat(width=size[0], height=size[1], bit_depth=16, **RGB)
    network = load_network("regen-4x-lite", weights_directory=weights_directory)
    frames = random_frames(source, 1)
    whole = upscaler_with(network, source)
    tiled = upscaler_with(network, source, tile_pixels=tile_pixels)
    assert whole.tile_count == 1
    assert tiled.tile_count > 1
    expected, found = (u.upscale(frames)[0].view("<u2").astype(int) for u in (whole, tiled))
    # Of 65535 codes: what the order of float32 sums leaves. A missing row of padding would show in thousands.
    assert np.abs(found - expected).max() <= 2


def test_less_padding_than_the_radius_would_show(weights_directory):
    """That the test above can fail: with two pixels less, tiles differ by much more."""
    source = FrameFormat(width=97, height=61, bit_depth=16, **RGB)
    network = load_network("regen-4x-lite", weights_directory=weights_directory)
    options = {"source": source, "target": source.enlarged(4), "device": CPU, "precision": "fp32"}
    frames = random_frames(source, 1)
    expected = Upscaler(network, engine=LITE, **options).upscale(frames)[0]
    short = replace(network.properties, tile_overlap=network.properties.tile_overlap - 2)
    found = Upscaler(network, engine=LITE, properties=short, tile_pixels=3000, **options).upscale(frames)[0]
    assert np.abs(found.view("<u2").astype(int) - expected.view("<u2").astype(int)).max() > 10


def test_results_do_not_depend_on_how_frames_are_handed_over(weights_directory):
    source = FrameFormat(width=31, height=17)
    network = load_network("regen-4x-lite", weights_directory=weights_directory)
    upscaler = upscaler_with(network, source)
    frames = random_frames(source, 4)
    assert upscaler.batch_size == 1
    assert equal(upscaler.upscale(frames), [upscaler.upscale([frame])[0] for frame in frames])


def test_the_batch_shrinks_first_then_the_tile():
    source = FrameFormat(width=100, height=80, **RGB)
    network = NearestWithFaults(max_pixels=5000)
    upscaler = upscaler_with(network, source, batch_size=8)
    frames = random_frames(source, 8)
    assert equal(upscaler.upscale(frames), [nearest(frame, source) for frame in frames])
    assert network.calls[:4] == [64000, 32000, 16000, 8000]
    assert max(network.calls[4:]) <= 5000
    assert upscaler.batch_size == 1
    assert upscaler.tile_count > 1


def test_what_fitted_is_remembered():
    source = FrameFormat(width=100, height=80, **RGB)
    network = NearestWithFaults(max_pixels=5000)
    upscaler = upscaler_with(network, source, batch_size=4)
    upscaler.upscale(random_frames(source, 4))
    network.calls.clear()
    upscaler.upscale(random_frames(source, 4, seed=1))
    assert max(network.calls) <= 5000


@given(
    count=st.integers(1, 20),
    batch_size=st.integers(1, 8),
    failing_calls=st.sets(st.integers(0, 12), max_size=2),
    error=st.sampled_from(
        [
            RuntimeError("MPS backend out of memory"),
            MemoryError(),
            torch.OutOfMemoryError("CUDA out of memory"),
        ]
    ),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_no_frame_is_lost_or_moved_whenever_memory_runs_out(count, batch_size, failing_calls, error, seed):
    source = FrameFormat(width=100, height=80, **RGB)
    network = NearestWithFaults(failing_calls=failing_calls, error=error)
    frames = random_frames(source, count, seed)
    results = upscaler_with(network, source, batch_size=batch_size).upscale(frames)
    assert equal(results, [nearest(frame, source) for frame in frames])


def test_it_gives_up_only_when_the_smallest_tile_fails():
    source = FrameFormat(width=100, height=80, **RGB)
    network = NearestWithFaults(max_pixels=1)
    with pytest.raises(InsufficientMemory, match="100x80"):
        upscaler_with(network, source, batch_size=2).upscale(random_frames(source, 2))
    assert min(network.calls) <= (16 + 2 * PROPERTIES.tile_overlap) ** 2
    assert network.calls == sorted(network.calls, reverse=True)


def test_other_errors_pass_through_at_once():
    source = FrameFormat(width=8, height=8, **RGB)
    network = NearestWithFaults(failing_calls={0}, error=RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        upscaler_with(network, source).upscale(random_frames(source, 1))
    assert len(network.calls) == 1


def test_memory_that_runs_out_in_the_conversion_is_met_too(monkeypatch):
    source = FrameFormat(width=20, height=20, **RGB)
    convert, failures = module.rgb_to_planes, [MemoryError()]

    def failing_once(rgb, target):
        if failures:
            raise failures.pop()
        return convert(rgb, target)

    monkeypatch.setattr(module, "rgb_to_planes", failing_once)
    frames = random_frames(source, 3)
    results = upscaler_with(NearestWithFaults(), source, batch_size=3).upscale(frames)
    assert equal(results, [nearest(frame, source) for frame in frames])


@pytest.mark.parametrize("engine_id", ["regen-4x-lite", "regen-4x"])
def test_the_constructor_makes_what_a_worker_needs(engine_id, weights_directory, crop_pixels):
    """A film's frame is enlarged faithfully: averaged back over 4 x 4 it is nearly the picture it was."""
    rows, columns = crop_pixels.shape[:2]
    source = FrameFormat(width=columns, height=rows, layout="yuv444")
    upscaler = make_upscaler(
        engine_id=engine_id,
        source=source,
        target=source.enlarged(4),
        weights_directory=weights_directory,
        device="cpu",
        precision="fp32",
    )
    assert (upscaler.engine.id, upscaler.device, upscaler.precision) == (engine_id, CPU, "fp32")
    frame = source.join([crop_pixels[:, :, 1], np.full((rows, columns), 128), np.full((rows, columns), 128)])
    (result,) = upscaler.upscale([frame])
    luma = source.enlarged(4).split(result)[0].astype(float)
    small = luma.reshape(rows, 4, columns, 4).mean(axis=(1, 3))
    assert np.corrcoef(small.ravel(), crop_pixels[:, :, 1].clip(16, 235).ravel())[0, 1] > 0.97
    assert np.abs(np.diff(luma, axis=1)).mean() > 0.1


def test_the_constructor_refuses_what_cannot_be(tmp_path, monkeypatch):
    source = FrameFormat(width=8, height=8)
    options = {"source": source, "target": source.enlarged(4), "weights_directory": tmp_path}
    with pytest.raises(UnknownEngine):
        make_upscaler(engine_id="regen-2x", **options)
    with pytest.raises(DeviceUnavailable):
        make_upscaler(engine_id="regen-4x", device="cuda:99", **options)
    with pytest.raises(PrecisionUnsupported):
        make_upscaler(engine_id="regen-4x", device="cpu", precision="fp16", stand_in=True, **options)
    (tmp_path / "regen-4x.safetensors").write_bytes(b"garbage")
    with pytest.raises(WeightsError):
        make_upscaler(engine_id="regen-4x", device="cpu", **options)


def test_the_stand_in_needs_no_weights_and_is_exact(tmp_path):
    source = FrameFormat(width=9, height=5, bit_depth=10, **RGB)
    upscaler = make_upscaler(
        engine_id="regen-4x",
        source=source,
        target=source.enlarged(4),
        weights_directory=tmp_path,
        device="cpu",
        stand_in=True,
    )
    codes = np.random.default_rng(0).integers(0, 1024, (3, 5, 9))
    frame = source.join(list(codes))
    assert equal(upscaler.upscale([frame]), [nearest(frame, source)])
    assert list(tmp_path.iterdir()) == []
