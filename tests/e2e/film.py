"""One video file as a viewer gets it: every frame with its time, its colours by its tags, and the sound.

Read with ffprobe, ffmpeg and numpy, and nothing of ours: colours are converted here, from the formulas of ITU-R BT.601,
BT.709 and BT.2020 and ITU-T H.273.
"""

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SOUND_RATE = 48_000
# Kr and Kb by matrix.
LUMA_WEIGHTS = {
    "bt709": (0.2126, 0.0722),
    "smpte170m": (0.299, 0.114),
    "bt470bg": (0.299, 0.114),
    "bt2020nc": (0.2627, 0.0593),
}
HD_WIDTH, SD_HEIGHT = 1280, 576
_PIX_FMT = re.compile(r"^(?:yuva?j?(?P<layout>420|422|444)p|(?P<rgb>gbra?p))(?P<depth>\d+)?(?:le)?$")
_STEPS = {"420": (2, 2), "422": (1, 2), "444": (1, 1)}


def _run(*command: str | Path) -> bytes:
    return subprocess.run(
        [str(word) for word in command], capture_output=True, check=True, stdin=subprocess.DEVNULL
    ).stdout


@dataclass(frozen=True)
class Film:
    """`clockwise` turns the coded pictures upright; `matrix` and `full_range` stand in for tags that are missing."""

    path: Path
    matrix: str | None = None
    full_range: bool = False
    clockwise: int = 0

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What ffprobe says of the file, its streams and chapters, and the frames that its decoder delivers."""
        sections = ("-show_format", "-show_streams", "-show_chapters", "-show_frames")
        answer: dict[str, Any] = json.loads(
            _run("ffprobe", "-v", "error", "-of", "json", *sections, self.path)
        )
        return answer

    def streams(self, kind: str) -> list[dict[str, Any]]:
        return [stream for stream in self.facts["streams"] if stream["codec_type"] == kind]

    @property
    def video(self) -> dict[str, Any]:
        return self.streams("video")[0]

    @cached_property
    def frames(self) -> list[dict[str, Any]]:
        """The sections of the video's frames, in the order in which they are shown."""
        return [frame for frame in self.facts["frames"] if frame.get("stream_index") == self.video["index"]]

    @cached_property
    def times(self) -> list[Fraction]:
        """When each frame is shown, in seconds, exactly, from the first one's time on."""
        ticks = [_tick(frame) for frame in self.frames]
        return [(tick - ticks[0]) * Fraction(self.video["time_base"]) for tick in ticks]

    @property
    def start(self) -> Fraction:
        """The first frame's timestamp in seconds, exactly."""
        return _tick(self.frames[0]) * Fraction(self.video["time_base"])

    @cached_property
    def planes(self) -> list[list[NDArray[np.float32]]]:
        """Frames as coded, not turned, sample by sample."""
        layout, depth, _ = self.layout
        width, height = self.video["width"], self.video["height"]
        down, across = _STEPS[layout]
        raw = _run(
            *("ffmpeg", "-v", "error", "-noautorotate", "-i", self.path, "-map", "0:v:0"),
            *("-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", self._raw_format, "-"),
        )
        codes = np.frombuffer(raw, np.uint8 if depth == 8 else "<u2").astype(np.float32)
        small = (-(-height // down), -(-width // across))
        shapes = [(height, width), small, small]
        counts = [rows * columns for rows, columns in shapes]
        ends = np.cumsum(counts)
        frames = codes.reshape(-1, ends[-1])
        return [
            [
                frame[end - count : end].reshape(shape)
                for shape, count, end in zip(shapes, counts, ends, strict=True)
            ]
            for frame in frames
        ]

    @property
    def layout(self) -> tuple[str, int, bool]:
        """420, 422 or 444; bits a sample; whether the planes are G, B and R."""
        match = _PIX_FMT.match(self.video["pix_fmt"])
        assert match, self.video["pix_fmt"]
        return match["layout"] or "444", int(match["depth"] or 8), match["rgb"] is not None

    @property
    def _raw_format(self) -> str:
        # Transparency is a plane more; nothing else of the samples is touched.
        pix_fmt: str = self.video["pix_fmt"]
        return pix_fmt.replace("yuva", "yuv").replace("gbrap", "gbrp")

    def tag(self, name: str) -> str | None:
        """One of the colour tags, None where the file leaves it open."""
        value = self.video.get(name)
        return None if value in (None, "unknown", "unspecified", "reserved") else value

    def rgb(self) -> Iterator[NDArray[np.float32]]:
        """Upright frames in R'G'B' from 0 to 1, by the file's tags; where it has none, by those given, else as players
        take them: BT.709 from HD sizes on, BT.601 below.
        """
        layout, depth, is_rgb = self.layout
        width, height = self.video["width"], self.video["height"]
        matrix = self.tag("color_space")
        if matrix is None or (matrix == "gbr" and not is_rgb):
            is_hd = width >= HD_WIDTH or height > SD_HEIGHT
            matrix = self.matrix or ("bt709" if is_hd else "smpte170m")
        full_range = self.full_range or is_rgb or self.tag("color_range") == "pc"
        for planes in self.planes:
            if is_rgb:
                green, blue, red = (plane / (2**depth - 1) for plane in planes)
                rgb = np.stack([red, green, blue], axis=-1)
            else:
                rgb = _from_yuv(planes, _STEPS[layout], depth, matrix, full_range=full_range)
            yield np.rot90(rgb, k=-self.clockwise // 90).clip(0, 1)

    def sound(self, index: int, *, start: Fraction, seconds: Fraction) -> NDArray[np.float64]:
        """That much of a track, mixed to one channel, from a moment of the file's own time on; silence where there is
        none.
        """
        # Ten seconds later than it is, so that what lies before 0 is heard too.
        shift = 10 - int(start)
        begin = round((start + shift) * SOUND_RATE)
        count = round(seconds * SOUND_RATE)
        heard = self._heard(index, shift)[begin : begin + count].astype(np.float64)
        return np.pad(heard, (0, count - len(heard)))

    def _heard(self, index: int, shift: int) -> NDArray[np.float32]:
        """A track that many seconds later than it is, from 0 on."""
        if (index, shift) in self._tracks:
            return self._tracks[index, shift]
        filters = f"asetpts=PTS+{shift}/TB,aresample={SOUND_RATE}:async=1:first_pts=0"
        raw = _run(
            *("ffmpeg", "-v", "error", "-copyts", "-i", self.path, "-map", f"0:a:{index}"),
            *("-af", filters, "-ac", "1", "-f", "f32le", "-"),
        )
        self._tracks[index, shift] = np.frombuffer(raw, np.float32)
        return self._tracks[index, shift]

    @cached_property
    def _tracks(self) -> dict[tuple[int, int], NDArray[np.float32]]:
        """Those that were decoded."""
        return {}


def _from_yuv(
    planes: Sequence[NDArray[np.float32]],
    steps: tuple[int, int],
    depth: int,
    matrix: str,
    *,
    full_range: bool,
) -> NDArray[np.float32]:
    unit = 2 ** (depth - 8)
    top = 2**depth - 1
    luma = planes[0] / top if full_range else (planes[0] - 16 * unit) / (219 * unit)
    scale = top if full_range else 224 * unit
    blue_difference, red_difference = (
        _widen((plane - 128 * unit) / scale, luma.shape, steps) for plane in planes[1:]
    )
    kr, kb = LUMA_WEIGHTS[matrix]
    red = luma + 2 * (1 - kr) * red_difference
    blue = luma + 2 * (1 - kb) * blue_difference
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    return np.stack([red, green, blue], axis=-1)


def _widen(plane: NDArray[np.float32], shape: tuple[int, ...], steps: tuple[int, int]) -> NDArray[np.float32]:
    """Chroma at every luma sample, linearly: its samples sit on every other column, and between two rows."""
    down, across = steps
    if across == 2:
        plane = _interpolate(plane, np.arange(shape[1]) / 2, axis=1)
    if down == 2:
        plane = _interpolate(plane, np.arange(shape[0]) / 2 - 0.25, axis=0)
    return plane


def _tick(frame: dict[str, Any]) -> int:
    return int(frame["pts"] if "pts" in frame else frame["best_effort_timestamp"])


def _interpolate(
    plane: NDArray[np.float32], places: NDArray[np.float64], *, axis: int
) -> NDArray[np.float32]:
    last = plane.shape[axis] - 1
    places = places.clip(0, last)
    low = np.floor(places).astype(int)
    share = (places - low).astype(np.float32)
    share = share[:, None] if axis == 0 else share
    between: NDArray[np.float32] = (
        plane.take(low, axis) * (1 - share) + plane.take(np.minimum(low + 1, last), axis) * share
    )
    return between
