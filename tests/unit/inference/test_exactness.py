"""Chroma locations and the precision of samples, compared with the formulas in float64 (`h273`)."""

import numpy as np
import pytest
import torch

from models.catalog import ENGINES, get_engine
from models.loader import load_network
from tests.unit.inference.h273 import PLACES, Coding, codes_of, rgb_of
from worker.inference.colour import planes_to_rgb, rgb_to_planes
from worker.inference.devices import CpuDevice
from worker.inference.frames import FrameFormat
from worker.inference.precision import place_network
from worker.inference.upscaler import Upscaler

CPU = torch.device("cpu")


def format_of(coding, *, width, height):
    return FrameFormat(
        width=width,
        height=height,
        layout=f"yuv{coding.chroma}",
        bit_depth=coding.bits,
        matrix={"smpte170m": "bt601"}.get(coding.matrix, coding.matrix),
        full_range=coding.full_range,
        chroma_location=coding.place,
    )


@pytest.fixture(scope="module")
def networks(weights_directory):
    """The engines' networks by id, and the stand-in."""
    real = {one: load_network(one, weights_directory=weights_directory) for one in ENGINES}
    stand_in = load_network("regen-4x-lite", weights_directory=weights_directory, stand_in=True)
    return {**real, "stand-in": stand_in}


def upscaler_for(network, source, *, engine_id="regen-4x-lite", target=None, precision="fp32", **options):
    return Upscaler(
        network,
        engine=get_engine(engine_id),
        source=source,
        target=target or source.enlarged(4),
        device=CpuDevice(),
        precision=precision,
        **options,
    )


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("chroma", ["420", "422"])
@pytest.mark.parametrize("size", [(24, 18), (25, 19)])
def test_chroma_of_every_place_agrees_with_float64(place, chroma, size):
    """Borders and odd sizes too."""
    width, height = size
    coding = Coding(matrix="bt2020nc", full_range=False, bits=10, chroma=chroma, place=place)
    frame_format = format_of(coding, width=width, height=height)
    random = np.random.default_rng(7)
    planes = [random.integers(64, 940, shape) for shape in frame_format.plane_shapes]
    rgb = planes_to_rgb(torch.from_numpy(frame_format.join(planes))[None], frame_format)
    expected = rgb_of(planes, coding)
    assert np.abs(rgb[0].permute(1, 2, 0).numpy() - expected).max() < 2e-6

    found = frame_format.split(rgb_to_planes(rgb, frame_format)[0].numpy())
    for plane, exact in zip(found, codes_of(expected, coding), strict=True):
        assert np.abs(plane - exact).max() < 0.51


@pytest.mark.parametrize("upright", [True, False], ids=["upright", "level"])
@pytest.mark.parametrize(
    ("chroma", "place"), [("420", "left"), ("420", "topleft"), ("420", "center"), ("422", "left")]
)
def test_an_edge_between_red_and_blue_stays_where_it_is(chroma, place, upright, networks):
    """To a fiftieth of a pixel. Chroma taken for another place's would be off by half a pixel."""
    coding = Coding(matrix="bt709", full_range=False, bits=10, chroma=chroma, place=place)
    shown = Coding(matrix="bt709", full_range=False, bits=10, place="left" if place == "center" else place)
    edge = 15.0
    red, blue = np.array([0.7, 0.3, 0.3]), np.array([0.3, 0.3, 0.7])
    share = np.broadcast_to(np.clip(edge - np.arange(32), 0, 1), (32, 32))
    share = (share if upright else share.T)[:, :, None]
    picture = share * red + (1 - share) * blue
    source, target = format_of(coding, width=32, height=32), format_of(shown, width=128, height=128)
    upscaler = upscaler_for(networks["stand-in"], source, target=target)
    (frame,) = upscaler.upscale([source.join([np.rint(plane) for plane in codes_of(picture, coding)])])

    def place_of(rgb):
        """How far the red side reaches, in pixels: to a fraction of one, whatever the edge's shape."""
        difference = rgb[:, :, 0] - rgb[:, :, 2]
        profile = difference.mean(axis=0 if upright else 1)
        sides = profile[0], profile[-1]
        return ((profile - sides[1]) / (sides[0] - sides[1])).sum()

    assert place_of(picture) == pytest.approx(edge, abs=1e-6)
    assert place_of(rgb_of(target.split(frame), shown)) / 4 == pytest.approx(edge, abs=0.02)


class Reached(Exception):
    """The first convolution was."""


@pytest.mark.parametrize("engine_id", ENGINES)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "mixed"])
def test_the_lowest_of_ten_bits_reaches_the_network(engine_id, precision, networks):
    """Every gray of the limited range is another input of the first convolution."""
    source = FrameFormat(width=877, height=1, layout="gray", bit_depth=10)
    network = place_network(networks[engine_id], device=CPU, precision=precision)
    rgb = planes_to_rgb(torch.from_numpy(source.join([np.arange(64, 941).reshape(1, -1)]))[None], source)
    assert len(rgb[0, 0, 0].unique()) == 877  # lite's result is added to this
    seen = []

    def look(module, inputs):
        seen.append(inputs[0])
        raise Reached

    first = next(module for module in network.modules() if isinstance(module, torch.nn.Conv2d))
    first.register_forward_pre_hook(look)
    with torch.inference_mode(), pytest.raises(Reached):
        network(rgb)
    assert [len(plane.unique()) for plane in seen[0][0]] == [877] * 3


@pytest.mark.parametrize(
    ("engine_id", "precision"),
    [(engine_id, precision) for engine_id in ENGINES for precision in ("fp32", "bf16", "mixed")],
)
def test_a_smooth_ramp_of_ten_bits_comes_out_smooth(engine_id, precision, networks):
    """One code a pixel. In 8 bits every fourth code alone would be left."""
    source = FrameFormat(width=72, height=4, bit_depth=10)
    ramp = np.tile(np.arange(800, 872), (4, 1))
    gray = [np.full(shape, 512) for shape in source.plane_shapes[1:]]
    upscaler = upscaler_for(networks[engine_id], source, engine_id=engine_id, precision=precision)
    (frame,) = upscaler.upscale([source.join([ramp, *gray])])
    # Without the borders, where the network sees an edge.
    row = upscaler.target.split(frame)[0][8, 48:-48].astype(int)
    assert np.ptp(row) > 36
    assert len(np.unique(row)) > 0.75 * np.ptp(row)


@pytest.mark.parametrize("batch_size", [2, 3])
def test_batches_change_next_to_nothing(batch_size, crop_pixels, networks):
    rows, columns = crop_pixels.shape[:2]
    source = FrameFormat(width=columns, height=rows, layout="gbr", full_range=True, bit_depth=16)
    pictures = [np.roll(crop_pixels.astype(int) * 257, step, axis=1) for step in (0, 5, 11)]
    frames = [source.join([picture[:, :, index] for index in (1, 2, 0)]) for picture in pictures]
    one_by_one, together = (
        upscaler_for(networks["regen-4x-lite"], source, batch_size=size).upscale(frames)
        for size in (1, batch_size)
    )
    for a, b in zip(one_by_one, together, strict=True):
        # Of 65535 codes: what the order of float32 sums leaves.
        assert np.abs(a.view("<u2").astype(int) - b.view("<u2").astype(int)).max() <= 2
