"""Every kind of input: the same frames, in the same order, at the same times, four times as large."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
B_FRAMES = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-g", "10")
UNEVEN = ",settb=1/1000,setpts='(N*40+mod(N*N,7)*5)/1000/TB'"
MILLISECONDS = ("-fps_mode", "passthrough", "-enc_time_base", "1/1000")
# Drops two of five frames: as a recorder does that keeps up badly.
GAPS = ",select='gt(mod(n,5),1)'"

KINDS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "plain": ("a.mp4", X264, {}),
    "b-frames": ("a.mp4", B_FRAMES, {}),
    "open-gop": ("a.mp4", (*B_FRAMES, "-x264-params", "open-gop=1:bframes=3:scenecut=0"), {"frames": 60}),
    "intra-refresh": ("a.mp4", (*X264, "-x264-params", "intra-refresh=1:keyint=12"), {"frames": 60}),
    "hevc-cra": (
        "a.mp4",
        (
            "-c:v",
            "libx265",
            "-preset",
            "ultrafast",
            "-x265-params",
            "open-gop=1:keyint=10:bframes=3:log-level=none",
        ),
        {"frames": 60},
    ),
    "ntsc-film": ("a.mp4", (*B_FRAMES, "-video_track_timescale", "24000"), {"rate": "24000/1001"}),
    "variable-mkv": ("a.mkv", (*B_FRAMES, *MILLISECONDS), {"after": UNEVEN}),
    "variable-mp4": ("a.mp4", (*B_FRAMES, "-fps_mode", "passthrough"), {"frames": 60, "after": GAPS}),
    "ten-megahertz": (
        "a.mp4",
        (
            *B_FRAMES,
            "-fps_mode",
            "passthrough",
            "-enc_time_base",
            "1/10000000",
            "-video_track_timescale",
            "10000000",
        ),
        {"after": ",settb=1/10000000,setpts='N*333333+mod(N,3)'"},
    ),
    "mpegts": ("a.ts", (*B_FRAMES, "-bf", "3"), {"frames": 60}),
    "mpegts-slow": ("a.ts", (*B_FRAMES, "-bf", "3"), {"frames": 30, "rate": "5"}),
    "mpeg2-ts": ("a.ts", ("-c:v", "mpeg2video", "-bf", "2", "-g", "10", "-q:v", "2"), {"frames": 60}),
    "mpeg-ps": ("a.mpg", ("-c:v", "mpeg2video", "-bf", "2", "-g", "10", "-q:v", "2"), {"frames": 60}),
    "avi": ("a.avi", ("-c:v", "mpeg4", "-bf", "0", "-g", "10", "-q:v", "2"), {"rate": "30000/1001"}),
    "avi-b-frames": ("a.avi", ("-c:v", "mpeg4", "-bf", "2", "-g", "10", "-q:v", "2"), {"frames": 60}),
    "webm-vp9": ("a.webm", ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-deadline", "realtime", "-g", "10"), {}),
    "flv": ("a.flv", B_FRAMES, {}),
    "mjpeg": ("a.mov", ("-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-q:v", "2"), {}),
    "full-range": ("a.mp4", (*X264[:-1], "yuvj420p"), {}),
    "odd-size": ("a.mp4", (*X264, "-vf", "crop=61:47:0:0"), {}),
    "single-frame": ("a.mp4", X264, {"frames": 1}),
    "two-frames": ("a.mp4", X264, {"frames": 2}),
    "rotated": ("a.mp4", X264, {}),
    "anamorphic": ("a.mp4", (*X264, "-vf", "setsar=1333/1001:max=2000"), {}),
}

WHOLE = ("single-frame", "rotated", "anamorphic", "odd-size", "full-range", "mjpeg")


@pytest.mark.parametrize("kind", KINDS)
def test_kind(
    kind: str,
    clip: Callable[..., Path],
    rendered: Callable[..., Any],
    decoded: Callable[..., Any],
    ffmpeg: Callable[..., bytes],
    tmp_path: Path,
) -> None:
    name, arguments, graph = KINDS[kind]
    source = clip(name, *arguments, **graph)
    if kind == "rotated":
        plain, source = source, tmp_path / "rotated.mp4"
        if b"-display_rotation" in ffmpeg("-h", "full"):
            ffmpeg("-display_rotation", "90", "-i", plain, "-c", "copy", source)
        else:
            ffmpeg("-i", plain, "-c", "copy", "-metadata:s:v:0", "rotate=90", source)
    seconds = graph.get("frames", 30) / Fraction(graph.get("rate", "25"))
    # The others are decoded like one of these.
    is_cut = kind not in WHOLE
    result = rendered(source, segment_seconds=seconds * (Fraction(4, 5) if is_cut else 2))
    full_range = result.plan.target.full_range
    before = decoded(source, pix_fmt="yuvj420p" if full_range else "yuv420p")
    after = decoded(result.output, pix_fmt="yuvj420p" if full_range else "yuv420p")

    height, width = before.planes[0][0].shape
    assert after.planes[0][0].shape == (4 * height, 4 * width)
    assert len(after.planes) == len(before.planes) == result.finished.properties.frames
    if kind != "rotated":
        assert after.numbers == before.numbers
        assert len(set(after.numbers)) == len(after.numbers)
    assert [at - after.seconds[0] for at in after.seconds] == [
        at - before.seconds[0] for at in before.seconds
    ]
    for shown, original in zip(after.planes, before.planes, strict=True):
        np.testing.assert_array_equal(shown[0][::4, ::4], original[0])
        for plane in (1, 2):
            # An odd-sized source has more chroma than a quarter of the output's.
            quarter = shown[plane][::4, ::4]
            if quarter.shape == original[plane].shape:
                np.testing.assert_array_equal(quarter, original[plane])
    assert abs(result.finished.properties.duration_seconds - result.info.video.duration_seconds) < Fraction(
        1, result.plan.timescale
    )
    assert (
        Fraction(result.stream["duration_ts"]) * Fraction(result.stream["time_base"])
        == result.finished.properties.duration_seconds
    )
    assert (
        Fraction(result.stream.get("sample_aspect_ratio", "1:1").replace(":", "/"))
        == result.info.video.sample_aspect_ratio
    )
    assert result.upscaled == len(before.planes)
    assert result.finished.warnings == ()
    assert len(result.segments) > 1 or not is_cut
