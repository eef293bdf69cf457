"""What cameras and broadcasters put beside the pictures: kept, or named in a warning."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.first_frames import Spatial, probe_first_frames
from worker.video.metadata import TIMECODE_LEFT_OUT, keep_metadata
from worker.video.side_data import CLOSED_CAPTIONS, lost_side_data
from worker.video.spherical_video import write_spatial

APPLE = {
    "com.apple.quicktime.make": "Apple",
    "com.apple.quicktime.model": "iPhone 15",
    "com.apple.quicktime.location.ISO6709": "+48.1374+011.5755+520/",
    "com.apple.quicktime.creationdate": "2024-05-01T10:00:00+0200",
}
# A caption of CEA-708 and an empty one of CEA-608 (ATSC A/53): as user data registered by ITU-T T.35, in an SEI message
# (ITU-T H.264, D.1.6), and in the user data of a picture in MPEG-2.
REGISTERED = bytes.fromhex("b50031474139340342fffc8080ff0221ff")
MESSAGE = bytes([4, len(REGISTERED)]) + REGISTERED + b"\x80"
CAPTIONS = b"\0\0\0\1\x06" + MESSAGE
START = b"\0\0\1"
X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none:bframes=0:keyint=1")
# By the kind: how it is coded, what a picture's first slice begins with, and captions before it.
CAPTIONED = {
    "h264": (("-c:v", "libx264", "-g", "1"), START + b"\x65", START + b"\x06" + MESSAGE),
    "hevc": (X265, START + b"\x28", START + b"\x4e\x01" + MESSAGE),
    "m2v": (("-c:v", "mpeg2video", "-g", "1"), START + b"\x01", START + b"\xb2" + REGISTERED[3:]),
}


def test_a_phones_metadata_and_timecode_are_kept(
    clip: Callable[..., Path],
    rendered: Callable[..., Any],
    planned: Callable[..., Any],
    probed: Callable[..., Any],
) -> None:
    tags = [word for name, value in APPLE.items() for word in ("-metadata", f"{name}={value}")]
    source = clip(
        "a.mov",
        *tags,
        *("-metadata", "title=A title", "-timecode", "01:02:03:04", "-movflags", "use_metadata_tags"),
        frames=6,
    )
    result = rendered(source)
    written = result.probed["format"]["tags"]
    assert {name: written.get(name) for name in APPLE} == APPLE
    assert written["title"] == "A title"
    assert written["major_brand"] == "isom"
    assert [stream["codec_tag_string"] for stream in result.all_streams] == ["avc1", "tmcd"]
    assert result.stream["tags"]["timecode"] == "01:02:03:04"
    (first,) = probed(result.output, "-select_streams", "d", "-show_entries", "packet=pts,size")["packets"]
    assert first["pts"] == 0
    assert result.stream["start_pts"] == 0
    assert result.finished.warnings == ()

    _, faster, segments = planned(source, target_fps=Fraction(12))
    streams = [{"index": 0, "tags": {"timecode": "01:02:03:04"}}]
    kept = keep_metadata({}, streams, render=faster, segments=segments)
    assert (kept.options, kept.arguments, kept.warnings) == ({}, [], [TIMECODE_LEFT_OUT])


def test_a_cameras_telemetry(clip: Callable[..., Path], rendered: Callable[..., Any], tmp_path: Path) -> None:
    """Tracks of text, renamed: one kind is kept, the other named."""
    text = tmp_path / "a.srt"
    text.write_text("1\n00:00:00,000 --> 00:00:00,200\nHello\n")
    maps = ("-map", "0", "-map", "1", "-map", "1", "-c:s", "mov_text")
    plain = clip("plain.mp4", *maps, before=("-i", text), frames=6).read_bytes().replace(b"sbtl", b"meta")
    source = tmp_path / "a.mp4"
    source.write_bytes(plain.replace(b"tx3g", b"gpmd", 1).replace(b"tx3g", b"mebx", 1))
    result = rendered(source)
    assert [stream["codec_tag_string"] for stream in result.all_streams] == ["avc1", "gpmd"]
    assert result.finished.warnings == ("A track of data was left out (mebx).",)


@pytest.mark.parametrize("kind", CAPTIONED)
def test_captions_are_found_in_each_codec(
    kind: str, clip: Callable[..., Path], runner: FfmpegRunner, ffmpeg: Callable[..., bytes], tmp_path: Path
) -> None:
    coding, slice_start, captions = CAPTIONED[kind]
    plain = clip(f"a.{kind}", *coding, "-pix_fmt", "yuv420p", frames=2, size="64x36")
    marked, source = tmp_path / f"marked.{kind}", tmp_path / "a.mpg"
    for before, has_captions in ((b"", False), (captions, True)):
        marked.write_bytes(plain.read_bytes().replace(slice_start, before + slice_start))
        ffmpeg("-fflags", "+genpts", "-i", marked, "-c", "copy", source)
        found = probe_first_frames(runner, source, stream_index=0)
        assert any(CLOSED_CAPTIONS in kind.lower() for kind in found.side_data) == has_captions
        assert lost_side_data(found.side_data) == []


@pytest.mark.parametrize(
    "spatial",
    [
        Spatial(projection="cubemap", yaw=90, pitch=-45, roll=10, padding=2),
        Spatial(projection="equirectangular", stereo="side by side"),
        Spatial(stereo="mono"),
    ],
)
def test_spheres_and_views_are_written_as_they_are_read(
    spatial: Spatial, clip: Callable[..., Path], runner: FfmpegRunner
) -> None:
    source = clip("a.mp4", frames=1, size="64x36")
    write_spatial(source, spatial)
    found = probe_first_frames(runner, source, stream_index=0)
    assert (found.spatial, lost_side_data(found.side_data)) == (spatial, [])


def test_captions_stereo_and_spheres_are_kept(
    clip: Callable[..., Path],
    rendered: Callable[..., Any],
    probed: Callable[..., Any],
    ffmpeg: Callable[..., bytes],
    tmp_path: Path,
) -> None:
    stereo = ("-c:v", "libx264", "-x264-params", "frame-packing=4:keyint=1:bframes=0")
    plain = clip("a.h264", *stereo, "-pix_fmt", "yuv420p", frames=2)
    # Before each picture's first slice: an IDR slice, of type 5.
    marked = tmp_path / "marked.h264"
    marked.write_bytes(plain.read_bytes().replace(b"\0\0\1\x65", CAPTIONS[1:] + b"\0\0\1\x65"))
    source = tmp_path / "a.mp4"
    sound = ("-f", "lavfi", "-i", "sine=d=0.08", "-c:a", "aac")
    ffmpeg("-i", marked, *sound, "-c:v", "copy", "-movflags", "+faststart", source)
    write_spatial(source, Spatial(projection="equirectangular", yaw=-30, pitch=10, roll=5))
    result = rendered(source)
    assert result.finished.warnings == ()
    frames = probed(result.output, "-select_streams", "v", "-show_entries", "frame_side_data")["frames"]
    kinds = [{one["side_data_type"].lower() for one in frame["side_data_list"]} for frame in frames]
    assert [any(CLOSED_CAPTIONS in kind for kind in some) for some in kinds] == [True, True]
    fields = "stream_side_data"
    (video,) = probed(result.output, "-select_streams", "v", "-show_entries", fields)["streams"]
    told = {entry["side_data_type"]: entry for entry in video["side_data_list"]}
    assert told["Stereo 3D"]["type"] == "top and bottom"
    sphere = told["Spherical Mapping"]
    assert sphere["projection"] == "equirectangular"
    assert [sphere[angle] for angle in ("yaw", "pitch", "roll")] == [-30, 10, 5]
    # All chunks are where the index says.
    assert ffmpeg("-v", "warning", "-xerror", "-i", result.output, "-f", "null", "-") == b""
    assert len(probed(result.output, "-show_entries", "frame=pts")["frames"]) > 2
