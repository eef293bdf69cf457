"""Whether a video's pictures are drawn, or photographed or rendered in detail, from a few of its frames.

Drawn pictures consist of areas of one colour between abrupt edges. In photographs, and in pictures that are rendered in
detail, colours change softly nearly everywhere.
"""

from dataclasses import dataclass
from fractions import Fraction
from operator import sub
from pathlib import Path
from statistics import median

import ffmpeg

from models.catalog import PictureKind

from .ffmpeg import FfmpegRunner
from .info import VideoProperties

FRAMES = 4
LONGEST_SIDE = 160
# Differences between neighbouring pixels, of 255 in the channel that differs most. Up to the first an area is flat;
# up to the second its colour changes softly.
FLAT, SOFT = 2, 16
# Darker pixels, such as the bars of a film, tell nothing; frames with fewer lit ones are left out.
DARK = 24
LEAST_LIT = 0.05
# Drawn: so much is flat, and of the rest so little is soft. Natural: so little is flat, or of the rest so much is soft.
LEAST_FLAT_OF_DRAWN, MOST_SOFT_OF_DRAWN = 0.48, 0.53
MOST_FLAT_OF_NATURAL, LEAST_SOFT_OF_NATURAL, LEAST_DETAIL_OF_NATURAL = 0.38, 0.65, 0.25
# Colours of which the channels differ by less are grey: without colour the rule is wrong too often.
LEAST_COLOUR = 4


@dataclass(frozen=True, kw_only=True)
class PictureStatistics:
    """Medians over `frames`: `flat` is the share of lit pixels whose colour is that of their neighbours, `soft` the
    share of the others whose colour changes softly, `colour` by how much channels differ, of 255."""

    frames: int = 0
    flat: float = 0.0
    soft: float = 0.0
    colour: float = 0.0

    @property
    def kind(self) -> PictureKind | None:
        """None where the pictures are neither clearly."""
        if not self.frames or self.colour < LEAST_COLOUR:
            return None
        if self.flat >= LEAST_FLAT_OF_DRAWN and self.soft <= MOST_SOFT_OF_DRAWN:
            return PictureKind.DRAWN
        has_detail = 1 - self.flat >= LEAST_DETAIL_OF_NATURAL
        if self.flat <= MOST_FLAT_OF_NATURAL or (has_detail and self.soft >= LEAST_SOFT_OF_NATURAL):
            return PictureKind.NATURAL
        return None


def measure_pictures(
    runner: FfmpegRunner, path: Path, *, video: VideoProperties, seconds: Fraction
) -> PictureStatistics:
    """The statistics of key frames spread over the first `seconds` of the file's video. Raises FfmpegError.

    Only the key frame before each moment is decoded.
    """
    scale = min(Fraction(1), Fraction(LONGEST_SIDE, max(video.width, video.height)))
    width, height = (max(8, round(side * scale)) for side in (video.width, video.height))
    pictures = [
        runner.input(path, ss=f"{float(moment):.3f}", skip_frame="nokey", noaccurate_seek=None)["V:0"]
        .filter("trim", end_frame=1)
        .filter("scale", width, height, flags="area")
        .filter("setsar", 1)
        .filter("format", "gbrp")
        for moment in (seconds * (2 * number + 1) / (2 * FRAMES) for number in range(FRAMES))
    ]
    shown = ffmpeg.concat(*pictures, v=1, a=0).filter("setpts", "N")
    # Of a file with a hole some frames can be decoded, which is enough.
    options = {"f": "rawvideo", "pix_fmt": "gbrp", "fps_mode": "passthrough", "max_error_rate": 1}
    output = ffmpeg.output(shown, "pipe:1", **options)
    size = 3 * width * height
    done = runner.run(output, purpose="looking at a few frames", stdout_limit_bytes=FRAMES * size + 1)
    found = [
        statistics
        for start in range(0, len(done.stdout) - size + 1, size)
        if (statistics := _of_frame(done.stdout[start : start + size], width)) is not None
    ]
    if not found:
        return PictureStatistics()
    flat, soft, colour = (median(values) for values in zip(*found, strict=True))
    return PictureStatistics(frames=len(found), flat=flat, soft=soft, colour=colour)


def _of_frame(picture: bytes, width: int) -> tuple[float, float, float] | None:
    """The flat share, the soft share of the rest, and the mean colour of planar GBR; None for a dark picture."""
    area = len(picture) // 3
    planes = [picture[start : start + area] for start in (0, area, 2 * area)]
    brightest = bytes(map(max, *planes))
    # Of each pixel to its right and lower neighbours. The last column's right neighbours are of the next row.
    steps = bytes(map(max, *(map(abs, map(sub, plane[by:], plane)) for plane in planes for by in (1, width))))
    lit = [
        step
        for row in range(0, len(steps) - width + 1, width)
        for step, light in zip(steps[row : row + width - 1], brightest[row:], strict=False)
        if light > DARK
    ]
    if len(lit) < LEAST_LIT * area:
        return None
    flat = sum(map(FLAT.__ge__, lit))
    soft = sum(map(SOFT.__ge__, lit)) - flat
    colours = map(sub, brightest, map(min, *planes))
    colour = sum(spread for spread, light in zip(colours, brightest, strict=True) if light > DARK)
    return flat / len(lit), soft / max(len(lit) - flat, 1), colour / sum(map(DARK.__lt__, brightest))
