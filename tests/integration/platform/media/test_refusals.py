"""Uploads that are not videos, or are too much: each its error and a sentence that helps."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from app.platform.errors import FfmpegMissing, LimitExceeded, NotAVideo
from app.platform.media import limits as limits_module
from app.platform.media.ffmpeg import FfmpegRunner, Programs
from app.platform.media.limits import MediaLimits
from app.platform.media.probe import probe_video

pytestmark = pytest.mark.slow

Make = Callable[..., Path]

BUNNY = "bunny-240x136-25fps.mp4"


@pytest.fixture
def refusal(runner: FfmpegRunner, limits: MediaLimits) -> Callable[[Path], NotAVideo]:
    def examine(path: Path) -> NotAVideo:
        with pytest.raises(NotAVideo) as refused:
            probe_video(runner, path, limits=limits)
        assert refused.value.status_code == 415
        assert str(path) not in refused.value.message
        return refused.value

    return examine


Refusal = Callable[[Path], NotAVideo]


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"Just some words.\n", b"\xff" * 4096, b"ftyp", b"\x1aE\xdf\xa3", b"RIFF\x10\0\0\0AVI LIST"],
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_text_and_scraps(refusal: Refusal, tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"upload.{suffix}"
    path.write_bytes(content)
    assert refusal(path).message == "The file is not a video in a format this server reads."


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "bmp"])
def test_pictures(refusal: Refusal, clips: Path, make: Make, kind: str) -> None:
    picture = make(f"picture.{kind}", "-i", clips / BUNNY, "-frames:v", "1")
    disguised = picture.rename(picture.with_name("picture.mp4"))
    assert refusal(disguised).message == "This file is a picture, not a video."


def test_a_picture_in_the_clothes_of_mp4(refusal: Refusal, clips: Path, tmp_path: Path) -> None:
    path = tmp_path / "picture.mp4"
    content = (clips / BUNNY).read_bytes()
    assert content[4:12] == b"ftypisom"
    path.write_bytes(content[:8] + b"avif" + content[12:])
    assert refusal(path).message == "This file is a picture, not a video."


@pytest.mark.parametrize(
    "name", ["sound.mp4", "sound.mkv", "sound.mp3", "sound.wav", "sound.flac", "sound.ogg"]
)
@pytest.mark.parametrize("disguised", [False, True])
def test_sound_alone(refusal: Refusal, clips: Path, make: Make, name: str, disguised: bool) -> None:
    sound = make(name, "-i", clips / BUNNY, "-vn")
    if disguised:
        sound = sound.rename(sound.with_name("disguised.mp4"))
    assert refusal(sound).message == "This file has sound but no video."


@pytest.mark.parametrize("name", ["song.m4a", "song.mkv"])
def test_sound_with_cover_art(refusal: Refusal, clips: Path, make: Make, name: str) -> None:
    cover = make("cover.jpg", "-i", clips / BUNNY, "-frames:v", "1")
    arguments = ["-i", clips / BUNNY, "-i", cover, "-map", "0:a", "-map", "1", "-c", "copy"]
    if name.endswith("mkv"):
        arguments = ["-i", clips / BUNNY, "-map", "0:a", "-c", "copy", "-attach", cover]
        arguments += ["-metadata:s:t", "mimetype=image/jpeg"]
    song = make(name, *arguments, *(["-disposition:v:0", "attached_pic"] if name.endswith("m4a") else []))
    assert refusal(song).message == "This file has sound but no video."


def test_an_mp4_without_its_index(refusal: Refusal, clips: Path, make: Make) -> None:
    whole = make("whole.mp4", "-i", clips / BUNNY, "-c", "copy")  # its index comes last
    content = whole.read_bytes()
    cut = whole.with_name("cut.mp4")
    for keep in (len(content) * 6 // 10, 100, content.index(b"moov") + 50):
        cut.write_bytes(content[:keep])
        assert "was cut off or is still being written" in refusal(cut).message


def test_an_index_without_any_frame(refusal: Refusal, clips: Path, make: Make) -> None:
    whole = make("whole.mp4", "-i", clips / BUNNY, "-c", "copy", "-movflags", "+faststart")
    content = whole.read_bytes()
    cut = whole.with_name("cut.mp4")
    cut.write_bytes(content[: content.index(b"mdat") + 4])
    refusal(cut)


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{neighbour}\n#EXT-X-ENDLIST\n"
FFCONCAT = "ffconcat version 1.0\nfile '{neighbour}'\n"
DASH = "<MPD><Period><AdaptationSet><Representation><BaseURL>{neighbour}</BaseURL></Representation></AdaptationSet>"


@pytest.mark.parametrize(
    "script", [HLS, FFCONCAT, "\ufeff" + HLS, DASH], ids=["hls", "ffconcat", "bom", "dash"]
)
@pytest.mark.parametrize("suffix", ["mp4", "m3u8", "ts"])
@pytest.mark.parametrize("absolute", [False, True])
def test_a_playlist_reads_no_neighbour(
    refusal: Refusal, clips: Path, tmp_path: Path, script: str, suffix: str, absolute: bool
) -> None:
    # Had ffprobe opened this neighbour, it would wait for it, and the error would be another.
    neighbour = tmp_path / "secret.mp4"
    os.mkfifo(neighbour)
    path = tmp_path / f"playlist.{suffix}"
    path.write_text(script.format(neighbour=neighbour if absolute else neighbour.name))
    refused = refusal(path)
    assert refused.message in (
        "This file is a playlist that refers to other files. Send the video itself.",
        "The file is not a video in a format this server reads.",
    )


@pytest.mark.parametrize("script", [HLS, FFCONCAT], ids=["hls", "ffconcat"])
def test_a_playlist_shows_nothing_of_a_readable_neighbour(
    refusal: Refusal, clips: Path, tmp_path: Path, script: str
) -> None:
    (tmp_path / "secret.mp4").write_bytes((clips / BUNNY).read_bytes())
    (tmp_path / "secret.txt").write_text("the secret words\n")
    for neighbour in ("secret.mp4", "secret.txt"):
        path = tmp_path / "playlist.mp4"
        path.write_text(script.format(neighbour=neighbour))
        refused = refusal(path)
        assert "playlist" in refused.message
        assert "secret words" not in (refused.detail or "")
        assert "240x136" not in (refused.detail or "")


def test_a_codec_that_is_not_decoded_here(refusal: Refusal, make_moving: Make) -> None:
    assert "magicyuv" in refusal(make_moving("exotic.mkv", "-c:v", "magicyuv")).message


def test_pixels_that_are_not_read_here(refusal: Refusal, make_moving: Make) -> None:
    """Bayer patterns, by the four letters that name raw video: refused at once, rather than by a worker."""
    path = make_moving("bayer.mkv", "-c:v", "rawvideo", "-pix_fmt", "yuv420p")
    content = path.read_bytes()
    assert content.count(b"I420") == 1
    path.write_bytes(content.replace(b"I420", b"\xbaBG\x08"))
    message = refusal(path).message
    assert "(bayer_bggr8)" in message
    assert "ffmpeg -i input" in message


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "libvpx-vp9", "ffv1", "rawvideo", "mjpeg"])
def test_a_fake_frame_size(runner: FfmpegRunner, limits: MediaLimits, make_moving: Make, codec: str) -> None:
    honest = make_moving(
        "honest.mkv", "-c:v", codec, source="color=size=256x256:rate=5:duration=1,format=yuvj420p"
    )
    assert probe_video(runner, honest, limits=limits).video.width == 256
    content = honest.read_bytes()
    # EBML: PixelWidth (0xB0) and PixelHeight (0xBA), two bytes each.
    size = b"\xb0\x82\x01\x00\xba\x82\x01\x00"
    assert content.count(size) == 1
    fake = honest.with_name("fake.mkv")
    fake.write_bytes(content.replace(size, b"\xb0\x82\x40\x00\xba\x82\x40\x00"))
    with pytest.raises(LimitExceeded, match=r"16384 x 16384.*9,437,184"):
        probe_video(runner, fake, limits=limits)


def test_a_picture_bomb(runner: FfmpegRunner, limits: MediaLimits, make_moving: Make) -> None:
    bomb = make_moving("bomb.mkv", "-c:v", "mjpeg", "-frames:v", "1", source="color=size=8192x8192:rate=5")
    assert bomb.stat().st_size < 2_000_000
    with pytest.raises(LimitExceeded, match="8192 x 8192"):
        probe_video(runner, bomb, limits=limits)


def test_too_many_streams(runner: FfmpegRunner, limits: MediaLimits, clips: Path, make: Make) -> None:
    many = make("many.mkv", "-i", clips / BUNNY, "-map", "0:v", *["-map", "0:a"] * 39, "-c", "copy")
    with pytest.raises(LimitExceeded, match=r"40 streams.*32"):
        probe_video(runner, many, limits=limits)
    assert probe_video(runner, many, limits=replace(limits, max_streams=40)).stream_count == 40


def _element(identifier: str, content: bytes) -> bytes:
    """An element of Matroska, with a size of eight bytes."""
    return bytes.fromhex(identifier) + (len(content) | 1 << 56).to_bytes(8, "big") + content


def _chapters(count: int) -> bytes:
    # Numbered downwards, so that ffmpeg looks through all that it has for each.
    numbers = ((count - number, 1 + number) for number in range(count))
    atoms = [
        _element("b6", _element("73c4", uid.to_bytes(4, "big")) + _element("91", start.to_bytes(4, "big")))
        for uid, start in numbers
    ]
    return _element("1043a770", _element("45b9", b"".join(atoms)))


def _tags(count: int) -> bytes:
    tags = [
        _element("67c8", _element("45a3", b"T%d" % number) + _element("4487", b"v"))
        for number in range(count)
    ]
    return _element("1254c367", _element("7373", _element("63c0", b"") + b"".join(tags)))


@pytest.mark.parametrize(
    ("describe", "count", "sentence"),
    [
        (_chapters, 2001, r"2,001 chapters; at most 2,000"),
        (_tags, 2001, r"tags, such as titles; at most 2,000"),
        (_tags, 60_000, r"more time or memory.*-map_chapters -1"),
    ],
    ids=["chapters", "tags", "endless tags"],
)
def test_too_many_descriptions(
    runner: FfmpegRunner,
    limits: MediaLimits,
    clips: Path,
    make: Make,
    describe: Callable[[int], bytes],
    count: int,
    sentence: str,
) -> None:
    plain = make("a.mkv", "-i", clips / BUNNY, "-c", "copy", "-live", "1")
    content = plain.read_bytes()
    at = content.index(bytes.fromhex("1f43b675"))  # the first cluster
    plain.write_bytes(content[:at] + describe(count) + content[at:])
    with pytest.raises(LimitExceeded, match=sentence):
        probe_video(runner, plain, limits=replace(limits, opening_cpu_seconds=1))


@pytest.mark.parametrize(
    ("text", "most_bytes", "sentence"),
    [
        ("<b>" * 90_000, 10**9, "a subtitle of more than 262,144 bytes"),
        ("x" * 200_000, 150_000, "has subtitles of"),
    ],
)
def test_subtitles_that_are_too_long(
    runner: FfmpegRunner,
    limits: MediaLimits,
    clips: Path,
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    most_bytes: int,
    sentence: str,
) -> None:
    """ffmpeg's time to convert one grows with the square of its length: 8 MB take hours."""
    (tmp_path / "long.srt").write_text(f"1\n00:00:00,000 --> 00:00:01,000\n{text}\n\n")
    video = make("a.mkv", "-i", clips / BUNNY, "-i", tmp_path / "long.srt", "-c", "copy")
    monkeypatch.setattr(limits_module, "MAX_SUBTITLES_BYTES", most_bytes)
    with pytest.raises(LimitExceeded, match=sentence):
        probe_video(runner, video, limits=limits)


