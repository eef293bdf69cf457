"""AVI states in which order pictures are decoded, and no times: frames are evenly spaced from the first chunk on."""

import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits
from app.platform.settings import Settings
from tests.e2e.film import SOUND_RATE, Film
from tests.media.drawing import read_number
from tests.media.encoding import CLICK_SECONDS, COUNT, RATE, X264, Sound, encode, run
from tests.media.irregular import MPEG4, with_packed_pictures
from worker.video.frame_grab import index_video, read_frame

PCM = Sound(codec=("-c:a", "pcm_s16le"))


def _copied(path: Path) -> Path:
    """H.264 with B-frames, from a file that states when they are shown."""
    whole = encode(path.with_suffix(".mkv"), encoder=X264, sounds=[PCM])
    run("-i", whole, "-c", "copy", "-bsf:v", "h264_mp4toannexb", path)
    return path


KINDS: dict[str, Callable[[Path], Path]] = {
    "H.264": _copied,
    "MPEG-4": lambda path: encode(path, encoder=(*MPEG4, "-bf", "2"), sounds=[PCM]),
    "MPEG-4, packed": lambda path: with_packed_pictures(path, sounds=[PCM]),
    "MPEG-4 without B-frames": lambda path: encode(path, encoder=(*MPEG4, "-bf", "0"), sounds=[PCM]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_evenly_spaced_from_the_start(
    kind: str, tmp_path: Path, planned: Callable[..., Any], runner: FfmpegRunner
) -> None:
    source = KINDS[kind](tmp_path / "a.avi")
    _, render, segments = planned(source)
    ticks = [segment.start_tick + tick for segment in segments for tick in segment.output_ticks()]
    assert [Fraction(tick + render.offset_ticks, render.timescale) for tick in ticks] == [
        number / RATE for number in range(COUNT)
    ]
    assert (render.warnings, render.seekable, render.duration_seconds) == ((), True, COUNT / RATE)

    limits = MediaLimits.from_settings(Settings())
    video = index_video(runner, source, scale=4, limits=limits, cancelled=lambda: False)
    for number in (0, 1, COUNT - 1):
        frame = read_frame(runner, video, number / RATE, cancelled=lambda: False, stall_seconds=60)
        assert zlib.adler32(frame.data, 0) == segments[0].checksums[number], number


def test_sound_stays_with_its_frame(tmp_path: Path, rendered: Callable[..., Any]) -> None:
    film = Film(rendered(KINDS["H.264"](tmp_path / "a.avi"), segment_seconds=Fraction(2, 5)).output)
    assert [read_number(picture) for picture in film.rgb()] == [*range(COUNT)]
    sound = np.abs(film.sound(0, start=film.start, seconds=COUNT / RATE))
    heard = np.flatnonzero(sound > sound.max() / 2).mean() / SOUND_RATE
    assert abs(heard - float(CLICK_SECONDS) - 0.005) < 0.003
