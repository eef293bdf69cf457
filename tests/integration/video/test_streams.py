"""Files of many streams: each is kept or left out by itself, and the film is what is upscaled."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.platform.media.ffmpeg import FfmpegRunner
from worker.video.appended_files import APPENDED_WARNING, has_appended_file
from worker.video.frame_scan import TIMES_WARNING
from worker.video.mux_command import SOUND_UNREADABLE
from worker.video.opus_layouts import OPUS_CHANGES, opus_warnings
from worker.video.raw_aac import CHANGE_NOT_DESCRIBED, RATE_NOT_DESCRIBED, read_sound_packets
from worker.video.sound_headers import sound_formats
from worker.video.tracks import SOUND_CHANGES, SOUND_CONVERTED, SOUND_EMPTY, VIDEO_LEFT_OUT

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "10")
SINE = "sine=f=440:r=48000:d=0.4"
RATE = 48_000
# Of the file, with the empty size of a tag before the first; of a tag beside its data, with its size after it.
FLV_HEADER_BYTES, FLV_TAG_BYTES = 13, 15
FIRST_PID, TS_PACKET_BYTES = 0x100, 188


def _without_stream(path: Path, stream: int, *, part: float = 1) -> Path:
    """The transport stream without the packets of one of its streams, which it still announces, in its first `part`."""
    whole = path.read_bytes()
    starts = range(0, len(whole), TS_PACKET_BYTES)
    packets = [whole[at : at + TS_PACKET_BYTES] for at in starts]
    is_kept = [
        (packet[1] & 0x1F) << 8 | packet[2] != FIRST_PID + stream or at >= part * len(whole)
        for at, packet in zip(starts, packets, strict=True)
    ]
    path.write_bytes(b"".join(packet for packet, keep in zip(packets, is_kept, strict=True) if keep))
    return path


def test_a_stream_that_never_comes_takes_no_other_with_it(
    clip: Callable[..., Path], rendered: Callable[..., Any]
) -> None:
    maps = ("-map", "0:v", "-map", "0:v", "-map", "1:a", "-map", "1:a", "-map", "1:a")
    sounds = ("-c:a:0", "aac", "-c:a:1", "aac", "-c:a:2", "mp2")
    source = clip("a.ts", *maps, *X264, *sounds, before=("-f", "lavfi", "-i", SINE), frames=10)
    for dead in (0, 2):
        _without_stream(source, dead)
    result = rendered(source)
    assert (result.info.video.index, result.finished.properties.frames) == (1, 10)
    assert [stream["codec_name"] for stream in result.all_streams] == ["h264", "aac", "aac"]
    assert set(result.finished.warnings) == {VIDEO_LEFT_OUT, SOUND_EMPTY, SOUND_CONVERTED}


def test_sound_that_starts_late_is_kept(
    clip: Callable[..., Path], rendered: Callable[..., Any], probed: Callable[..., dict[str, Any]]
) -> None:
    late = ("-f", "lavfi", "-i", "sine=f=440:r=48000:d=40")
    source = clip(
        "a.ts", "-map", "0:v", "-map", "1:a", *X264, "-c:a", "aac", before=late, frames=40, rate="1"
    )
    _without_stream(source, 1, part=0.9)
    (announced,) = probed(source, "-select_streams", "a", "-show_entries", "stream=channels")["streams"]
    assert not announced.get("channels")
    result = rendered(source)
    assert [stream["codec_name"] for stream in result.all_streams] == ["h264", "aac"]
    assert result.finished.warnings == ()


@pytest.mark.parametrize(
    ("codec", "name"), [("mjpeg", "a.mov"), ("png", "a.mkv"), ("mjpeg", "a.mkv"), ("png", "a.mov")]
)
def test_the_film_is_chosen_not_a_picture_before_it(
    clip: Callable[..., Path], planned: Callable[..., Any], codec: str, name: str
) -> None:
    picture = ("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=0.04")
    maps = ("-map", "1:v", "-map", "0:v", "-disposition:v:0", "default", "-disposition:v:1", "default")
    coded = (
        "-c:v:0",
        codec,
        "-pix_fmt:v:0",
        "yuvj420p" if codec == "mjpeg" else "rgb24",
        "-c:v:1",
        "libx264",
    )
    source = clip(
        name, *maps, *coded, "-c:v", "libx264", "-pix_fmt:v:1", "yuv420p", *coded, before=picture, frames=10
    )
    info, _, segments = planned(source)
    assert (info.video.index, sum(segment.output_frames for segment in segments)) == (1, 10)


def test_a_track_that_cannot_be_muxed_takes_no_other_with_it(
    clip: Callable[..., Path], rendered: Callable[..., Any]
) -> None:
    maps = ("-map", "0:v", "-map", "1:a", "-map", "1:a")
    sounds = ("-c:a:0", "eac3", "-c:a:1", "flac")
    source = clip("a.mkv", *maps, *X264, *sounds, before=("-f", "lavfi", "-i", SINE), frames=10)
    # MP4 describes E-AC-3 by its first frame.
    source.write_bytes(source.read_bytes().replace(b"\x0b\x77", b"\x0b\x78"))
    result = rendered(source)
    assert [stream["codec_name"] for stream in result.all_streams] == ["h264", "flac"]
    assert result.finished.warnings == (SOUND_UNREADABLE,)


# How a track is coded, and the rate and layout of its two halves.
CHANGES = (
    ("aac", "adts", ("48000:stereo", "48000:5.1"), "5.1"),
    ("aac", "adts", ("48000:stereo", "44100:stereo"), "stereo"),
    ("ac3", "ac3", ("48000:5.1", "48000:stereo"), "5.1"),
    ("mp3", "mp3", ("48000:stereo", "44100:stereo"), "stereo"),
    ("mp3", "mp3", ("44100:stereo", "48000:stereo"), "stereo"),
)


def test_sound_that_changes_is_heard_to_its_end(
    clip: Callable[..., Path], rendered: Callable[..., Any], ffmpeg: Callable[..., bytes], tmp_path: Path
) -> None:
    inputs: list[str | Path] = []
    for codec, container, parts, _ in CHANGES:
        sound = tmp_path / f"sound-{len(inputs)}.{container}"
        coded = b""
        for tone, part in zip((400, 800), parts, strict=True):
            rate, layout = part.split(":")
            sine = f"aevalsrc='0.3*sin(2*PI*{tone}*t)':s={rate}:d=0.8,pan={layout}|FL=c0"
            coded += ffmpeg("-f", "lavfi", "-i", sine, "-c:a", codec, "-f", container, "pipe:1")
        sound.write_bytes(coded)
        inputs += ["-i", sound]
    maps = [word for number in range(len(CHANGES) + 1) for word in ("-map", str(number))]
    result = rendered(clip("a.ts", *maps, *X264, "-c:a", "copy", before=inputs, frames=40))
    assert result.finished.warnings == (SOUND_CHANGES,)
    for number, (track, (*_, layout)) in enumerate(zip(result.all_streams[1:], CHANGES, strict=True)):
        assert (track["codec_name"], track["sample_rate"]) == ("aac", "48000")
        assert track["channel_layout"] == layout
        left = ("-map", f"0:a:{number}", "-af", "pan=mono|c0=FL", "-f", "f32le", "pipe:1")
        heard = np.frombuffer(ffmpeg("-i", result.output, *left), np.float32)
        for start, tone in ((0.2, 400), (0.5, 400), (1.0, 800), (1.3, 800)):
            piece = heard[round(start * RATE) :][: RATE // 5]
            spectrum = np.abs(np.fft.rfft(piece * np.hanning(len(piece))))
            assert abs(spectrum.argmax() * 5 - tone) <= 10
            assert np.abs(piece).max() > 0.2


@pytest.mark.parametrize(
    ("layouts", "channels", "loudest"),
    [(("stereo", "mono"), 2, 0.3), (("mono", "stereo"), 1, 0.15)],
)
def test_opus_that_changes_within_a_transport_stream_is_heard_in_its_first_layout(
    layouts: tuple[str, ...],
    channels: int,
    loudest: float,
    clip: Callable[..., Path],
    rendered: Callable[..., Any],
    ffmpeg: Callable[..., bytes],
) -> None:
    """Of its left channel alone, mixed to one, half is left."""
    parts = []
    for number, layout in enumerate(layouts):
        tone = f"aevalsrc='0.3*sin(2*PI*400*t)':s={RATE}:d=0.4,pan={layout}|{'FL' if layout == 'stereo' else 'FC'}=c0"
        maps = ("-map", "0:v", "-map", "1:a", *X264, "-c:a", "libopus")
        later = ("-output_ts_offset", f"{10 + 0.4 * number:.1f}")
        name, sound = f"{number}.ts", ("-f", "lavfi", "-i", tone)
        parts.append(clip(name, *maps, *later, before=sound, frames=10, size="64x36").read_bytes())
    source = clip("joined.ts", *X264, frames=1, size="64x36")
    source.write_bytes(b"".join(parts))
    result = rendered(source)
    assert result.finished.warnings == (OPUS_CHANGES,)
    assert (result.info.video.frames, result.all_streams[1]["codec_name"]) == (20, "opus")
    assert result.all_streams[1]["channels"] == channels
    first = ("-map", "0:a", "-af", "pan=mono|c0=c0", "-f", "f32le", "pipe:1")
    heard = np.abs(np.frombuffer(ffmpeg("-i", result.output, *first), np.float32))
    for start, level in ((0.1, 0.3), (0.6, loudest)):
        assert abs(heard[round(start * RATE) :][: RATE // 10].max() - level) < 0.02


def test_sound_of_a_recording_that_was_joined_is_heard_to_its_end(
    clip: Callable[..., Path], rendered: Callable[..., Any], ffmpeg: Callable[..., bytes]
) -> None:
    parts = []
    for tone, layout in ((400, "stereo"), (800, "5.1")):
        sine = f"aevalsrc='0.3*sin(2*PI*{tone}*t)':s={RATE}:d=0.8,pan={layout}|FL=c0"
        sound = ("-f", "lavfi", "-i", sine)
        part = clip(
            f"{tone}.flv", "-map", "0:v", "-map", "1:a", *X264, "-c:a", "aac", before=sound, frames=20
        )
        parts.append(part.read_bytes())
    joined, at = parts[0], FLV_HEADER_BYTES
    while at < len(parts[1]):
        size = FLV_TAG_BYTES + int.from_bytes(parts[1][at + 1 : at + 4], "big")
        tag = bytearray(parts[1][at : at + size])
        tag[4:7] = (int.from_bytes(tag[4:7], "big") + 880).to_bytes(3, "big")
        joined += bytes(tag) if tag[0] in (8, 9) else b""  # sound and video
        at += size
    source = part.with_name("joined.flv")
    source.write_bytes(joined)
    result = rendered(source)
    assert SOUND_CHANGES in result.finished.warnings
    assert result.all_streams[1]["channel_layout"] == "5.1"
    left = ("-map", "0:a:0", "-af", "pan=mono|c0=FL", "-f", "f32le", "pipe:1")
    heard = np.frombuffer(ffmpeg("-i", result.output, *left), np.float32)
    for start, tone in ((0.3, 400), (1.2, 800)):
        piece = heard[round(start * RATE) :][: RATE // 5]
        assert abs(np.abs(np.fft.rfft(piece * np.hanning(len(piece)))).argmax() * 5 - tone) <= 10


def test_an_mp4_that_describes_its_sound_twice_has_sound_of_two_formats(
    ffmpeg: Callable[..., bytes], runner: FfmpegRunner, tmp_path: Path
) -> None:
    """As edited films do; ffmpeg's muxer writes one description."""
    parts = [tmp_path / "2.m4a", tmp_path / "6.m4a"]
    for channels, part in zip((2, 6), parts, strict=True):
        ffmpeg("-f", "lavfi", "-i", f"sine=d=0.3:r={RATE},pan={channels}c|c0=c0", "-c:a", "aac", part)
    listing, source = tmp_path / "list", tmp_path / "joined.m4a"
    listing.write_text("file 2.m4a\nfile 6.m4a\n")
    ffmpeg("-f", "concat", "-auto_convert", "0", "-i", listing, "-c", "copy", source)
    descriptions = [box(part.read_bytes(), b"stsd") for part in parts]
    first, second = (int.from_bytes(box(part.read_bytes(), b"stsz")[8:12], "big") for part in parts)
    data = source.read_bytes()
    sizes, start = np.frombuffer(box(data, b"stsz")[12:], ">u4"), box(data, b"stco")[8:]
    chunks = np.array([int.from_bytes(start, "big") + place for place in (0, sizes[:first].sum())], ">u4")
    rows = np.array([2, 1, first, 1, 2, second, 2], ">u4")
    data = with_box(data, b"stsd", b"\0\0\0\0\0\0\0\2" + b"".join(each[8:] for each in descriptions))
    data = with_box(data, b"stsc", b"\0\0\0\0" + rows.tobytes())
    data = with_box(data, b"stco", b"\0\0\0\0\0\0\0\2" + chunks.tobytes())
    source.write_bytes(data)
    stream = {"index": 0, "codec_name": "aac", "profile": "LC", "channels": 2, "sample_rate": str(RATE)}
    format_name = "mov,mp4,m4a,3gp,3g2,mj2"
    _, described_anew, warnings = read_sound_packets(
        runner, source, [stream], format_name=format_name, cancelled=lambda: False
    )
    assert warnings == ()
    formats = sound_formats(
        *(runner, source, [stream]),
        format_name=format_name,
        described_anew=described_anew,
        cancelled=lambda: False,
    )
    assert {one.channels for one in formats[0]} == {2, 6}


