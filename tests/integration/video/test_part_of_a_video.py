"""`start` and `end`: the frames, sound, subtitles and chapters of a part are those of the whole, moved."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.platform.media.codecs import OutputFormat
from app.platform.media.rates import Retime
from app.platform.media.time_range import TimeRange, part_of_video

RATE = 48_000
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-g", "10", "-bf", "2")
VARIABLE = ("-vf", "setpts='(N+floor(N/3)*2)/25/TB'", "-fps_mode", "passthrough", "-enc_time_base", "1/1000")
# name, the graph's options, ffmpeg's for the output, and the part: the first frame, and the one after the last.
KINDS: dict[str, tuple[str, dict[str, Any], Sequence[str], str, str | None, int, int]] = {
    "mp4": ("a.mp4", {"frames": 100}, X264, "1", "2", 25, 50),
    "mp4-between-frames": ("a.mp4", {"frames": 100}, X264, "1.01", "2.01", 26, 51),
    "far-in": ("a.mp4", {"frames": 200}, X264, "6.4", "7", 160, 175),
    "to-the-end": ("a.mkv", {"frames": 60}, X264, "2", None, 50, 60),
    "from-the-start": ("a.ts", {"frames": 60}, X264, "0", "0.4", 0, 10),
    "ts-far-in": ("a.ts", {"frames": 200}, X264, "5", "5.4", 125, 135),
    "ntsc": ("a.mkv", {"frames": 60, "rate": "30000/1001"}, X264, "1.001", "1.335", 30, 40),
    "as-ffprobe-prints": ("a.mp4", {"frames": 60, "rate": "24"}, X264, "0.208333", "0.416667", 5, 10),
    "avi": ("a.avi", {"frames": 60}, ("-c:v", "mpeg4", "-q:v", "2", "-g", "12"), "1", "1.48", 25, 37),
    "raw": ("a.h264", {"frames": 60}, X264, "1", "1.4", 25, 35),
    "interlaced": (
        "a.mp4",
        {"frames": 150, "after": ",tinterlace=interleave_top,setfield=tff,setpts=N/25/TB,fps=25"},
        (*X264[:-2], "-flags", "+ilme+ildct", "-x264-params", "tff=1"),
        "2",
        "2.4",
        50,
        60,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_frames_of_a_part(kind, clip, planned):
    """Frames by their checksums: a segment that decodes others is refused."""
    name, graph, options, start, end, first, stop = KINDS[kind]
    path = clip(name, *options, **graph)
    part = TimeRange(Fraction(start), None if end is None else Fraction(end))

    info, whole, (all_of_it,) = planned(path)
    _, plan, segments = planned(path, part=part, segment_seconds=Fraction(1, 8))

    assert plan.frame_count == plan.source_frame_count == stop - first
    assert len(segments) > 1
    assert segments[0].first_frame == first
    found = [checksum for segment in segments for checksum in segment.checksums]
    assert found == list(all_of_it.checksums[first:stop])
    times = [Fraction(tick + whole.offset_ticks, whole.timescale) for tick in all_of_it.output_ticks()]
    ticks = [segment.start_tick + tick for segment in segments for tick in segment.output_ticks()]
    shown = [Fraction(tick + plan.offset_ticks, plan.timescale) + part.start for tick in ticks]
    assert all(
        abs(at - wanted) < Fraction(1, 90_000) for at, wanted in zip(shown, times[first:stop], strict=True)
    )
    assert plan.input_start_seconds == whole.input_start_seconds + part.start
    lasts = Fraction(plan.offset_ticks + plan.total_ticks, plan.timescale)
    if part.end is None:
        assert part.start + lasts == Fraction(whole.offset_ticks + whole.total_ticks, whole.timescale)
    else:
        assert abs(part.end - part.start - lasts) <= info.video.time_base
    assert (plan.frame_rate, plan.warnings) == (whole.frame_rate, whole.warnings)
    expected = part_of_video(info.video, part, begins_at=info.video_begins_at)
    assert abs(expected.frames - (stop - first)) <= (kind == "ntsc")
    assert abs(expected.duration_seconds - plan.duration_seconds) <= Fraction(kind == "ntsc", 29) + Fraction(
        1, 500
    )


@pytest.mark.parametrize("codec", ["h264", "ffv1", "vp9"])
@pytest.mark.parametrize(("start", "first", "offset"), [("0.13", 4, 30), ("0.95", 24, 10)])
def test_a_part_that_begins_between_frames_in_matroska(codec, start, first, offset, clip, rendered, probed):
    """Its first frame comes `offset` milliseconds late; the last one lasts to the end, also if it is the only one."""
    form = OutputFormat(codec=codec, container="mkv")
    made = rendered(clip("a.mp4", *X264, frames=25), form=form, part=TimeRange(Fraction(start), None))

    answer = probed(made.output, "-show_packets", "-show_streams", "-select_streams", "v:0")
    shown = sorted(int(packet["pts"]) for packet in answer["packets"])
    assert shown == [offset + 40 * number for number in range(25 - first)]
    assert answer["streams"][0]["tags"]["DURATION"].startswith(f"00:00:{1 - float(start):09.6f}")


def test_the_frame_shown_last_lasts_to_the_end_in_matroska(clip, rendered, probed):
    """For two of the source's frames, while those before it are decoded one of them apart."""
    form = OutputFormat(codec="h264", container="mkv")
    part = TimeRange(Fraction("0.08"), Fraction("0.5"))
    source = clip("a.mp4", *X264, frames=25)
    made = rendered(
        source, form=form, part=part, target_fps=Fraction(25, 2), retime=Retime.BLEND, quality="medium"
    )

    answer = probed(made.output, "-show_packets", "-show_streams", "-select_streams", "v:0")
    shown = sorted(int(packet["pts"]) for packet in answer["packets"])
    assert shown == [80 * number for number in range(5)]
    assert answer["streams"][0]["tags"]["DURATION"].startswith("00:00:00.400")


