import subprocess

import numpy as np
import pytest

from worker.inference.frames import BIT_DEPTHS, FrameFormat


@pytest.mark.parametrize("size", [(64, 48), (65, 49), (1, 1)])
@pytest.mark.parametrize("layout", ["gray", "yuv420", "yuv422", "yuv444", "gbr"])
@pytest.mark.parametrize("bit_depth", [8, 10, 16])
def test_a_frame_has_as_many_bytes_as_ffmpeg_gives(size, layout, bit_depth):
    frame_format = FrameFormat(width=size[0], height=size[1], layout=layout, bit_depth=bit_depth)
    # The raw encoder at the very size: lavfi sources would round odd sizes with subsampled formats.
    source = b"\x80" * (size[0] * size[1] * 3)
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "gbrp",
        "-s",
        f"{size[0]}x{size[1]}",
        "-i",
        "-",
    ]
    command += ["-pix_fmt", frame_format.pix_fmt, "-f", "rawvideo", "-"]
    done = subprocess.run(command, input=source, capture_output=True, check=True)
    assert len(done.stdout) == frame_format.frame_bytes


@pytest.mark.parametrize(
    ("layout", "bit_depth", "name"),
    [
        ("yuv420", 8, "yuv420p"),
        ("yuv422", 10, "yuv422p10le"),
        ("yuv444", 12, "yuv444p12le"),
        ("gray", 8, "gray"),
        ("gray", 10, "gray10le"),
        ("gbr", 8, "gbrp"),
        ("gbr", 16, "gbrp16le"),
    ],
)
def test_formats_go_by_ffmpegs_names(layout, bit_depth, name):
    assert FrameFormat(width=2, height=2, layout=layout, bit_depth=bit_depth).pix_fmt == name


def test_ffmpeg_knows_every_name():
    listing = subprocess.run(
        ["ffmpeg", "-v", "error", "-pix_fmts"], capture_output=True, text=True, check=True
    )
    known = {line.split()[1] for line in listing.stdout.splitlines() if len(line.split()) > 2}
    layouts = ("gray", "yuv420", "yuv422", "yuv444", "gbr")
    ours = {
        FrameFormat(width=2, height=2, layout=a, bit_depth=b).pix_fmt for a in layouts for b in BIT_DEPTHS
    }
    assert ours <= known


@pytest.mark.parametrize("layout", ["gray", "yuv420", "yuv422", "yuv444", "gbr"])
@pytest.mark.parametrize("bit_depth", [8, 10])
def test_planes_split_from_a_frame_join_to_the_same_frame(layout, bit_depth):
    frame_format = FrameFormat(width=5, height=3, layout=layout, bit_depth=bit_depth)
    frame = np.random.default_rng(0).integers(0, 256, frame_format.frame_bytes).astype(np.uint8)
    planes = frame_format.split(frame)
    assert tuple(plane.shape for plane in planes) == frame_format.plane_shapes
    assert np.array_equal(frame_format.join(planes), frame)


def test_samples_of_more_than_eight_bits_are_little_endian():
    frame_format = FrameFormat(width=1, height=1, layout="gray", bit_depth=10)
    assert frame_format.split(np.array([0x34, 0x02], np.uint8))[0].item() == 0x234


def test_wrong_frames_and_planes_are_refused():
    frame_format = FrameFormat(width=4, height=4)
    for frame in (np.zeros(23, np.uint8), np.zeros(24, np.int8), np.zeros((4, 6), np.uint8)):
        with pytest.raises(ValueError, match="24 bytes"):
            frame_format.split(frame)
    with pytest.raises(ValueError, match="shapes"):
        frame_format.join([np.zeros((4, 4), np.uint8)])


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0},
        {"height": -1},
        {"bit_depth": 7},
        {"bit_depth": 11},
        {"layout": "nv12"},
        {"matrix": "bt602"},
        {"chroma_location": "middle"},
    ],
)
def test_formats_that_do_not_exist_are_refused(wrong):
    with pytest.raises(ValueError):
        FrameFormat(**{"width": 2, "height": 2, **wrong})


def test_an_enlarged_format_differs_in_size_alone():
    small = FrameFormat(width=3, height=5, layout="yuv422", bit_depth=10, matrix="bt601", full_range=True)
    large = small.enlarged(4)
    assert (large.width, large.height) == (12, 20)
    assert large.pix_fmt == small.pix_fmt
    assert (large.matrix, large.full_range) == ("bt601", True)
