"""Black is black and white is white: gray without a range, and RGB of few bits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.video.test_colour import make_video
from worker.video.colour import plan_colour
from worker.video.decoder import filter_chain

# Bits of red, green and blue, from the highest bit down.
PACKED = {"rgb565": (5, 6, 5), "rgb555": (5, 5, 5), "rgb444": (4, 4, 4), "rgb8": (3, 3, 2)}
FORMATS = (
    *("rgb565le", "bgr565be", "rgb555le", "bgr555be", "rgb444le", "bgr444be"),
    *("rgb8", "bgr8"),
)


def test_few_bits_reach_from_black_to_white(ffmpeg: Callable[..., bytes], tmp_path: Path) -> None:
    """Every value of every channel, beside the others' whites."""
    inputs: list[str | Path] = []
    outputs: list[str | Path] = []
    wanted = {pix_fmt: _every_value(pix_fmt) for pix_fmt in FORMATS}
    for number, (pix_fmt, (codes, _)) in enumerate(wanted.items()):
        raw, columns = tmp_path / f"{pix_fmt}.raw", codes.shape[1]
        word = "u1" if pix_fmt.endswith("8") else ">u2" if pix_fmt.endswith("be") else "<u2"
        raw.write_bytes(codes.astype(word).tobytes())
        video = make_video(codec="rawvideo", pix_fmt=pix_fmt, width=columns, height=3)
        colour = plan_colour(video, scale=4)
        chain = filter_chain(
            time_base=video.time_base,
            source=colour.source,
            decoded_pix_fmts=colour.decoded_pix_fmts,
            deinterlacing=None,
            expansion=colour.expansion,
        )
        inputs += ["-f", "rawvideo", "-pix_fmt", pix_fmt, "-s", f"{columns}x3", "-i", raw]
        outputs += ["-map", f"{number}:v", "-vf", chain, "-f", "rawvideo", tmp_path / f"{pix_fmt}.shown"]
    ffmpeg(*inputs, *outputs)
    for pix_fmt, (_, values) in wanted.items():
        shown = np.frombuffer((tmp_path / f"{pix_fmt}.shown").read_bytes(), np.uint8)
        green, blue, red = shown.reshape(3, *values.shape[1:])
        channels = (blue, green, red) if pix_fmt.startswith("bgr") else (red, green, blue)
        np.testing.assert_allclose(np.stack(channels), values, atol=1, rtol=0, err_msg=pix_fmt)
        assert [int(plane.max()) for plane in channels] == [255, 255, 255], pix_fmt
        assert [int(plane.min()) for plane in channels] == [0, 0, 0], pix_fmt


def _every_value(pix_fmt: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """A picture's codes, a row for each channel from the highest bits down, and that channel's values in 8 bits."""
    base = pix_fmt.removesuffix("le").removesuffix("be")
    bits = PACKED[base.replace("bgr", "rgb")]
    if base.startswith("bgr"):
        bits = bits[::-1]
    shifts = (bits[1] + bits[2], bits[2], 0)
    columns = 2 ** max(bits)
    codes = np.zeros((3, columns), np.int64)
    wanted = np.zeros((3, 3, columns))
    for row in range(3):
        for channel, (count, shift) in enumerate(zip(bits, shifts, strict=True)):
            top = 2**count - 1
            values = np.minimum(np.arange(columns), top) if channel == row else np.full(columns, top)
            codes[row] |= values << shift
            wanted[channel, row] = np.floor(values * 255 / top + 0.5)
    return codes, wanted


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "tagged", "full_range"),
    [
        ("ffv1", "gray", None, True),
        ("rawvideo", "gray", None, True),
        ("png", "gray16be", None, True),
        ("ffv1", "ya8", None, True),
        ("rawvideo", "monob", "tv", True),
        ("ffv1", "gray10le", "tv", False),
        ("h264", "gray", None, False),
        ("hevc", "gray10le", None, False),
        ("h264", "gray", "pc", True),
        ("ffv1", "yuv420p", None, False),
    ],
)
def test_the_range_of_gray(codec: str, pix_fmt: str, tagged: str | None, full_range: bool) -> None:
    colour = plan_colour(make_video(codec=codec, pix_fmt=pix_fmt, range=tagged), scale=4)
    assert (colour.source.full_range, colour.tags.range) == (full_range, "pc" if full_range else "tv")


def test_untagged_gray_comes_out_as_ffmpeg_shows_it(
    tmp_path: Path, ffmpeg: Callable[..., bytes], rendered: Callable[..., Any]
) -> None:
    """Y800 in AVI, of all codes."""
    raw, source = tmp_path / "raw", tmp_path / "a.avi"
    raw.write_bytes(bytes(range(256)))
    options = ("-f", "rawvideo", "-pix_fmt", "gray", "-s", "16x16", "-i", raw, "-c:v", "rawvideo")
    ffmpeg(*options, "-vtag", "Y800", source)
    output = rendered(source).output
    shown, reference = (
        np.frombuffer(
            ffmpeg("-i", path, "-vf", "scale=flags=accurate_rnd,format=rgb24", "-f", "rawvideo", "-"),
            np.uint8,
        )
        for path in (output, source)
    )
    enlarged = shown.reshape(64, 64, 3)[::4, ::4].reshape(-1)
    np.testing.assert_allclose(enlarged.astype(int), reference.astype(int), atol=1, rtol=0)
