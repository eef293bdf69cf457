"""Whole renders: the clips we keep, frame rates, joins, colours, other tracks, damaged files."""

from collections.abc import Callable
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

MEDIA = Path(__file__).parents[2] / "media"
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "10")
B_FRAMES = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-g", "10")
GAPS = ",select='gt(mod(n,5),1)'"
TAG_KEYS = ("color_primaries", "color_transfer", "color_space", "color_range")
# Names that stand for the same number in all three of them.
H273 = {"bt709": 1, "bt470bg": 5, "smpte170m": 6}


@pytest.mark.parametrize("name", sorted(path.name for path in MEDIA.glob("*.mp4")))
def test_real_clips(
    name: str, rendered: Callable[..., Any], decoded: Callable[..., Any], probed: Callable[..., Any]
) -> None:
    source = MEDIA / name
    # Of the larger ones every tenth frame, to save time.
    step = 10 if "480" in name else 1
    rate = Fraction(probed(source, "-show_streams")["streams"][0]["avg_frame_rate"])
    target_fps = rate / step if step > 1 else None
    result = rendered(source, segment_seconds=Fraction(3, 2), target_fps=target_fps)
    before = probed(source, "-show_streams")["streams"]
    # Of each sample that was repeated, one.
    frames = decoded(result.output, filters="scale=iw/4:ih/4:flags=neighbor")
    original = decoded(source)
    assert frames.seconds == original.seconds[::step]
    assert [stream["codec_name"] for stream in result.all_streams] == [
        "h264",
        *(s["codec_name"] for s in before[1:]),
    ]
    for old, new in zip(before, result.all_streams, strict=True):
        if old["codec_type"] in ("video", "audio"):
            assert Fraction(new["duration"]) == Fraction(old["duration"])
            assert new["start_time"] == old["start_time"]
        assert new["tags"]["language"] == old["tags"]["language"]
    for shown, reference in zip(frames.planes, original.planes[::step], strict=True):
        np.testing.assert_array_equal(shown[0], reference[0])


def test_many_segments_equal_a_single_pass(
    clip: Callable[..., Path], rendered: Callable[..., Any], decoded: Callable[..., Any]
) -> None:
    source = clip("a.mp4", *B_FRAMES, "-fps_mode", "passthrough", frames=70, after=GAPS)
    pieces = rendered(source, name="pieces", segment_seconds=Fraction(1, 3))
    whole = rendered(source, name="whole", segment_seconds=Fraction(100))
    assert len(pieces.segments) > 6
    assert len(whole.segments) == 1
    one, other = decoded(pieces.output), decoded(whole.output)
    assert one.seconds == other.seconds
    assert one.numbers == other.numbers == [n for n in range(70) if n % 5 > 1]
    for planes, others in zip(one.planes, other.planes, strict=True):
        for plane, same in zip(planes, others, strict=True):
            np.testing.assert_array_equal(plane, same)


def test_segments_of_single_frames(
    clip: Callable[..., Path], rendered: Callable[..., Any], decoded: Callable[..., Any]
) -> None:
    source = clip("a.mp4", *B_FRAMES, frames=5)
    result = rendered(source, segment_max_output_pixels=1)
    assert [segment.output_frames for segment in result.segments] == [1] * 5
    assert decoded(result.output).numbers == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("rate", "count"),
    [("24000/1001", 48), ("60", 120), ("25/2", 25), ("1", 2), ("120", 240)],
)
def test_frame_rates(
    rate: str,
    count: int,
    clip: Callable[..., Path],
    rendered: Callable[..., Any],
    decoded: Callable[..., Any],
) -> None:
    source = clip("a.mp4", *X264, frames=50)
    target = Fraction(rate)
    result = rendered(source, target_fps=target, segment_seconds=Fraction(1))
    frames = decoded(result.output)
    assert [at * target for at in frames.seconds] == list(range(count))
    # As ffmpeg's own filter rounds where frames are repeated; where they are left out, the nearest.
    new = [floor(Fraction(n, 25) * target + Fraction(1, 2)) for n in range(50)]
    expected = [
        max(n for n in range(50) if new[n] <= i)
        if target > 25
        else min(range(50), key=lambda n: (abs(Fraction(n, 25) - i / target), n))
        for i in range(count)
    ]
    assert frames.numbers == expected
    assert result.upscaled == len(set(expected))
    assert Fraction(result.stream["r_frame_rate"]) == target
    assert result.finished.properties.duration_seconds == count / target


