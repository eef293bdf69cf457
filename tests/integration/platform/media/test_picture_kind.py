"""Whether pictures are drawn or natural, told from real clips and from one that is drawn here."""

import subprocess
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits
from app.platform.media.picture_kind import PictureStatistics, measure_pictures
from app.platform.media.probe import probe_video

WIDTH, HEIGHT, COUNT = 320, 180, 40
MEDIA = Path(__file__).parents[3] / "media"

Look = Callable[[Path], PictureStatistics]
Frames = Iterator[NDArray[np.uint8]]


@pytest.fixture
def look(runner: FfmpegRunner, limits: MediaLimits) -> Look:
    def measure(path: Path) -> PictureStatistics:
        video = probe_video(runner, path, limits=limits).video
        return measure_pictures(runner, path, video=video, seconds=video.duration_seconds)

    return measure


def encoded(path: Path, frames: Frames) -> Path:
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", "20", "-i", "-")
    coded = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "26", "-g", "10", "-pix_fmt", "yuv420p")
    command = ["ffmpeg", "-loglevel", "error", *raw, *coded, str(path)]
    subprocess.run(command, input=b"".join(frame.tobytes() for frame in frames), check=True)
    return path


def cartoon(*, in_colour: bool = True) -> Frames:
    """A sun and a house with outlines, before hills and a sky of two colours, while the view moves."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    for number in range(COUNT):
        across = columns + 2 * number
        picture = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        picture[:] = (120, 190, 250)
        picture[rows > 60] = (150, 210, 255)
        sun = np.hypot(rows - 40, across - 200)
        hill = rows - 120 - 20 * np.sin(across / 40)
        picture[hill > 0], picture[np.abs(hill) < 1.5] = (80, 170, 60), (20, 40, 20)
        picture[sun < 26], picture[np.abs(sun - 26) < 1.5] = (255, 220, 40), (60, 40, 0)
        house = (rows > 90) & (rows < 165) & (across > 240) & (across < 330)
        picture[house] = (200, 60, 50)
        picture[house & ((across % 30 < 3) | (rows % 25 < 3))] = (40, 10, 10)
        yield picture if in_colour else np.repeat(picture.mean(2, keepdims=True).astype(np.uint8), 3, 2)


@pytest.mark.parametrize("name", ["bunny-240x136-25fps", "bunny-480x270-25fps", "webb-320x180-25fps"])
def test_film_and_detailed_renderings_are_natural(look: Look, name: str) -> None:
    assert look(MEDIA / f"{name}.mp4").kind == "natural"


def test_a_dark_photographed_scene_is_at_least_not_taken_for_a_drawing(look: Look) -> None:
    assert look(MEDIA / "webb-480x270-2997fps-hevc.mp4").kind != "drawn"


def test_a_cartoon_is_drawn(look: Look, tmp_path: Path) -> None:
    statistics = look(encoded(tmp_path / "cartoon.mp4", cartoon()))
    assert (statistics.kind, statistics.frames) == ("drawn", 4)


def test_a_cartoon_without_colour_is_of_no_kind(look: Look, tmp_path: Path) -> None:
    assert look(encoded(tmp_path / "grey.mp4", cartoon(in_colour=False))).kind is None


def test_black_frames_tell_nothing(look: Look, tmp_path: Path) -> None:
    black = (np.zeros((HEIGHT, WIDTH, 3), np.uint8) for _ in range(COUNT))
    assert look(encoded(tmp_path / "black.mp4", black)) == PictureStatistics()


def test_the_shares_are_those_of_the_definition(look: Look, tmp_path: Path) -> None:
    """Of a picture that the encoder keeps as it is: broad stripes, whose every eighth column ends one."""
    stripes = np.zeros((64, 128, 3), np.uint8)
    stripes[:, :, 1] = np.where(np.arange(128) // 8 % 2, 200, 60)[None]
    path = tmp_path / "stripes.mkv"
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "128x64", "-r", "10", "-i", "-")
    command = ["ffmpeg", "-loglevel", "error", *raw, "-c:v", "ffv1", "-pix_fmt", "gbrp", str(path)]
    subprocess.run(command, input=10 * stripes.tobytes(), check=True)
    statistics = look(path)
    # Of 127 columns 15 have another on their right; no change is soft, and green alone differs from the rest.
    assert statistics.flat == pytest.approx(1 - Fraction(15, 127))
    assert (statistics.soft, statistics.colour) == (0, 130)
