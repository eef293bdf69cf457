"""More than eight bits, and high dynamic range: samples, tags and metadata come out as they were."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# P3's colours, 0.005 to 4000 cd/m2: no two numbers are the same.
SCREEN = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(40000000,50)"
X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le", "-x265-params")
METADATA = {
    "red_x": Fraction(34000, 50000),
    "red_y": Fraction(16000, 50000),
    "green_x": Fraction(13250, 50000),
    "green_y": Fraction(34500, 50000),
    "blue_x": Fraction(7500, 50000),
    "blue_y": Fraction(3000, 50000),
    "white_point_x": Fraction(15635, 50000),
    "white_point_y": Fraction(16450, 50000),
    "min_luminance": Fraction(5, 1000),
    "max_luminance": Fraction(4000),
}


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_hdr(
    transfer: str,
    clip: Callable[..., Path],
    rendered: Callable[..., Any],
    decoded: Callable[..., Any],
    probed: Callable[..., Any],
    ffmpeg: Callable[..., bytes],
    tmp_path: Path,
) -> None:
    is_pq = transfer == "smpte2084"
    parameters = "log-level=none:keyint=10" + (f":master-display={SCREEN}:max-cll=1200,310" if is_pq else "")
    tags = ("-color_primaries", "bt2020", "-color_trc", transfer, "-colorspace", "bt2020nc")
    tagged = f",setparams=color_primaries=bt2020:color_trc={transfer}:colorspace=bt2020nc:range=tv"
    frames = 30 if is_pq else 10
    source = clip("a.mkv", *X265, parameters, *tags, frames=frames, after=f",format=yuv420p10le{tagged}")
    result = rendered(source, segment_seconds=Fraction(1))
    assert len(result.segments) == (2 if is_pq else 1)
    stream = result.stream
    described = (stream["codec_name"], stream["codec_tag_string"], stream["profile"], stream["pix_fmt"])
    assert described == ("hevc", "hvc1", "Main 10", "yuv420p10le")
    assert result.finished.warnings == ()

    bare = tmp_path / "bare.hevc"
    ffmpeg("-i", result.output, "-map", "0:v", "-c", "copy", bare)
    fields = "color_primaries,color_transfer,color_space,color_range,chroma_location"
    for path in (result.output, bare):
        answer = probed(path, "-show_entries", f"stream={fields}:frame_side_data", "-select_streams", "v")
        (seen,) = answer["streams"]
        assert [seen[name] for name in fields.split(",")] == ["bt2020", transfer, "bt2020nc", "tv", "left"]
        assert len(answer["frames"]) == frames
        if is_pq:
            for frame in answer["frames"]:
                told = {entry["side_data_type"]: entry for entry in frame["side_data_list"]}
                screen = told["Mastering display metadata"]
                assert {name: Fraction(screen[name]) for name in METADATA} == METADATA
                light = told["Content light level metadata"]
                assert (light["max_content"], light["max_average"]) == (1200, 310)

    before, after = (decoded(path, pix_fmt="yuv420p10le") for path in (source, result.output))
    for shown, original in zip(after.planes, before.planes, strict=True):
        for plane, reference in zip(shown, original, strict=True):
            np.testing.assert_array_equal(plane[::4, ::4], reference)


def test_metadata_that_the_output_cannot_hold_is_told(
    clip: Callable[..., Path], planned: Callable[..., Any]
) -> None:
    """PQ in 8 bits becomes H.264."""
    parameters = f"log-level=none:master-display={SCREEN}"
    source = clip("a.mp4", *X265[:4], "-pix_fmt", "yuv420p", "-x265-params", parameters, frames=2)
    _, plan, _ = planned(source)
    assert (plan.codec, plan.mastering_display) == ("h264", None)
    assert [warning for warning in plan.warnings if "mastering" in warning]