@pytest.mark.parametrize(
    ("name", "channels", "rates", "warning"),
    [
        ("a.mp4", (2, 6), (RATE, RATE), CHANGE_NOT_DESCRIBED),
        ("a.mov", (6, 2), (RATE, RATE), CHANGE_NOT_DESCRIBED),
        ("a.mkv", (1, 2), (RATE, RATE), CHANGE_NOT_DESCRIBED),
        ("a.mp4", (1, 6), (RATE, RATE), CHANGE_NOT_DESCRIBED),
        ("a.mkv", (2, 2), (RATE, 44_100), RATE_NOT_DESCRIBED),
        # The one channel is heard from the centre.
        ("a.mkv", (6, 1), (RATE, RATE), None),
        ("a.mp4", (1, 1), (RATE, RATE), None),
        ("a.mp4", (2, 2), (RATE, RATE), None),
        ("a.mkv", (2, 2), (RATE, RATE), None),
        ("a.mkv", (6, 6), (RATE, RATE), None),
    ],
)
def test_sound_that_is_joined_without_its_description_is_told(
    name: str,
    channels: tuple[int, int],
    rates: tuple[int, int],
    warning: str | None,
    ffmpeg: Callable[..., bytes],
    probed: Callable[..., dict[str, Any]],
    runner: FfmpegRunner,
    tmp_path: Path,
) -> None:
    """By ffmpeg's concat demuxer, with `-c copy`."""
    for number, (count, rate) in enumerate(zip(channels, rates, strict=True)):
        noise = f"anoisesrc=d=1:r={rate},pan={count}c|c0=c0"
        ffmpeg("-f", "lavfi", "-i", noise, "-c:a", "aac", tmp_path / f"{number}-{name}")
    listing, source = tmp_path / "list", tmp_path / name
    listing.write_text(f"file 0-{name}\nfile 1-{name}\n")
    ffmpeg("-f", "concat", "-i", listing, "-c", "copy", source)
    answer = probed(source, "-show_streams", "-show_format")
    format_name = answer["format"]["format_name"]
    *_, warnings = read_sound_packets(
        runner, source, answer["streams"], format_name=format_name, cancelled=lambda: False
    )
    assert warnings == (() if warning is None else (warning,))


