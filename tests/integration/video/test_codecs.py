"""The codecs and containers of the output: frames, times, sound, texts and tags of a video made in segments."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.platform.media.codecs import OutputFormat
from app.platform.media.containers import OUTPUT_CONTAINERS, ContainerName, VideoCodec

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-qp", "0", "-pix_fmt", "yuv420p", "-g", "5")
TAGS = ("-colorspace", "smpte170m", "-color_primaries", "smpte170m", "-color_trc", "smpte170m")
# Of which ffmpeg's muxer of QuickTime keeps the last alone.
LANGUAGES = {"v": "zho", "a": "deu", "s": "jpn"}
TRACKS = (
    "-map",
    "0:v",
    "-map",
    "1:a",
    "-map",
    "2:s",
    "-map_metadata",
    "3",
    "-c:a",
    "aac",
    "-c:s",
    "mov_text",
    *(word for place, code in LANGUAGES.items() for word in (f"-metadata:s:{place}", f"language={code}")),
)
FRAMES = 12
# In codes of luma, of the worst frame: none where nothing is lost.
MOST_ERROR = {"ffv1": 0.0, "vp9": 0.0, "av1": 1.0, "prores": 1.5}
# A frame of AAC, or the delay of Opus, precedes 0.
LEAD_SECONDS = {"mp4": 0, "mov": 0, "mkv": 0.0235, "webm": 0.0075}


@pytest.mark.parametrize(
    ("codec", "container", "kept"),
    [
        ("vp9", "mp4", ["vp9", "aac", "mov_text"]),
        ("prores", "mov", ["prores", "aac", "mov_text"]),
        ("ffv1", "mkv", ["ffv1", "aac", "subrip"]),
        ("av1", "webm", ["av1", "opus", "webvtt"]),
    ],
)
def test_codec_and_container(
    tmp_path: Path,
    clip: Callable[..., Path],
    rendered: Callable[..., Any],
    decoded: Callable[..., Any],
    probed: Callable[..., dict[str, Any]],
    codec: VideoCodec,
    container: ContainerName,
    kept: list[str],
) -> None:
    texts, chapters = tmp_path / "a.srt", tmp_path / "chapters.txt"
    texts.write_text("1\n00:00:00,100 --> 00:00:00,300\n<i>Hello</i>\n")
    chapters.write_text(";FFMETADATA1\ntitle=Film\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=200\ntitle=One\n")
    before = ("-f", "lavfi", "-i", "sine=d=0.48:r=44100", "-i", str(texts), "-i", str(chapters))
    path = clip("a.mp4", *X264, *TAGS, *TRACKS, before=before, frames=FRAMES, rate="24000/1001")

    form = OutputFormat(codec=codec, container=container)
    made = rendered(path, form=form, segment_seconds=Fraction(1, 8))

    assert len(made.segments) > 2
    answer = probed(made.output, "-show_streams", "-show_chapters", "-show_format")
    video, sound, text = answer["streams"][:3]
    assert [one["codec_name"] for one in (video, sound, text)] == kept
    assert [one["tags"]["language"] for one in (video, sound, text)] == [*LANGUAGES.values()]
    assert [video[f"color_{name}"] for name in ("space", "primaries", "transfer")] == ["smpte170m"] * 3
    # ProRes has no range but this one, which newer versions of ffmpeg do not show.
    assert video.get("color_range", "tv" if codec == "prores" else None) == "tv"
    assert (video["width"], video["height"]) == (256, 192)
    assert answer["chapters"][0]["tags"]["title"] == "One"
    assert answer["format"]["tags"]["title"] == "Film"
    assert OUTPUT_CONTAINERS[container].demuxer in answer["format"]["format_name"]
    assert 0 <= -float(sound["start_time"]) <= LEAD_SECONDS[container]
    exact = [Fraction(1001 * number, 24000) for number in range(FRAMES)]
    own, wanted = decoded(made.output), decoded(path, filters="scale=4*iw:4*ih:flags=neighbor")
    off = max(abs(at - planned) for at, planned in zip(own.seconds, exact, strict=True))
    assert off <= (0 if made.plan.file.is_iso else Fraction(1, 2000))
    assert own.numbers == list(range(FRAMES))
    for frame, right in zip(own.planes, wanted.planes, strict=True):
        error = np.abs(frame[0].astype(int) - right[0]).mean()
        assert error <= MOST_ERROR[codec]