def test_late_picture_keeps_its_ticks_at_a_coarse_rate(
    clip: Callable[..., Path],
    rendered: Callable[..., Any],
    decoded: Callable[..., Any],
    ffmpeg: Callable[..., bytes],
    tmp_path: Path,
) -> None:
    picture = clip("picture.mp4", *X264, frames=50)
    source = tmp_path / "late.mp4"
    sound = ("-f", "lavfi", "-i", "sine=d=2")
    ffmpeg(*sound, "-itsoffset", "0.37", "-i", picture, "-map", "1:v", "-map", "0:a", "-c:v", "copy", source)
    result = rendered(source, target_fps=Fraction(5))
    seconds = decoded(result.output).seconds
    assert seconds == [Fraction(37, 100) + Fraction(i, 5) for i in range(10)]


@pytest.mark.parametrize(
    ("name", "options", "graph", "tags"),
    [
        ("sd.mp4", X264, {}, ("smpte170m", "smpte170m", "smpte170m", "tv")),
        ("hd.mp4", X264, {"size": "1280x96", "frames": 3}, ("bt709", "bt709", "bt709", "tv")),
        ("full.mp4", (*X264, "-pix_fmt", "yuvj420p"), {}, ("smpte170m", "smpte170m", "smpte170m", "pc")),
        ("rgb.avi", ("-c:v", "rawvideo", "-pix_fmt", "bgr24"), {}, ("bt709", "bt709", "bt709", "tv")),
        ("rgb.mkv", ("-c:v", "ffv1", "-pix_fmt", "gbrp"), {}, ("bt709", "bt709", "bt709", "tv")),
        ("gray.mkv", ("-c:v", "ffv1", "-pix_fmt", "gray"), {}, None),
        ("422.mov", ("-c:v", "prores", "-profile:v", "0"), {}, None),
        ("444.mp4", (*X264, "-pix_fmt", "yuv444p"), {}, ("smpte170m", "smpte170m", "smpte170m", "tv")),
        ("411.avi", ("-c:v", "ffvhuff", "-pix_fmt", "yuv411p"), {}, None),
    ],
)
def test_colours_are_tagged_and_kept(
    name: str,
    options: tuple[str, ...],
    graph: dict[str, Any],
    tags: tuple[str, ...] | None,
    clip: Callable[..., Path],
    rendered: Callable[..., Any],
    ffmpeg: Callable[..., bytes],
    probed: Callable[..., Any],
    tmp_path: Path,
) -> None:
    source = clip(name, *options, **graph)
    result = rendered(source)
    stream = result.stream
    written = tuple(stream[key] for key in TAG_KEYS)
    assert written == tags if tags is not None else all(written)
    # Both say so, each by itself: the stream, and the container in numbers (ITU-T H.273).
    bare = tmp_path / "bare.bin"
    raw_format = {"h264": "h264", "hevc": "hevc"}[stream["codec_name"]]
    ffmpeg("-i", result.output, "-map", "0:v", "-c", "copy", "-f", raw_format, bare)
    (alone,) = probed(bare, "-show_streams")["streams"]
    assert [alone.get(key) for key in TAG_KEYS] == list(written)
    assert alone["chroma_location"] == "left"
    data = result.output.read_bytes()
    box = data[data.index(b"colrnclx") + 8 :]
    numbers = [int.from_bytes(box[at : at + 2], "big") for at in (0, 2, 4)]
    assert numbers == [H273[name] for name in written[:3]]
    assert box[6] == (0x80 if written[3] == "pc" else 0)
    assert stream["pix_fmt"] in ("yuv420p", "yuvj420p", "yuv420p10le")
    # As a player shows them: by the tags, after one tag guessed for what the input leaves open.
    guess = "" if "rgb" in name else f"setparams=colorspace={written[2]}:range={written[3]},"
    width, height = result.plan.source.width, result.plan.source.height
    shrunk = f"scale={width}:{height}:flags=area+accurate_rnd+full_chroma_int+full_chroma_inp,format=rgb24"
    shown = np.frombuffer(ffmpeg("-i", result.output, "-vf", shrunk, "-f", "rawvideo", "pipe:1"), np.uint8)
    before = np.frombuffer(ffmpeg("-i", source, "-vf", guess + shrunk, "-f", "rawvideo", "pipe:1"), np.uint8)
    difference = np.abs(shown.astype(int) - before.astype(int))
    assert difference.shape[0] > 0
    # Within one or two code values but where chroma has fewer samples than it had.
    assert np.median(difference) <= 1
    assert np.abs(shown.astype(int).mean() - before.astype(int).mean()) < 1