@pytest.mark.parametrize(
    ("layouts", "is_told"), [(("stereo", "5.1"), True), (("5.1", "5.1"), False), (("stereo+5.1",), False)]
)
def test_opus_of_several_layouts_is_told(
    layouts: tuple[str, ...], is_told: bool, ffmpeg: Callable[..., bytes], tmp_path: Path
) -> None:
    source, part = tmp_path / "joined.ts", tmp_path / "part.ts"
    joined = b""
    for names in layouts:
        tracks = [f"anoisesrc=d=0.1:r={RATE},pan={name}|FL=c0" for name in names.split("+")]
        inputs = [word for track in tracks for word in ("-f", "lavfi", "-i", track)]
        maps = [word for number in range(len(tracks)) for word in ("-map", str(number))]
        ffmpeg(*inputs, *maps, "-c:a", "libopus", part)
        joined += part.read_bytes()
    source.write_bytes(joined)
    assert opus_warnings(source) == ([OPUS_CHANGES] if is_told else [])


def box(data: bytes, name: bytes) -> bytes:
    """The contents of a box of the index, which follows the sound."""
    at = data.rindex(name) - 4
    return data[at + 8 : at + int.from_bytes(data[at : at + 4], "big")]


def with_box(data: bytes, name: bytes, contents: bytes) -> bytes:
    """The file with other contents of a box within the table of samples."""
    grows = len(contents) - len(box(data, name))
    changed = bytearray(data)
    for parent in (b"moov", b"trak", b"mdia", b"minf", b"stbl", name):
        at = changed.rindex(parent) - 4
        changed[at : at + 4] = (int.from_bytes(changed[at : at + 4], "big") + grows).to_bytes(4, "big")
    return bytes(changed).replace(box(data, name), contents)