def test_too_many_frames(runner: FfmpegRunner, limits: MediaLimits, make_moving: Make) -> None:
    fast = make_moving("fast.mkv", "-c:v", "mpeg4", source="testsrc2=size=16x16:rate=1000:duration=0.5")
    tight = replace(limits, max_duration_seconds=1, max_output_frames=200)
    with pytest.raises(LimitExceeded, match="200 frames"):
        probe_video(runner, fast, limits=tight)
    assert probe_video(runner, fast, limits=replace(tight, max_output_frames=500)).video.frames == 500


def test_too_long(runner: FfmpegRunner, limits: MediaLimits, clips: Path) -> None:
    with pytest.raises(LimitExceeded, match=r"at most 1 "):
        probe_video(runner, clips / BUNNY, limits=replace(limits, max_duration_seconds=1))
    probe_video(runner, clips / BUNNY, limits=replace(limits, max_duration_seconds=2))


def test_a_file_that_takes_too_long_to_examine(
    make_runner: Callable[..., FfmpegRunner], limits: MediaLimits, clips: Path
) -> None:
    with pytest.raises(LimitExceeded, match="more time or memory"):
        probe_video(make_runner(wall_seconds=0.001), clips / BUNNY, limits=limits)


def test_a_file_that_takes_too_much_memory_to_examine(
    make_runner: Callable[..., FfmpegRunner], limits: MediaLimits, clips: Path
) -> None:
    with pytest.raises(LimitExceeded, match="more time or memory"):
        probe_video(make_runner(memory_bytes=40 * 1024**2), clips / BUNNY, limits=limits)