def test_what_lies_under_transparency_is_shown(
    clip: Callable[..., Path], rendered: Callable[..., Any], decoded: Callable[..., Any]
) -> None:
    prores = ("-c:v", "prores_ks", "-profile:v", "4444", "-pix_fmt", "yuva444p10le")
    source = clip("a.mov", *prores, frames=3, after=",format=yuva444p10le,lut=c3=val/4")
    result = rendered(source)
    assert [warning for warning in result.finished.warnings if "transparent" in warning]
    assert decoded(result.output).numbers == [0, 1, 2]
    before, after = decoded(source).planes[0][0], decoded(result.output).planes[0][0]
    np.testing.assert_allclose(after[::4, ::4], before, atol=1)


@pytest.mark.parametrize(
    ("name", "pix_fmt", "options"),
    [
        ("a.mov", "argb", ("-c:v", "qtrle")),
        # The decoder shows nothing of it.
        ("a.webm", "yuva420p", ("-c:v", "libvpx", "-auto-alt-ref", "0", "-deadline", "realtime")),
    ],
)
def test_transparency_is_told(
    name: str, pix_fmt: str, options: tuple[str, ...], clip: Callable[..., Path], planned: Callable[..., Any]
) -> None:
    half = ",format=rgba,colorchannelmixer=aa=0.5"
    source = clip(name, *options, "-pix_fmt", pix_fmt, frames=2, after=half)
    assert [warning for warning in planned(source)[1].warnings if "transparent" in warning]


def test_other_tracks(
    clip: Callable[..., Path],
    rendered: Callable[..., Any],
    ffmpeg: Callable[..., bytes],
    probed: Callable[..., Any],
    tmp_path: Path,
) -> None:
    picture = clip("picture.mp4", *X264, frames=50)
    subtitles, chapters = tmp_path / "s.srt", tmp_path / "c.ffmeta"
    subtitles.write_text("1\n00:00:00,500 --> 00:00:01,250\nA real sentence.\n")
    chapters.write_text(
        ";FFMETADATA1\ntitle=A title\nartist=Somebody\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=1000\ntitle=One\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=1000\nEND=2000\ntitle=Two\n"
    )
    source = tmp_path / "all.mkv"
    tone = ("-f", "lavfi", "-i", "sine=d=2")
    ffmpeg(
        *("-i", picture, *tone, *tone, "-i", subtitles, "-i", chapters, "-attach", subtitles),
        *("-metadata:s:t", "mimetype=text/plain", "-map", "0", "-map", "1", "-map", "2", "-map", "3"),
        *("-map_metadata", "4", "-map_chapters", "4", "-c:v", "copy", "-c:a:0", "aac", "-c:a:1", "pcm_s16le"),
        *("-metadata:s:a:0", "language=fra", "-metadata:s:a:1", "language=deu", "-ac:a:1", "2"),
        *(
            "-metadata:s:s:0",
            "language=eng",
            "-metadata:s:v:0",
            "language=nld",
            "-disposition:a:1",
            "default",
        ),
        *("-disposition:a:0", "0", source),
    )
    result = rendered(source)
    streams = [stream for stream in result.all_streams if stream["codec_type"] != "data"]
    kinds = [(stream["codec_name"], stream["tags"]["language"]) for stream in streams]
    assert kinds == [("h264", "nld"), ("aac", "fra"), ("aac", "deu"), ("mov_text", "eng")]
    assert [stream.get("channels") for stream in streams] == [None, 1, 2, None]
    assert [stream["disposition"]["default"] for stream in streams[1:3]] == [0, 1]
    tags = result.probed["format"]["tags"]
    assert (tags["title"], tags["artist"]) == ("A title", "Somebody")
    titles = [(one["tags"]["title"], Fraction(one["start_time"])) for one in result.probed["chapters"]]
    assert titles == [("One", 0), ("Two", 1)]
    packets = probed(result.output, "-select_streams", "s", "-show_entries", "packet=pts_time,duration_time")
    start = Fraction(streams[0]["start_time"])
    shown = [
        (Fraction(one["pts_time"]) - start, Fraction(one["duration_time"])) for one in packets["packets"]
    ]
    assert (Fraction(1, 2), Fraction(3, 4)) in shown
    assert len([one for one in result.finished.warnings if "AAC" in one or "attached" in one]) == 2