FRAGMENTS = ("-movflags", "frag_keyframe+empty_moov")


@pytest.mark.parametrize(
    ("name", "arguments", "is_told"),
    [
        ("a.flv", X264, True),
        ("a.mp4", X264, True),
        ("a.mov", ("-c:v", "mjpeg", "-pix_fmt", "yuvj420p"), True),
        ("a.wmv", ("-c:v", "wmv2"), True),
        ("a.png", ("-f", "apng", "-c:v", "apng", "-pix_fmt", "rgb24"), True),
        # What is read to its end, and what may be.
        ("a.ts", X264, False),
        ("fragments.mp4", (*X264, *FRAGMENTS), False),
    ],
)
def test_an_appended_file_is_told_where_it_is_not_read(
    clip: Callable[..., Path], name: str, arguments: tuple[str, ...], is_told: bool
) -> None:
    source = clip(name, *arguments, frames=3, size="64x36")
    content = source.read_bytes()
    assert not has_appended_file(source)
    source.write_bytes(content * 2)
    assert has_appended_file(source) == is_told
    for cut in (9, 12, 30, len(content) // 2):
        source.write_bytes(content[:cut])
        assert not has_appended_file(source)


@pytest.mark.parametrize("name", ["a.flv", "a.mp4"])
def test_of_a_file_with_another_one_appended_the_first_is_upscaled(
    clip: Callable[..., Path], rendered: Callable[..., Any], name: str
) -> None:
    source = clip(name, *X264, frames=3, size="64x36")
    source.write_bytes(source.read_bytes() * 2)
    result = rendered(source)
    assert result.finished.warnings == (APPENDED_WARNING,)
    assert result.info.video.frames == 3


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("a.mkv", X264), ("a.webm", ("-c:v", "libvpx", "-b:v", "1M")), ("a.mxf", ("-c:v", "mpeg2video"))],
)
def test_frames_of_an_appended_file_without_valid_times_are_spaced_and_it_is_told(
    clip: Callable[..., Path], planned: Callable[..., Any], name: str, arguments: tuple[str, ...]
) -> None:
    source = clip(name, *arguments, frames=3, size="64x36")
    source.write_bytes(source.read_bytes() * 2)
    info, render, segments = planned(source)
    ticks = [segment.start_tick + tick for segment in segments for tick in segment.output_ticks()]
    assert (info.video.frames, len(set(ticks))) == (6, 6)
    assert ticks == sorted(ticks)
    assert render.warnings == (TIMES_WARNING,)
