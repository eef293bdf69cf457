"""Subtitles: at their times however far apart, and shown by default only if they were."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
CUES = [("00:00:01,500", "one"), ("00:40:00,000", "two"), ("02:20:00,250", "three")]


@pytest.mark.parametrize(("codec", "shown"), [("srt", ()), ("ass", (1,))])
def test_subtitles(
    codec: str,
    shown: tuple[int, ...],
    tmp_path: Path,
    ffmpeg: Callable[..., bytes],
    numbered: Callable[..., str],
    rendered: Callable[..., Any],
    probed: Callable[..., dict[str, Any]],
) -> None:
    texts, source = tmp_path / "texts.srt", tmp_path / "source.mkv"
    texts.write_text(
        "\n".join(f"{n}\n{at} --> {at[:-4]},900\n{text}\n" for n, (at, text) in enumerate(CUES, 1))
    )
    slides = numbered(frames=3, after=",settb=1/1000,setpts=N*4000*1000,trim=end_frame=3")
    tracks = ("-map", "0:v", "-map", "1:s", "-map", "1:s", "-c:s", codec, "-fps_mode", "passthrough")
    defaults = [
        word for track in (0, 1) for word in (f"-disposition:s:{track}", "default" if track in shown else "0")
    ]
    ffmpeg(*("-f", "lavfi", "-i", slides, "-i", texts), *tracks, *X264, *defaults, source)
    output = rendered(source).output
    streams = [one for one in probed(output, "-show_streams")["streams"] if one["codec_type"] == "subtitle"]
    assert [one["disposition"]["default"] for one in streams] == [int(track in shown) for track in (0, 1)]
    for track in (0, 1):
        text = ffmpeg("-i", output, "-map", f"0:s:{track}", "-c:s", "srt", "-f", "srt", "pipe:1").decode()
        found = [block.split("\n") for block in text.strip().split("\n\n")]
        assert [(lines[1].split(" --> ")[0], lines[2]) for lines in found] == CUES