def test_output_without_sound_is_ready_to_stream(
    clip: Callable[..., Path], rendered: Callable[..., Any]
) -> None:
    result = rendered(clip("a.mp4", *X264))
    assert [stream["codec_type"] for stream in result.all_streams] == ["video"]
    assert result.finished.warnings == ()
    data = result.output.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")
    assert b"colr" in data


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_file_cut_off_in_the_middle(
    name: str,
    clip: Callable[..., Path],
    rendered: Callable[..., Any],
    decoded: Callable[..., Any],
    ffmpeg: Callable[..., bytes],
    tmp_path: Path,
) -> None:
    picture = clip("picture.mkv", *B_FRAMES, "-q:v", "2", frames=100, size="128x96")
    whole, source = tmp_path / f"whole-{name}", tmp_path / name
    codec = ("-c:v", "mpeg4", "-bf", "0", "-q:v", "3") if name.endswith("avi") else ("-c:v", "copy")
    sound = ("-f", "lavfi", "-i", "sine=d=4")
    ffmpeg("-i", picture, *sound, *codec, "-c:a", "aac", "-movflags", "+faststart", whole)
    data = whole.read_bytes()
    source.write_bytes(data[: len(data) * 6 // 10])
    result = rendered(source, segment_seconds=Fraction(3, 2))
    numbers = decoded(result.output).numbers
    # The last frame may be half there.
    assert 30 < len(numbers) < 90
    assert numbers[:-1] == list(range(len(numbers) - 1))
    assert any("upscaled" in warning for warning in result.finished.warnings) or name == "a.ts"
    assert [stream["codec_name"] for stream in result.all_streams] == ["h264", "aac"]


def test_thumbnail(
    clip: Callable[..., Path],
    rendered: Callable[..., Any],
    ffmpeg: Callable[..., bytes],
    probed: Callable[..., Any],
) -> None:
    source = clip("a.mp4", *X264, "-vf", "setsar=2/1", frames=50, size="320x96")
    result = rendered(source)
    stream = probed(result.thumbnail, "-show_streams")["streams"][0]
    assert (stream["codec_name"], stream["width"], stream["height"]) == ("mjpeg", 640, 96)
    shown = np.frombuffer(
        ffmpeg("-i", result.thumbnail, "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"), np.uint8
    )
    frame = ("-vf", "setparams=colorspace=smpte170m:range=tv,scale=640:96,format=rgb24,select=eq(n\\,5)")
    before = np.frombuffer(
        ffmpeg("-i", source, *frame, "-frames:v", "1", "-f", "rawvideo", "pipe:1"), np.uint8
    )
    assert np.abs(shown.astype(int) - before.astype(int)).mean() < 6


def test_hundreds_of_uneven_timestamps(
    clip: Callable[..., Path], rendered: Callable[..., Any], decoded: Callable[..., Any]
) -> None:
    """Hundreds of runs of timestamps, in segments long enough to need them all in one expression."""
    uneven = ",settb=1/1000,setpts='(N*40+mod(N*N*7,31))/1000/TB'"
    as_given = ("-fps_mode", "passthrough", "-enc_time_base", "1/1000")
    source = clip("a.mkv", *B_FRAMES, *as_given, frames=250, size="32x32", after=uneven)
    result = rendered(source, quality="high", segment_seconds=Fraction(100))
    assert len(result.segments[0].runs) > 150
    before = decoded(source)
    assert decoded(result.output).seconds == [at - before.seconds[0] for at in before.seconds]