# Each sample differs from those near it.
NOISE = f"aevalsrc='0.4*sin(2*PI*(300+900*t)*t)+0.3*random(0)':s={RATE}:d=4"
SUBTITLES = """1
00:00:00,200 --> 00:00:01,000
over before

2
00:00:00,500 --> 00:00:01,500
across the start

3
00:00:01,600 --> 00:00:01,800
within

4
00:00:01,900 --> 00:00:02,900
across the end

5
00:00:02,020 --> 00:00:03,000
beyond
"""
CHAPTERS = ";FFMETADATA1\n" + "".join(
    f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={start}\nEND={end}\ntitle={title}\n"
    for start, end, title in (
        (0, 1010, "before"),
        (1010, 1700, "a\\=first\\; one"),
        (1700, 2500, "second"),
        (2500, 4000, "after"),
    )
)


@pytest.mark.parametrize(
    ("name", "codecs", "texts"),
    [("a.mp4", ("aac", "alac"), "mov_text"), ("a.mkv", ("libopus", "flac"), "srt")],
)
def test_sound_texts_and_chapters_of_a_part(
    tmp_path: Path,
    clip: Callable[..., Path],
    rendered: Callable[..., Any],
    ffmpeg: Callable[..., bytes],
    probed: Callable[..., dict[str, Any]],
    name: str,
    codecs: tuple[str, str],
    texts: str,
) -> None:
    (tmp_path / "texts.srt").write_text(SUBTITLES)
    (tmp_path / "chapters.txt").write_text(CHAPTERS)
    inputs = ("-f", "lavfi", "-i", NOISE, "-i", tmp_path / "texts.srt", "-i", tmp_path / "chapters.txt")
    maps = ("-map", "0:v", "-map", "1:a", "-map", "1:a", "-map", "2:s", "-map_chapters", "3")
    sounds = ("-c:a:0", codecs[0], "-c:a:1", codecs[1], "-c:s", texts)
    source = clip(name, *maps, *X264, *sounds, before=inputs, frames=100)

    # Between Matroska's ticks.
    part = TimeRange(Fraction("1.0103"), Fraction("2.0103"))
    made = rendered(source, part=part)

    for track in range(2):
        whole, cut = (
            np.frombuffer(
                ffmpeg("-i", path, "-map", f"0:a:{track}", "-ac", "1", "-f", "f32le", "pipe:1"), np.float32
            )
            for path in (source, made.output)
        )
        listed = probed(source, "-select_streams", f"a:{track}", "-show_entries", "stream=start_time")
        begins = max(0.0, float(listed["streams"][0]["start_time"]))
        wanted = whole[round(RATE * (1.0103 - begins)) :][:RATE]
        # The decoder plays the rest of AAC's last packet.
        assert RATE <= len(cut) < RATE + 1024, track
        products = [
            float(np.dot(wanted[9000:-9000], cut[9000 + lag : RATE - 9000 + lag])) for lag in range(-50, 51)
        ]
        assert int(np.argmax(products)) - 50 == 0, track
        stated = made.all_streams[1 + track]
        assert Fraction(int(stated["duration_ts"])) * Fraction(stated["time_base"]) == 1
    listed = probed(
        made.output, "-select_streams", "s", "-show_entries", "packet=pts_time,duration_time,size"
    )
    shown = [
        tuple(round(float(packet[field]), 3) for field in ("pts_time", "duration_time"))
        for packet in listed["packets"]
        if int(packet["size"]) > 2
    ]
    # Opus begins 7 ms before 0, and ffmpeg 5.1 moves all else of a Matroska file by as much.
    pictures = probed(source, "-select_streams", "v:0", "-show_entries", "stream=start_time")
    late = float(pictures["streams"][0]["start_time"])
    expected = [(0, 0.49 + late), (0.59 + late, 0.2), (0.89 + late, 0.11 - late)]
    assert shown == [tuple(round(at, 3) for at in times) for times in expected]
    assert [
        (chapter["tags"]["title"], *(round(float(chapter[at]), 3) for at in ("start_time", "end_time")))
        for chapter in made.probed["chapters"]
    ] == [("a=first; one", 0, 0.69), ("second", 0.69, 1)]
