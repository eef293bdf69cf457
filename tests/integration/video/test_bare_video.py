"""Animations, streams without a container, and intermediate codecs: the same frames at the same times."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.platform.errors import NotAVideo
from app.platform.media.recognition import ANIMATED_WEBP, PICTURE
from worker.video import cuts
from worker.video.transparency import ALPHA_WARNING

# Of each frame in hundredths of a second, as a GIF's author sets them: 4, 7, 1, 10, ...
DELAYS = (4, 7, 3, 10, 25, 6)
STARTS = [sum(DELAYS[:number]) for number in range(len(DELAYS))]
UNEVEN = ",settb=1/100,setpts='" + "+".join(f"gt(N,{n})*{delay}" for n, delay in enumerate(DELAYS)) + "'"
AS_IS = ("-fps_mode", "passthrough", "-enc_time_base", "1/100")
RAW_H264 = ("-c:v", "libx264", "-preset", "veryfast", "-bf", "2", "-g", "5", "-pix_fmt", "yuv420p")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("a.gif", ("-c:v", "gif")),
        ("a.png", ("-f", "apng", "-pred", "none", "-pix_fmt", "rgb24", "-c:v", "apng")),
    ],
)
def test_animations_keep_their_delays(
    clip: Callable[..., Path],
    rendered: Callable[..., Any],
    decoded: Callable[..., Any],
    name: str,
    arguments: tuple[str, ...],
) -> None:
    source = clip(name, *arguments, *AS_IS, frames=len(DELAYS), after=UNEVEN)
    result = rendered(source)
    shown = decoded(result.output)
    assert shown.seconds == [Fraction(start, 100) for start in STARTS]
    assert shown.numbers == list(range(len(DELAYS)))


@pytest.mark.parametrize(
    ("name", "arguments", "after"),
    [
        ("a.gif", ("-c:v", "gif"), ",split[a][b];[a]palettegen[p];[b][p]paletteuse=alpha_threshold=128"),
        ("a.png", ("-f", "apng", "-pix_fmt", "rgba", "-c:v", "apng"), ""),
        ("a.mov", ("-c:v", "prores_ks", "-profile:v", "4444", "-pix_fmt", "yuva444p10le"), ""),
    ],
)
def test_transparency_is_told_where_pixels_are_transparent(
    clip: Callable[..., Path], planned: Callable[..., Any], name: str, arguments: tuple[str, ...], after: str
) -> None:
    """Not where the channel for it is there and opaque; of a later frame as well, but in a GIF, where such a pixel
    shows the frame before."""
    first = 0 if name == "a.gif" else 2
    alpha = f"'if(gte(N,{first})*lt(X,8),0,255)'"
    hole = f",format=rgba,geq=r='r(X,Y)':g='g(X,Y)':b='b(X,Y)':a={alpha}{after}"
    opaque = planned(clip(name, *arguments, frames=4))[1]
    clear = planned(clip(f"clear-{name}", *arguments, frames=4, after=hole))[1]
    assert "transparent" not in " ".join(opaque.warnings)
    assert ALPHA_WARNING in clear.warnings


def test_a_raw_stream_is_cut_into_segments(
    clip: Callable[..., Path], rendered: Callable[..., Any], decoded: Callable[..., Any]
) -> None:
    """Of two sizes: frames are counted on."""
    parts = [
        clip(f"{size}.h264", *RAW_H264, frames=15, rate="30000/1001", size=size)
        for size in ("64x48", "48x64")
    ]
    source = parts[0].with_name("a.h264")
    source.write_bytes(b"".join(part.read_bytes() for part in parts))
    result = rendered(source, segment_seconds=Fraction(1, 5))
    shown = decoded(result.output)
    assert len(result.segments) > 1
    assert shown.numbers == [*range(15)] * 2
    assert shown.seconds == [Fraction(number * 1001, 30_000) for number in range(30)]


def test_one_group_of_pictures_in_growing_segments(
    clip: Callable[..., Path],
    planned: Callable[..., Any],
    rendered: Callable[..., Any],
    decoded: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each decodes from the only keyframe on, and is as long as what it discards. The result is that of one pass."""
    monkeypatch.setattr(cuts, "MOST_DISCARDED_FRAMES", 4)
    one_group = (*RAW_H264, "-g", "999", "-sc_threshold", "0")
    source = clip("a.h264", *one_group, frames=30)
    apart = rendered(source, segment_seconds=Fraction(3, 25))
    in_mp4 = planned(clip("a.mp4", *one_group, frames=30), segment_seconds=Fraction(3, 25))[2]
    for segments in (apart.segments, in_mp4):
        assert [(one.first_frame, one.source_frames, one.discarded_frames) for one in segments] == [
            (0, 3, 0),
            (3, 3, 3),
            (6, 6, 6),
            (12, 18, 12),
        ]
    whole = rendered(source, name="whole", segment_seconds=Fraction(10))
    assert len(whole.segments) == 1
    shown, expected = decoded(apart.output), decoded(whole.output)
    assert shown.numbers == list(range(30))
    assert shown.seconds == expected.seconds
    np.testing.assert_array_equal(np.array(shown.planes[-1][0]), np.array(expected.planes[-1][0]))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("a.hevc", ("-c:v", "libx265", "-x265-params", "log-level=none", "-preset", "ultrafast")),
        ("a.y4m", ("-c:v", "wrapped_avframe", "-pix_fmt", "yuv422p")),
        ("a.avi", ("-c:v", "utvideo", "-pix_fmt", "yuv422p")),
        ("a.mov", ("-c:v", "cfhd", "-pix_fmt", "yuv422p10le")),
    ],
)
def test_frames_and_times_of_other_kinds(
    clip: Callable[..., Path], planned: Callable[..., Any], name: str, arguments: tuple[str, ...]
) -> None:
    _, render, segments = planned(clip(name, *arguments, frames=5))
    ticks = [segment.start_tick + tick for segment in segments for tick in segment.output_ticks()]
    assert [Fraction(tick, render.timescale) for tick in ticks] == [
        Fraction(number, 25) for number in range(5)
    ]
    assert render.warnings == ()


def test_what_is_no_animation_or_cannot_be_decoded_is_named(
    clip: Callable[..., Path], planned: Callable[..., Any], tmp_path: Path
) -> None:
    webp = tmp_path / "a.webp"
    webp.write_bytes(b"RIFF\0\1\0\0WEBPVP8X\x0a\0\0\0\x02" + bytes(64))
    for path, sentence in (
        (clip("still.gif", "-c:v", "gif", frames=1), PICTURE),
        (webp, ANIMATED_WEBP),
        (clip("a.mkv", "-c:v", "magicyuv", frames=2), r"\(magicyuv\)\. Convert it to another one first"),
    ):
        with pytest.raises(NotAVideo, match=sentence):
            planned(path)
