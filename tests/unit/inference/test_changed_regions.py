"""Unchanged pixels are not computed again, and results equal those of whole frames to the last bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.architectures import SRVGGNetCompact
from models.catalog import get_engine
from models.loader import load_network
from worker.inference.changed_regions import ChangedRegions, Region
from worker.inference.cpu.kernels import find_kernels
from worker.inference.cpu.network import CompiledNetwork
from worker.inference.devices import CpuDevice
from worker.inference.frames import FrameFormat
from worker.inference.precision import place_network
from worker.inference.upscaler import Upscaler, make_upscaler

CPU = torch.device("cpu")
LITE = get_engine("regen-4x-lite")
# With a reach of three pixels, so that small frames have parts.
SMALL = SRVGGNetCompact(features=16, convolutions=1).properties
FORMATS = [
    FrameFormat(width=161, height=97),
    FrameFormat(
        width=160, height=96, layout="yuv422", bit_depth=10, matrix="bt601", chroma_location="topleft"
    ),
    FrameFormat(width=163, height=94, layout="gbr", full_range=True),
    FrameFormat(width=128, height=129, layout="gray", bit_depth=12),
]


class Counted(nn.Module):
    """A network that notes how many pixels it was given, call by call."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.calls: list[int] = []

    def __deepcopy__(self, memo: object) -> "Counted":
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.append(x.shape[0] * x.shape[2] * x.shape[3])
        return self.network(x)


@pytest.fixture(scope="module")
def network():
    """Run by torch on every machine: a network of an unknown class is not compiled."""
    torch.manual_seed(1)
    return Counted(SRVGGNetCompact(features=16, convolutions=1).eval())


def upscaler_of(network, source, **options):
    options = {"device": CpuDevice(), "precision": "fp32"} | options
    return Upscaler(
        network, engine=LITE, properties=SMALL, source=source, target=source.enlarged(4), **options
    )


def noise(source, seed=0):
    generator = np.random.default_rng(seed)
    planes = [
        generator.integers(0, source.max_code + 1, shape).astype(source.dtype)
        for shape in source.plane_shapes
    ]
    return source.join(planes)


def with_change(source, frame, *, top, left, rows, columns, seed=1):
    """The frame with other noise in a rectangle of each plane, given in luma samples."""
    planes = [plane.copy() for plane in source.split(frame)]
    other = source.split(noise(source, seed))
    for plane, new in zip(planes, other, strict=True):
        down, across = plane.shape[0] / source.height, plane.shape[1] / source.width
        where = (
            slice(int(top * down), int((top + rows) * down) + 1),
            slice(int(left * across), int((left + columns) * across) + 1),
        )
        plane[where] = new[where]
    return source.join(planes)


def alone(network, source, frame):
    """What the frame becomes without any frame before it."""
    return upscaler_of(network, source).upscale([frame])[0]


def test_a_frame_that_comes_again_is_not_computed_again(network):
    source = FORMATS[0]
    counted = Counted(network)
    upscaler = upscaler_of(counted, source)
    one, other = noise(source), noise(source, 1)

    results = [*upscaler.upscale([one, one, other]), *upscaler.upscale([other]), *upscaler.upscale([one])]

    assert counted.calls == [source.width * source.height] * 3
    for result, frame in zip(results, [one, one, other, other, one], strict=True):
        assert np.array_equal(result, alone(network, source, frame))


def test_frames_are_compared_as_they_were_when_they_were_given(network):
    source = FORMATS[0]
    upscaler = upscaler_of(network, source)
    buffer = noise(source)
    upscaler.upscale([buffer])

    buffer[:] = noise(source, 1)

    assert np.array_equal(upscaler.upscale([buffer])[0], alone(network, source, buffer))


def test_equal_frames_leave_room_for_others_in_a_batch(network):
    source = FORMATS[0]
    counted = Counted(network)
    frames = [noise(source, seed) for seed in (0, 0, 1, 1, 2, 2, 3, 3)]

    results = upscaler_of(counted, source, batch_size=4).upscale(frames)

    assert counted.calls == [4 * source.width * source.height]
    for result, frame in zip(results, frames, strict=True):
        assert np.array_equal(result, alone(network, source, frame))


@pytest.mark.parametrize("source", FORMATS, ids=lambda source: source.pix_fmt)
def test_a_small_change_costs_a_small_part_and_the_result_is_the_same(network, source):
    counted = Counted(network)
    upscaler = upscaler_of(counted, source)
    frame = noise(source)
    upscaler.upscale([frame])
    for seed in range(1, 5):
        frame = with_change(source, frame, top=40, left=50, rows=6, columns=9, seed=seed)
        assert np.array_equal(upscaler.upscale([frame])[0], alone(network, source, frame))

    whole = source.width * source.height
    # The first change proves the part's size beside a whole frame.
    assert counted.calls[:2] == [whole, whole]
    assert len(counted.calls) == 6
    assert max(counted.calls[2:]) < whole / 2


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_whatever_changes_the_result_is_that_of_a_frame_alone(network, data):
    source = data.draw(st.sampled_from(FORMATS))
    upscaler = upscaler_of(network, source)
    frame = noise(source)
    for seed in range(1, 7):
        for _ in range(data.draw(st.integers(0, 3))):
            rows, columns = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 30))
            frame = with_change(
                source,
                frame,
                top=data.draw(st.integers(0, source.height - rows)),
                left=data.draw(st.integers(0, source.width - columns)),
                rows=rows,
                columns=columns,
                seed=seed,
            )
        assert np.array_equal(upscaler.upscale([frame])[0], alone(network, source, frame))


