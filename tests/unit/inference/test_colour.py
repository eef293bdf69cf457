"""Conversions against published values and against the formulas written a second time, in float64 numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.inference.colour import planes_to_rgb, rgb_to_planes
from worker.inference.frames import FrameFormat

MATRICES = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020nc": (0.2627, 0.0593),
    "smpte240m": (0.212, 0.087),
    "fcc": (0.30, 0.11),
    "smpte2085": (0.0, 0.0),
    "ycgco": None,
}
OFFSETS = {
    "left": (0, 0.5),
    "center": (0.5, 0.5),
    "topleft": (0, 0),
    "top": (0.5, 0),
    "bottomleft": (0, 1),
    "bottom": (0.5, 1),
}

formats_444 = st.builds(
    FrameFormat,
    width=st.integers(1, 9),
    height=st.integers(1, 9),
    layout=st.just("yuv444"),
    bit_depth=st.sampled_from([8, 10, 12, 16]),
    matrix=st.sampled_from(sorted(MATRICES)),
    full_range=st.booleans(),
)


def forward_matrix(name):
    if name == "ycgco":
        return np.array([[0.25, 0.5, 0.25], [-0.25, 0.5, -0.25], [0.5, 0, -0.5]])
    kr, kb = MATRICES[name]
    luma = np.array([kr, 1 - kr - kb, kb])
    return np.stack(
        [luma, (np.array([0, 0, 1]) - luma) / (2 - 2 * kb), (np.array([1, 0, 0]) - luma) / (2 - 2 * kr)]
    )


def codes_of(values, frame_format):
    """3 x H x W of Y in [0, 1], Cb and Cr in [-0.5, 0.5] -> codes, float64, not yet rounded."""
    depth = frame_format.bit_depth
    if frame_format.full_range:
        scale, offset = np.array([2.0**depth - 1] * 3), np.array([0, 2.0 ** (depth - 1), 2.0 ** (depth - 1)])
    else:
        step = 2.0 ** (depth - 8)
        scale, offset = step * np.array([219, 224, 224]), step * np.array([16, 128, 128])
    return np.clip(values * scale[:, None, None] + offset[:, None, None], 0, 2**depth - 1)


def values_of(codes, frame_format):
    depth = frame_format.bit_depth
    step = 2.0 ** (depth - 8)
    if frame_format.full_range:
        return np.stack(
            [codes[0] / (2**depth - 1), *((c - 2 ** (depth - 1)) / (2**depth - 1) for c in codes[1:])]
        )
    return np.stack(
        [(codes[0] - 16 * step) / (219 * step), *((c - 128 * step) / (224 * step) for c in codes[1:])]
    )


def to_rgb(frame, frame_format):
    return planes_to_rgb(torch.from_numpy(frame)[None], frame_format)


def to_planes(rgb, frame_format):
    return frame_format.split(
        rgb_to_planes(torch.as_tensor(rgb, dtype=torch.float32), frame_format)[0].numpy()
    )


@pytest.mark.parametrize(
    ("matrix", "full_range", "bit_depth", "rgb", "codes"),
    [
        ("bt709", False, 8, (1, 0, 0), (63, 102, 240)),
        ("bt709", False, 8, (0, 1, 0), (173, 42, 26)),
        ("bt709", False, 8, (0, 0, 1), (32, 240, 118)),
        ("bt709", False, 8, (1, 1, 1), (235, 128, 128)),
        ("bt709", False, 8, (0, 0, 0), (16, 128, 128)),
        ("bt601", False, 8, (1, 0, 0), (81, 90, 240)),
        ("bt601", False, 8, (0, 1, 0), (145, 54, 34)),
        ("bt601", True, 8, (1, 0, 0), (76, 85, 255)),
        ("bt2020nc", False, 10, (1, 1, 1), (940, 512, 512)),
        ("bt2020nc", False, 10, (1, 0, 0), (294, 387, 960)),
        ("bt709", True, 16, (1, 1, 1), (65535, 32768, 32768)),
    ],
)
def test_known_colours(matrix, full_range, bit_depth, rgb, codes):
    frame_format = FrameFormat(
        width=1, height=1, layout="yuv444", bit_depth=bit_depth, matrix=matrix, full_range=full_range
    )
    planes = to_planes(np.array(rgb).reshape(1, 3, 1, 1), frame_format)
    assert tuple(plane.item() for plane in planes) == codes
    back = to_rgb(frame_format.join(planes), frame_format)[0, :, 0, 0]
    assert back.tolist() == pytest.approx(rgb, abs=1.6 / 2 ** (bit_depth - 1))


@given(formats_444, st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_rgb_to_codes_agrees_with_float64(frame_format, seed):
    rgb = np.random.default_rng(seed).random((3, frame_format.height, frame_format.width)).astype(np.float32)
    expected = codes_of(np.einsum("ij,jhw->ihw", forward_matrix(frame_format.matrix), rgb), frame_format)
    # Half a code is rounding to nearest; the rest is what float32 leaves of 16 bits.
    assert np.abs(np.stack(to_planes(rgb[None], frame_format)) - expected).max() <= 0.51


@given(formats_444, st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_codes_to_rgb_agrees_with_float64(frame_format, seed):
    codes = np.random.default_rng(seed).integers(
        0, frame_format.max_code + 1, (3, *frame_format.plane_shapes[0])
    )
    inverse = np.linalg.inv(forward_matrix(frame_format.matrix))
    expected = np.einsum("ij,jhw->ihw", inverse, values_of(codes.astype(np.float64), frame_format)).clip(0, 1)
    found = to_rgb(frame_format.join(list(codes)), frame_format)[0].numpy()
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 2e-6


@given(formats_444, st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_a_round_trip_without_subsampling_keeps_every_code(frame_format, seed):
    """For colours that RGB has: the codes of others are clipped on the way."""
    rgb = np.random.default_rng(seed).random((3, frame_format.height, frame_format.width))
    codes = codes_of(
        np.einsum("ij,jhw->ihw", forward_matrix(frame_format.matrix), rgb * 0.9 + 0.05), frame_format
    )
    codes = np.rint(codes)
    back = to_planes(to_rgb(frame_format.join(list(codes)), frame_format), frame_format)
    assert np.abs(np.stack(back) - codes).max() <= 1


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("layout", ["gray", "gbr"])
@pytest.mark.parametrize("bit_depth", [8, 10, 16])
def test_gray_and_gbr_keep_every_code(full_range, layout, bit_depth):
    frame_format = FrameFormat(width=16, height=16, layout=layout, bit_depth=bit_depth, full_range=full_range)
    step = 2 ** (bit_depth - 8)
    low, high = (0, frame_format.max_code) if full_range else (16 * step, 235 * step)
    shape = (len(frame_format.plane_shapes), 16, 16)
    codes = np.random.default_rng(1).integers(low, high + 1, shape)
    back = np.stack(to_planes(to_rgb(frame_format.join(list(codes)), frame_format), frame_format))
    assert np.array_equal(back, codes)


def test_gbr_is_green_blue_red():
    frame_format = FrameFormat(width=1, height=1, layout="gbr", full_range=True)
    assert to_rgb(np.array([10, 20, 30], np.uint8), frame_format).flatten().mul(
        255
    ).tolist() == pytest.approx([30, 10, 20])


def test_ten_bits_stay_ten_bits():
    frame_format = FrameFormat(width=1024, height=1, layout="yuv444", bit_depth=10, full_range=True)
    planes = [np.arange(1024).reshape(1, -1), np.full((1, 1024), 512), np.full((1, 1024), 512)]
    back = to_planes(to_rgb(frame_format.join(planes), frame_format), frame_format)
    assert all(np.array_equal(a, b) for a, b in zip(planes, back, strict=True))


def test_values_beyond_the_range_are_clipped():
    frame_format = FrameFormat(width=2, height=1, layout="yuv444")
    planes = to_planes(torch.tensor([-0.5, 1.5]).expand(1, 3, 1, 2), frame_format)
    assert planes[0].tolist() == [[16, 235]]
    assert (
        to_rgb(frame_format.join([np.array([[0, 255]]), *[np.full((1, 2), 128)] * 2]), frame_format)
        .flatten()
        .tolist()
        == [0, 1] * 3
    )


@pytest.mark.parametrize("location", OFFSETS)
@pytest.mark.parametrize("layout", ["yuv420", "yuv422"])
def test_a_chroma_ramp_is_placed_exactly(location, layout):
    """Cb rises linearly across the picture: away from the borders it must come out at each luma sample's own
    place, and from there at each chroma sample's. Half a sample of displacement would be dozens of codes.
    """
    frame_format = FrameFormat(
        width=33, height=27, layout=layout, bit_depth=16, full_range=True, chroma_location=location
    )
    across, down = OFFSETS[location]
    rows, columns = frame_format.plane_shapes[1]

    def ramp(x, y):
        return 100.0 * x + 40.0 * y

    y, x = np.mgrid[0:rows, 0:columns]
    places_down = 2 * y + down if layout == "yuv420" else y
    chroma = 32768 + ramp(2 * x + across, places_down)
    planes = [np.full((27, 33), 32768), chroma, np.full((rows, columns), 32768)]
    rgb = to_rgb(frame_format.join(planes), frame_format)

    luma_y, luma_x = np.mgrid[0:27, 0:33]
    expected = ramp(luma_x, luma_y) / 65535 * 2 * (1 - 0.0722)
    found = rgb[0, 2].double().numpy() - 32768 / 65535
    inside = (slice(3, -3), slice(3, -3))
    assert np.abs(found - expected)[inside].max() < 1e-6

    back = to_planes(rgb, frame_format)[1].astype(float)
    inside = (slice(2, -2), slice(2, -2))
    assert np.abs(back - chroma)[inside].max() <= 1


@pytest.mark.parametrize("location", OFFSETS)
@pytest.mark.parametrize("layout", ["yuv420", "yuv422"])
@given(width=st.integers(1, 7), height=st.integers(1, 7), code=st.integers(40, 220))
@settings(max_examples=15, deadline=None)
def test_flat_chroma_stays_flat_up_to_the_borders_at_every_size(location, layout, width, height, code):
    frame_format = FrameFormat(width=width, height=height, layout=layout, chroma_location=location)
    planes = [
        np.full(shape, value)
        for shape, value in zip(frame_format.plane_shapes, (128, code, 128), strict=True)
    ]
    rgb = to_rgb(frame_format.join(planes), frame_format)
    assert rgb.shape == (1, 3, height, width)
    assert (rgb - rgb[:, :, :1, :1]).abs().max() < 1e-6
    back = to_planes(rgb.clamp(0, 1), frame_format)
    assert [plane.shape for plane in back] == list(frame_format.plane_shapes)
    assert all(np.ptp(plane) == 0 for plane in back)


@pytest.mark.parametrize("layout", ["gray", "yuv420", "yuv422", "yuv444", "gbr"])
@pytest.mark.parametrize("bit_depth", [8, 10])
def test_a_batch_is_its_frames_one_by_one(layout, bit_depth):
    frame_format = FrameFormat(width=9, height=7, layout=layout, bit_depth=bit_depth)
    planes = [
        [
            np.random.default_rng(seed).integers(0, frame_format.max_code + 1, shape)
            for shape in frame_format.plane_shapes
        ]
        for seed in range(3)
    ]
    frames = torch.from_numpy(np.stack([frame_format.join(frame) for frame in planes]))
    rgb = planes_to_rgb(frames, frame_format)
    assert rgb.shape == (3, 3, 7, 9)
    batch = rgb_to_planes(rgb, frame_format)
    for index in range(3):
        alone = planes_to_rgb(frames[index : index + 1], frame_format)
        assert torch.allclose(rgb[index], alone[0], atol=1e-6)
        assert torch.equal(rgb_to_planes(alone, frame_format)[0], batch[index])


def test_wrong_shapes_are_refused():
    frame_format = FrameFormat(width=4, height=4)
    with pytest.raises(ValueError, match="24"):
        planes_to_rgb(torch.zeros(1, 23, dtype=torch.uint8), frame_format)
    with pytest.raises(ValueError, match="4x4"):
        rgb_to_planes(torch.zeros(1, 3, 4, 5), frame_format)
