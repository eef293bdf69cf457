"""Sound goes along, and stays where it was beside the pictures, to the sample."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

RATE = 48_000
# A click of 2 ms at 0.8 s, where the picture shows frame 20.
CLICK = f"aevalsrc='if(between(t,0.8,0.802),sin(2*PI*1500*t),0)':s={RATE}:d=1.6"
CLICK_FRAME = 20
AS_IS = ("-fps_mode", "passthrough")
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "10")
B_FRAMES = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-g", "10")

# name of the file; options before the picture's input; the picture's output options; and of each sound: how much later
# it starts, its encoder, the output's codec, and how far the click may move, in samples. A copy moves it by the
# rounding of timestamps alone (to whole milliseconds, in Matroska, of the samples that Opus starts with); conversion by
# next to nothing.
Track = tuple[str, str, str, int]
VP8 = ("-c:v", "libvpx", "-deadline", "realtime")
SOUNDS: dict[str, tuple[str, Sequence[str], Sequence[str], Sequence[Track]]] = {
    "mp4": ("a.mp4", (), X264, [("0", "aac", "aac", 1), ("0", "libopus", "opus", 1)]),
    "mp4-b-frames": ("a.mp4", (), B_FRAMES, [("0", "aac", "aac", 1), ("0.51", "aac", "aac", 1)]),
    "aac-ts": ("a.ts", (), B_FRAMES, [("0", "aac", "aac", 1)]),
    "mp3-avi": ("a.avi", (), ("-c:v", "mpeg4", "-bf", "0", "-q:v", "2"), [("0", "libmp3lame", "mp3", 1)]),
    "webm": ("a.webm", (), VP8, [("0", "libopus", "opus", RATE // 2000), ("0", "libvorbis", "aac", 24)]),
    "mkv": ("a.mkv", (), X264, [("0", "flac", "flac", 1), ("0.51", "pcm_s16le", "aac", 2)]),
    "pcm-mov": ("a.mov", (), X264, [("0", "pcm_s16le", "aac", 2)]),
    "picture-late": ("a.mp4", ("-itsoffset", "0.37"), (*B_FRAMES, *AS_IS), [("0", "aac", "aac", 1)]),
    "picture-late-ts": ("a.ts", ("-itsoffset", "0.37"), B_FRAMES, [("0", "aac", "aac", 1)]),
    "starts-late": ("a.mkv", ("-itsoffset", "7.25"), X264, [("7.25", "flac", "flac", 1)]),
}


@pytest.fixture
def sounding(
    tmp_path: Path, ffmpeg: Callable[..., bytes], numbered: Callable[..., str]
) -> Callable[..., Path]:
    def make(
        name: str, before_picture: Sequence[str], picture: Sequence[str], tracks: Sequence[tuple[str, str]]
    ) -> Path:
        path = tmp_path / name
        inputs = [word for late, _ in tracks for word in ("-itsoffset", late, "-f", "lavfi", "-i", CLICK)]
        sounds = [
            word
            for number, (_, codec) in enumerate(tracks)
            for word in ("-map", f"{number + 1}:a", f"-c:a:{number}", codec)
        ]
        ffmpeg(
            *(*before_picture, "-f", "lavfi", "-i", numbered(frames=40)),
            *(*inputs, "-map", "0:v", *picture, *sounds, path),
        )
        return path

    return make


@pytest.fixture
def sound_after_frame(
    ffmpeg: Callable[..., bytes], decoded: Callable[..., Any]
) -> Callable[..., NDArray[np.float64]]:
    """The sound of a track from 0.6 s before frame 20 is shown to 0.6 s after."""

    def cut(path: Path, track: int = 0) -> NDArray[np.float64]:
        frames = decoded(path)
        shown = frames.seconds[frames.numbers.index(CLICK_FRAME)]
        # Ten seconds later than it is, so that what lies before 0 is heard too.
        filters = f"asetpts=PTS+10/TB,aresample={RATE}:async=1:first_pts=0"
        raw = ffmpeg(
            *("-copyts", "-i", path, "-map", f"0:a:{track}", "-af", filters),
            *("-ac", "1", "-f", "f32le", "pipe:1"),
        )
        start = round((shown + 10 - Fraction(3, 5)) * RATE)
        sound = np.frombuffer(raw, np.float32)[start : start + RATE * 6 // 5].astype(np.float64)
        assert np.abs(sound).max() > 0.1, "the click is not near its frame"
        return sound

    return cut


@pytest.mark.parametrize("kind", SOUNDS)
def test_click_stays_on_its_frame(
    kind: str,
    sounding: Callable[..., Path],
    rendered: Callable[..., Any],
    sound_after_frame: Callable[..., NDArray[np.float64]],
) -> None:
    name, before_picture, picture, tracks = SOUNDS[kind]
    source = sounding(name, before_picture, picture, [(late, encoder) for late, encoder, *_ in tracks])
    result = rendered(source, quality="high")
    assert [stream["codec_name"] for stream in result.all_streams] == [
        "h264",
        *(codec for *_, codec, _ in tracks),
    ]
    for number, (*_, tolerance) in enumerate(tracks):
        before, after = sound_after_frame(source, number), sound_after_frame(result.output, number)
        assert abs(_lag(after, before)) <= tolerance, number
    assert result.finished.properties.duration_seconds == result.info.video.duration_seconds


OPEN_GOPS = (*B_FRAMES, "-x264-params", "open-gop=1:bframes=3:scenecut=0")

# A file, and how it is cut or moved without encoding: what is before 0 is there to decode, and not shown.
CUTS: dict[str, tuple[str, Sequence[str], Sequence[str], Sequence[str], int]] = {
    "into-a-group-of-pictures": ("a.mp4", OPEN_GOPS, ("-ss", "0.5"), (), 13),
    "all-before-zero": (
        "a.ts",
        B_FRAMES,
        ("-itsoffset", "-5"),
        ("-muxdelay", "0", "-muxpreload", "0", "-avoid_negative_ts", "disabled"),
        0,
    ),
}


@pytest.mark.parametrize("kind", CUTS)
def test_click_stays_on_its_frame_in_a_cut_file(
    kind: str,
    sounding: Callable[..., Path],
    rendered: Callable[..., Any],
    decoded: Callable[..., Any],
    ffmpeg: Callable[..., bytes],
    sound_after_frame: Callable[..., NDArray[np.float64]],
    tmp_path: Path,
) -> None:
    name, picture, before, after, first_number = CUTS[kind]
    whole = sounding(f"whole-{name}", (), picture, [("0", "aac")])
    source = tmp_path / name
    ffmpeg(*before, "-i", whole, "-c", "copy", *after, source)
    result = rendered(source, quality="high", segment_seconds=Fraction(2, 5))
    assert decoded(result.output).numbers == list(range(first_number, 40))
    assert abs(_lag(sound_after_frame(result.output), sound_after_frame(source))) <= 1


def _lag(sound: NDArray[np.float64], reference: NDArray[np.float64]) -> int:
    """By how many samples `sound` comes after `reference`: where the two are most alike."""
    size = len(sound) + len(reference)
    likeness = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(reference, size).conj(), size)
    peak = int(likeness.argmax())
    return peak if peak < size // 2 else peak - size