class SizeMatters(nn.Module):
    """A network whose kernels add up in another order for small parts."""

    def __init__(self, network: nn.Module, smallest_pixels: int) -> None:
        super().__init__()
        self.network = network
        self.smallest_pixels = smallest_pixels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        off = 0.01 if x.shape[2] * x.shape[3] < self.smallest_pixels else 0.0
        return self.network(x) + off


def test_parts_that_come_out_otherwise_are_never_used(network):
    source = FORMATS[0]
    fickle = SizeMatters(network, source.width * source.height)
    upscaler = upscaler_of(fickle, source)
    frame = noise(source)
    upscaler.upscale([frame])
    for seed in range(1, 5):
        frame = with_change(source, frame, top=40, left=50, rows=6, columns=9, seed=seed)
        assert np.array_equal(upscaler.upscale([frame])[0], alone(network, source, frame))


def test_proofs_never_cost_more_than_the_credit(network):
    source = FrameFormat(width=320, height=320, layout="gray")
    counted = Counted(network)
    upscaler = upscaler_of(counted, source)
    frame = noise(source)
    upscaler.upscale([frame])
    for seed in range(1, 30):  # another size each time: nothing is ever proved twice
        frame = with_change(source, frame, top=3, left=3, rows=8 * seed, columns=300 - 9 * seed, seed=seed)
        upscaler.upscale([frame])

    whole = 320 * 320
    assert sum(counted.calls) <= 30 * whole + 2 * whole


class TestChangedRegions:
    def regions(self):
        return ChangedRegions(height=160, width=320, reach=18)

    def changed(self, *places):
        before = torch.zeros(1, 3, 160, 320)
        after = before.clone()
        for row, column in places:
            after[0, 1, row, column] = 1e-6
        return self.regions().find(before, after)

    def test_nothing(self):
        assert self.changed() == []

    @given(row=st.integers(0, 159), column=st.integers(0, 319))
    def test_everything_within_reach_of_a_change_is_covered(self, row, column):
        [region] = self.changed((row, column))

        assert region.top <= max(0, row - 19) and region.bottom >= min(160, row + 20)
        assert region.left <= max(0, column - 19) and region.right >= min(320, column + 20)

    def test_changes_far_apart_are_separate_parts(self):
        assert len(self.changed((5, 5), (150, 310))) == 2

    def test_changes_everywhere_are_the_whole(self):
        assert (
            self.changed(*[(row, column) for row in range(0, 160, 16) for column in range(0, 320, 16)])
            is None
        )

    def test_what_a_part_reads_ends_at_the_frame(self):
        read = self.regions().input_of(Region(top=0, bottom=16, left=304, right=320))

        assert read == Region(top=0, bottom=36, left=284, right=320)


def test_a_film_over_a_still_picture_with_the_real_network(weights_directory, crop_pixels):
    """As a screen recording has it: one window moves, all else stays."""
    lite = get_engine("regen-4x-lite")
    source = FrameFormat(width=161, height=133, layout="gbr", full_range=True)
    network = load_network(lite.id, weights_directory=weights_directory)
    properties = network.properties
    counted = Counted(place_network(network, device=CPU, precision="fp32"))
    tiles = (source.height // crop_pixels.shape[0] + 1, source.width // crop_pixels.shape[1] + 1, 1)
    still = np.tile(crop_pixels, tiles)[: source.height, : source.width]
    frames = []
    for step in range(4):
        picture = still.copy()
        # A window of the picture, turned over, that is redrawn at every step.
        picture[114:127, 130:143] = np.roll(still[20:33, 20:33][::-1], step, axis=0)
        frames.append(source.join([picture[..., channel] for channel in (1, 2, 0)]))

    def upscaler(network):
        return Upscaler(
            network,
            engine=lite,
            properties=properties,
            source=source,
            target=source.enlarged(4),
            device=CpuDevice(),
            precision="fp32",
        )

    one_after_another = upscaler(counted)
    for frame in frames:
        fresh = upscaler(Counted(counted.network))
        assert np.array_equal(one_after_another.upscale([frame])[0], fresh.upscale([frame])[0])
    assert counted.calls[-1] < source.width * source.height / 2


@pytest.mark.skipif(find_kernels() is None, reason="the package was installed without a C compiler")
def test_a_film_over_a_still_picture_with_compiled_convolutions(weights_directory, crop_pixels):
    """They compute in squares: a pixel's last bit reaches further."""
    lite = get_engine("regen-4x-lite")
    source = FrameFormat(width=325, height=275, layout="yuv420")
    tiles = (source.height // crop_pixels.shape[0] + 1, source.width // crop_pixels.shape[1] + 1, 1)
    still = np.tile(crop_pixels, tiles)[: source.height, : source.width, 1]
    frames = []
    for step in range(3):
        picture = still.copy()
        picture[7:25, 11:40] = np.roll(still[30:48, 20:49], step, axis=1)
        frames.append(source.join([picture, picture[::2, ::2], 255 - picture[::2, ::2]]))

    def upscaler():
        return make_upscaler(
            engine_id=lite.id,
            source=source,
            target=source.enlarged(4),
            weights_directory=weights_directory,
            device="cpu",
            precision="fp32",
        )

    one_after_another = upscaler()
    runtime = one_after_another._runtime
    assert isinstance(runtime.network, CompiledNetwork)
    runtime.network = counted = Counted(runtime.network)
    for frame in frames:
        assert np.array_equal(one_after_another.upscale([frame])[0], upscaler().upscale([frame])[0])
    assert counted.calls[-1] < source.width * source.height / 2
