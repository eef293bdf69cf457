"""Examining videos: sizes, timing, colour and streams, against what ffmpeg then delivers."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg
import pytest

from app.platform.errors import LimitExceeded
from app.platform.media import ffmpeg as ffmpeg_module
from app.platform.media import file_listing
from app.platform.media.ffmpeg import FfmpegProcess, FfmpegRunner
from app.platform.media.limits import MediaLimits, check_output
from app.platform.media.probe import MediaInfo, probe_video

pytestmark = pytest.mark.slow

Make = Callable[..., Path]
Examine = Callable[[Path], MediaInfo]

BUNNY = "bunny-240x136-25fps.mp4"
WEBB = "webb-480x270-2997fps-hevc.mp4"
NTSC = Fraction(30000, 1001)


@pytest.fixture
def examine(runner: FfmpegRunner, limits: MediaLimits) -> Examine:
    return lambda path: probe_video(runner, path, limits=limits)


def decoded_frames(runner: FfmpegRunner, path: Path, info: MediaInfo) -> list[bytes]:
    """Every frame as ffmpeg delivers it by default, as 24-bit RGB."""
    stream = runner.input(path)[str(info.video.index)]
    decoding = ffmpeg.output(stream, "pipe:1", f="rawvideo", pix_fmt="rgb24", fps_mode="passthrough")
    buffer, frames = bytearray(info.video.width * info.video.height * 3), []
    with runner.start(decoding, purpose="decoding", stdin=False, stdout=True) as process:
        while process.read_exactly_into(buffer):
            frames.append(bytes(buffer))
        process.wait()
    return frames


@pytest.mark.parametrize(
    ("name", "size", "codec", "frames", "frame_rate", "duration_seconds"),
    [
        (BUNNY, (240, 136), "h264", 50, Fraction(25), Fraction(2)),
        ("bunny-480x270-25fps.mp4", (480, 270), "h264", 100, Fraction(25), Fraction(4)),
        ("webb-320x180-25fps.mp4", (320, 180), "h264", 75, Fraction(25), Fraction(3)),
        (WEBB, (480, 270), "hevc", 60, NTSC, Fraction(1001, 500)),
    ],
)
def test_the_clips_of_the_repository(
    examine: Examine,
    clips: Path,
    name: str,
    size: tuple[int, int],
    codec: str,
    frames: int,
    frame_rate: Fraction,
    duration_seconds: Fraction,
) -> None:
    info = examine(clips / name)
    video = info.video
    assert "mp4" in info.format_name
    assert (video.width, video.height) == size
    assert (video.codec, video.pix_fmt, video.rotation) == (codec, "yuv420p", 0)
    assert (video.frames, video.declared_frames) == (frames, frames)
    assert (video.frame_rate, video.duration_seconds) == (frame_rate, duration_seconds)
    assert [other.kind for other in info.others][:1] == ["audio"]
    assert info.stream_count == len(info.others) + 1


@pytest.mark.parametrize(
    ("source", "name", "arguments"),
    [
        (BUNNY, "copy.mkv", ["-c", "copy"]),
        (BUNNY, "copy.mov", ["-c", "copy"]),
        (BUNNY, "copy.ts", ["-c", "copy"]),
        (BUNNY, "fragmented.mp4", ["-c", "copy", "-movflags", "frag_keyframe+empty_moov"]),
        (BUNNY, "bframes.avi", ["-c:v", "mpeg4", "-bf", "2", "-c:a", "mp2"]),
        (BUNNY, "h264.avi", ["-c:v", "copy", "-c:a", "mp2"]),
        (BUNNY, "program.mpg", ["-c:v", "mpeg2video", "-bf", "2", "-c:a", "mp2"]),
        (BUNNY, "vp9.webm", ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-an"]),
        (WEBB, "copy.mkv", ["-c", "copy"]),
        (WEBB, "copy.ts", ["-c", "copy"]),
        (WEBB, "short.mkv", ["-c:v", "mpeg4", "-frames:v", "10", "-an"]),
        (WEBB, "h264.flv", ["-c:v", "libx264", "-preset", "ultrafast", "-an"]),
        (WEBB, "motion.avi", ["-c:v", "mjpeg", "-an"]),
        (WEBB, "film.mkv", ["-c:v", "mpeg4", "-r", "24000/1001", "-fps_mode", "cfr", "-an"]),
        (WEBB, "fast.mkv", ["-c:v", "mpeg4", "-r", "60000/1001", "-fps_mode", "cfr", "-an"]),
    ],
)
def test_frames_and_rate_are_right_in_every_container(
    runner: FfmpegRunner,
    examine: Examine,
    clips: Path,
    make: Make,
    source: str,
    name: str,
    arguments: list[str],
) -> None:
    path = make(name, "-i", clips / source, *arguments)
    info = examine(path)
    rates = {"film": Fraction(24000, 1001), "fast": Fraction(60000, 1001)}
    expected = rates.get(path.stem, Fraction(25) if source == BUNNY else NTSC)
    assert info.video.frame_rate == expected
    assert info.video.frames == len(decoded_frames(runner, path, info))
    # Timestamps are rounded to ticks, at both ends.
    assert abs(info.video.duration_seconds - info.video.frames / expected) <= 2 * info.video.time_base
    assert info.video.declared_frames in (None, info.video.frames)


def test_frames_that_an_edit_list_hides_do_not_count(
    runner: FfmpegRunner, examine: Examine, clips: Path, make: Make
) -> None:
    trimmed = make("trimmed.mp4", "-ss", "0.5", "-i", clips / BUNNY, "-t", "1", "-c", "copy")
    info = examine(trimmed)
    assert info.video.frames == len(decoded_frames(runner, trimmed, info)) < 40
    assert info.video.start_pts * info.video.time_base < Fraction(1, 25)
    assert info.video.frame_rate == 25
    assert info.video.declared_frames == info.video.frames


def test_the_duration_is_the_videos_own(examine: Examine, clips: Path, make: Make) -> None:
    sound = "sine=duration=5"
    longer = make(
        *("longer.mp4", "-i", clips / BUNNY, "-f", "lavfi", "-i", sound),
        *("-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "aac"),
    )
    assert examine(longer).video.duration_seconds == 2
    matroska = make("longer.mkv", "-i", longer, "-c", "copy")
    assert examine(matroska).video.duration_seconds == 2
    assert examine(matroska).video.declared_frames == 50


def test_a_variable_rate_is_the_average_of_what_is_shown(examine: Examine, make_moving: Make) -> None:
    # 25 frames: 12 gaps of 40 ms, then 12 of 120 ms; the last frame lasts 40 ms.
    times = "setpts='if(lt(N,13),N,12+(N-12)*3)*0.04/TB'"
    variable = make_moving("variable.mkv", "-vf", times, "-fps_mode", "passthrough", "-c:v", "mpeg4")
    video = examine(variable).video
    assert video.frames == 25
    assert abs(video.duration_seconds - Fraction(1960, 1000)) <= Fraction(2, 1000)
    assert video.frame_rate == 25 / video.duration_seconds


@pytest.mark.parametrize("name", ["hour.mp4", "hour.mkv", "hour.avi"])
def test_two_frames_an_hour_apart(
    examine: Examine, make_moving: Make, limits: MediaLimits, name: str
) -> None:
    hour = make_moving(
        *(name, "-vf", "setpts=N*3600/TB", "-fps_mode", "passthrough", "-c:v", "mpeg4"),
        source="testsrc2=s=64x48:r=1:d=2",
    )
    info = examine(hour)
    assert (info.video.frames, info.video.duration_seconds) == (2, 3601)
    assert info.video.frame_rate == Fraction(2, 3601)
    with pytest.raises(LimitExceeded) as refused:
        check_output(info.video, scale=4, target_fps=Fraction(120), limits=limits)
    assert "432,120" in refused.value.message
    assert "400,000" in refused.value.message


def test_the_last_of_uneven_frames_lasts_until_the_stated_end(examine: Examine, make_moving: Make) -> None:
    """Of B-frames at uneven times in MP4, no packet says how long it is shown."""
    times = "settb=1/90000,setpts='N*3600+mod(N*N,7)*311'"
    options = ("-bf", "2", "-fps_mode", "passthrough", "-enc_time_base", "1/90000")
    # Newer versions of ffmpeg round the end to the file's clock, whose ticks are milliseconds by default.
    clocks = ("-video_track_timescale", "90000", "-movie_timescale", "90000")
    path = make_moving("uneven.mp4", "-vf", times, "-c:v", "libx264", *options, *clocks)
    video = examine(path).video
    # The encoder gives the last one the nominal length.
    assert video.duration_seconds == Fraction(24 * 3600 + 24 * 24 % 7 * 311 + 3600, 90_000)


def test_empty_slots_of_an_avi_are_time(runner: FfmpegRunner, examine: Examine, make_moving: Make) -> None:
    # 600 slots a second, a frame in every 24th.
    sparse = make_moving("sparse.avi", "-c:v", "mjpeg", "-enc_time_base", "1/600", "-fps_mode", "passthrough")
    video = examine(sparse).video
    assert (video.frames, video.frame_rate, video.duration_seconds) == (25, 25, 1)


def test_a_single_frame_has_a_rate_and_a_duration(examine: Examine, clips: Path, make: Make) -> None:
    for name in ("one.mkv", "one.mp4", "one.avi", "one.ts"):
        info = examine(make(name, "-i", clips / BUNNY, "-frames:v", "1", "-c:v", "mpeg4", "-an"))
        video = info.video
        assert info.start_seconds == video.start_pts * video.time_base
        assert (video.frames, video.frame_rate) == (1, 25)
        assert video.duration_seconds == Fraction(1, 25)


# Display matrices as MP4 holds them (a b u c d v x y w), for a picture that a player turns clockwise.
MATRICES = {90: (0, 1, 0, -1, 0, 0), 180: (-1, 0, 0, 0, -1, 0), 270: (0, -1, 0, 1, 0, 0)}


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_rotated_video_has_the_size_that_is_shown(
    runner: FfmpegRunner, examine: Examine, make: Make, rotation: int
) -> None:
    graph = "color=red:s=32x48:r=5:d=1[l];color=blue:s=32x48:r=5:d=1[r];[l][r]hstack,setsar=4/3"
    upright = make("upright.mp4", "-f", "lavfi", "-i", graph, "-c:v", "libx264", "-pix_fmt", "yuv420p")
    content = bytearray(upright.read_bytes())
    identity = b"".join(
        value.to_bytes(4, "big") for value in (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    )
    at = content.index(identity, content.index(b"tkhd"))
    turned = b"".join((value * 0x10000).to_bytes(4, "big", signed=True) for value in MATRICES[rotation])
    content[at : at + len(turned)] = turned
    path = upright.with_name("turned.mp4")
    path.write_bytes(content)
    info = examine(path)
    video = info.video
    assert video.rotation == rotation
    swapped = rotation in (90, 270)
    assert (video.width, video.height) == ((48, 64) if swapped else (64, 48))
    assert (video.coded_width, video.coded_height) == (64, 48)
    assert video.sample_aspect_ratio == (Fraction(3, 4) if swapped else Fraction(4, 3))
    # ffmpeg agrees: the red half is where the rotation puts it.
    frame = decoded_frames(runner, path, info)[0]
    row, column = {90: (0, 24), 180: (24, 63), 270: (63, 24)}[rotation]
    red, _, blue = frame[(row * video.width + column) * 3 :][:3]
    assert red > 200
    assert blue < 60


def test_a_rotate_tag_that_ffmpeg_ignores_is_ignored(
    runner: FfmpegRunner, examine: Examine, clips: Path, make: Make
) -> None:
    tagged = make("tagged.mkv", "-i", clips / BUNNY, "-c", "copy", "-metadata:s:v", "rotate=90")
    info = examine(tagged)
    assert (info.video.width, info.video.height, info.video.rotation) == (240, 136, 0)
    assert len(decoded_frames(runner, tagged, info)) == 50


def test_colour_is_what_the_file_tags(examine: Examine, clips: Path, make_moving: Make) -> None:
    colour = examine(clips / BUNNY).video.colour
    assert (colour.primaries, colour.transfer, colour.matrix) == (1, 1, 1)
    assert (colour.range, colour.chroma_location) == ("tv", "left")
    tags = "setparams=color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc:range=pc"
    arguments = ["-vf", tags, "-c:v", "ffv1", "-pix_fmt", "yuv420p10le"]
    tags_too = ["-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc"]
    tagged = examine(make_moving("hdr.mkv", *arguments, *tags_too, "-color_range", "pc")).video
    assert (tagged.colour.primaries, tagged.colour.transfer) == (9, 16)
    assert (tagged.colour.matrix, tagged.colour.range) == (9, "pc")
    assert tagged.pix_fmt == "yuv420p10le"
    plain = examine(make_moving("plain.mkv", "-c:v", "mpeg4")).video
    assert plain.colour.primaries is plain.colour.transfer is plain.colour.matrix is None


def test_interlaced_video_is_told(examine: Examine, make_moving: Make) -> None:
    interlaced = make_moving("interlaced.mkv", "-c:v", "mpeg2video", "-flags", "+ildct+ilme", "-top", "1")
    assert examine(interlaced).video.field_order in ("tt", "tb")


def test_other_streams_are_described(examine: Examine, clips: Path, make: Make, tmp_path: Path) -> None:
    font = tmp_path / "font.ttf"
    font.write_bytes(b"\0\1\0\0 not quite a font")
    subtitles = tmp_path / "words.srt"
    subtitles.write_text("1\n00:00:00,000 --> 00:00:01,000\nHello\n")
    rich = make(
        *(
            "rich.mkv",
            "-i",
            clips / BUNNY,
            "-i",
            subtitles,
            "-map",
            "0:a",
            "-map",
            "0:v",
            "-map",
            "1",
            "-map",
            "0:a",
        ),
        *("-c", "copy", "-c:a:1", "tta", "-disposition:a:1", "0"),
        *("-attach", font, "-metadata:s:t", "mimetype=application/x-truetype-font"),
    )
    info = examine(rich)
    assert info.video.index == 1
    described = {other.index: (other.kind, other.codec, other.is_decodable) for other in info.others}
    assert described == {
        0: ("audio", "aac", True),
        2: ("subtitle", "subrip", True),
        3: ("audio", "tta", False),
        4: ("attachment", "ttf", False),
    }
    assert [other.is_default for other in info.others][:3:2] == [True, False]


def test_cover_art_is_not_the_video(examine: Examine, clips: Path, make: Make) -> None:
    cover = make("cover.jpg", "-i", clips / BUNNY, "-frames:v", "1")
    covered = make(
        *("covered.mp4", "-i", cover, "-i", clips / BUNNY, "-map", "0", "-map", "1:v", "-map", "1:a"),
        *("-c", "copy", "-disposition:v:0", "attached_pic"),
    )
    info = examine(covered)
    assert (info.video.codec, info.video.frames) == ("h264", 50)
    (art,) = [other for other in info.others if other.kind == "video"]
    assert art.is_attached_picture


def test_the_default_video_comes_first(examine: Examine, make: Make, clips: Path) -> None:
    two = make(
        *("two.mkv", "-i", clips / BUNNY, "-map", "0:v", "-map", "0:v", "-c:v:0", "mpeg4", "-c:v:1", "copy"),
        *("-disposition:v:0", "0", "-disposition:v:1", "default"),
    )
    info = examine(two)
    assert (info.video.index, info.video.codec) == (1, "h264")


@pytest.mark.parametrize("keep", [0.4, 0.6, 0.9])
def test_a_file_cut_off_in_the_middle_is_read_as_far_as_it_goes(
    runner: FfmpegRunner, examine: Examine, clips: Path, make: Make, keep: float
) -> None:
    for name, source, rate in (("fast.mp4", BUNNY, Fraction(25)), ("copy.mkv", WEBB, NTSC)):
        whole = make(name, "-i", clips / source, "-c", "copy", "-movflags", "+faststart")
        content = whole.read_bytes()
        cut = whole.with_name("cut-" + name)
        cut.write_bytes(content[: int(len(content) * keep)])
        video = examine(cut).video
        assert 0 < video.frames < video.declared_frames == (50 if source == BUNNY else 60)
        assert video.frame_rate == rate
        assert video.duration_seconds < 2


def test_a_whole_file_is_not_taken_for_cut_off(examine: Examine, clips: Path, make: Make) -> None:
    for name in ("whole.mp4", "whole.mkv", "whole.avi"):
        whole = make(
            name, "-i", clips / BUNNY, "-c:v", "copy", "-c:a", "mp3" if name.endswith("avi") else "copy"
        )
        assert examine(whole).video.declared_frames == 50


@pytest.mark.parametrize("name", [BUNNY, "a.mkv", "a.ts", "covers.mp4"])
def test_a_small_file_is_read_in_one_run(
    examine: Examine, clips: Path, make: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """With the result of two runs, which a file over one of the limits still takes."""
    starts: list[object] = []

    class CountedProcess(FfmpegProcess):
        def __init__(self, **arguments: Any) -> None:
            starts.append(arguments["command"])
            super().__init__(**arguments)

    cover = (
        "-f",
        "lavfi",
        "-i",
        "color=size=64x64:duration=0.04",
        "-map",
        "1:v",
        "-map",
        "0",
        "-c:v:0",
        "png",
    )
    added = (*cover, "-c:v:1", "copy", "-c:a", "copy") if name.startswith("covers") else ("-c", "copy")
    path = clips / name if name == BUNNY else make(name, "-i", clips / BUNNY, *added)
    monkeypatch.setattr(ffmpeg_module, "FfmpegProcess", CountedProcess)
    info = examine(path)
    assert len(starts) == 1
    for limit in ("MOST_BYTES", "OUTPUT_BYTES"):
        with monkeypatch.context() as lowered:
            lowered.setattr(file_listing, limit, 1000)
            starts.clear()
            assert examine(path) == info
            assert len(starts) > 1
