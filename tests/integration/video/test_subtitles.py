"""Subtitles: at their times however far apart, and shown by default only if they were."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from app.platform.media.mp4_boxes import MOST_BOXES
from worker.video.subtitle_edits import subtitle_shifts

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
MEDIA = Path(__file__).parents[2] / "media"
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


def test_texts_of_a_cut_file_are_at_their_times(
    clip: Callable[..., Path], rendered: Callable[..., Any], ffmpeg: Callable[..., bytes], tmp_path: Path
) -> None:
    """Cut at 2 s without encoding, in the midst of the second text: an edit list says so."""
    texts = tmp_path / "texts.srt"
    cues = [("00,000", "01,000"), ("01,500", "03,000"), ("03,500", "03,900")]
    texts.write_text(
        "\n".join(f"{n}\n00:00:{start} --> 00:00:{end}\n{n}\n" for n, (start, end) in enumerate(cues, 1))
    )
    options = ("-map", "0:v", "-map", "1:s", *X264, "-g", "5", "-c:s", "mov_text")
    whole = clip("whole.mp4", *options, before=("-i", texts), frames=20, rate="5")
    cut = tmp_path / "cut.mp4"
    ffmpeg("-ss", "2", "-i", whole, "-map", "0", "-c", "copy", cut)
    assert subtitle_shifts(cut) == {1: Fraction(-1, 2)}
    result = rendered(cut)
    assert result.info.video.frames == 10
    subtitles = ("-map", "0:s", "-c:s", "srt", "-f", "srt", "pipe:1")
    found = ffmpeg("-i", result.output, *subtitles).decode().strip().split("\n\n")
    # The cutter stored the last one until the film's end.
    assert [block.split("\n")[1:] for block in found] == [
        ["00:00:00,000 --> 00:00:01,000", "2"],
        ["00:00:01,500 --> 00:00:02,400", "3"],
    ]


@pytest.mark.parametrize("name", ["webb-320x180-25fps.mp4", "bunny-240x136-25fps.mp4"])
def test_edit_lists_of_real_files(name: str) -> None:
    shifts = {2: Fraction(-179, 100)} if name.startswith("webb") else {}
    content = (MEDIA / name).read_bytes()
    assert subtitle_shifts(MEDIA / name) == shifts
    assert content.count(b"elst") == 2 + len(shifts)


@pytest.mark.parametrize("kept", [0, 7, 40, 1_500])
def test_broken_boxes_shift_nothing(kept: int, tmp_path: Path) -> None:
    content = (MEDIA / "webb-320x180-25fps.mp4").read_bytes()
    path = tmp_path / "broken.mp4"
    path.write_bytes(content[content.index(b"moov") - 4 :][:kept])
    assert subtitle_shifts(path) == {}


def test_more_boxes_than_a_film_has_are_not_walked(tmp_path: Path) -> None:
    content = (MEDIA / "webb-320x180-25fps.mp4").read_bytes()
    movie = content[content.index(b"moov") - 4 :]
    path = tmp_path / "boxes.mp4"
    for count, is_read in ((10, True), (MOST_BOXES, False)):
        path.write_bytes(b"\x00\x00\x00\x08free" * count + movie)
        assert bool(subtitle_shifts(path)) == is_read