def test_a_missing_program_is_not_the_uploads_fault(
    runner: FfmpegRunner, limits: MediaLimits, clips: Path
) -> None:
    nowhere = Programs(ffmpeg=Path("/nowhere/ffmpeg"), ffprobe=Path("/nowhere/ffprobe"))
    with pytest.raises(FfmpegMissing):
        probe_video(FfmpegRunner(programs=nowhere, limits=runner.limits), clips / BUNNY, limits=limits)


@pytest.mark.parametrize(
    ("moved", "sentence"),
    [
        ("if(lt(N\\,5)\\,0\\,20000/TB)", "The timestamps of this file's sound reach over 20,0"),
        ("70*N/TB", "more than 100 gaps"),
    ],
)
def test_sound_that_reaches_too_far_is_refused(
    runner: FfmpegRunner, limits: MediaLimits, make: Callable[..., Path], moved: str, sentence: str
) -> None:
    sound = make("sound.mkv", "-f", "lavfi", "-i", "sine=r=8000:d=20", "-c:a", "pcm_s16le")
    picture = ("-f", "lavfi", "-i", "testsrc2=s=32x32:d=1")
    path = make("a.mkv", *picture, "-i", sound, "-c:a", "copy", "-bsf:a", f"setts=ts=TS+{moved}")
    with pytest.raises(LimitExceeded, match=sentence):
        probe_video(runner, path, limits=limits)
