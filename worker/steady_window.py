"""The frames that a render with `stabilise` averages with the one of a moment: for a picture of that moment alone.

They are decoded and aligned whole, and may then be cut to a part of the picture.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import ceil
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.rectangles import Area
from worker.inference.aligned_frames import STABILISED_RADIUS, AlignedFrame, Alignment
from worker.inference.frames import FrameFormat
from worker.pictures import cropped, expanded
from worker.video.alignment import aligned_frames
from worker.video.film import film_of
from worker.video.frame_differences import BLOCKS
from worker.video.frame_grab import Frame, FramesAround, IndexedVideo, read_frames_around
from worker.video.retime import luma_8_bits
from worker.video.timeline import SourceTimeline

# Of a telecined film: one in five frames of the stream repeats another, and what is before the first is unknown.
FILM_RADIUS = STABILISED_RADIUS + 2
# Pixels that a part is widened by at most for what moves into it within the window.
MOST_MOTION = 64


@dataclass(frozen=True, kw_only=True)
class SteadyWindow:
    """Consecutive input frames of the network, of the format `source`. The one at `place` has the alignments to the
    others and is shown, the others are not."""

    frames: Sequence[AlignedFrame]
    place: int
    source: FrameFormat

    @property
    def wanted(self) -> Frame:
        return self.frames[self.place].frame

    def reach(self, area: Area) -> int:
        """How many pixels what is seen in the area moves by within the window, MOST_MOTION at most."""
        farthest = 0.0
        for one in self._fields:
            rows, columns = self._places(area, one)
            part = np.abs(one[:2, rows, columns])
            farthest = max(farthest, part[0].max() * self.source.width, part[1].max() * self.source.height)
        return min(MOST_MOTION, ceil(farthest))

    def area_around(self, area: Area, *, margin: int) -> Area:
        """The area with that margin, as far as the picture goes, between whole pixels of all fields."""
        step = max((self._step(one) for one in self._fields), default=1)
        left, top = ((place - margin) // step * step for place in (area.x, area.y))
        right, bottom = (
            ceil((place + margin) / step) * step for place in (area.x + area.width, area.y + area.height)
        )
        return expanded(
            Area(x=left, y=top, width=right - left, height=bottom - top), margin=0, frame=self.source
        )

    def of_part(self, area: Area) -> Self:
        """The window of a part of the picture, which is one of `area_around`."""
        part_format = replace(self.source, width=area.width, height=area.height)
        scales = np.array(
            [self.source.width / area.width, self.source.height / area.height, 1], np.float32
        ).reshape(3, 1, 1)

        def cut(one: Alignment) -> Alignment:
            if one.field is None:
                return one
            rows, columns = self._places(area, one.field)
            return Alignment(one.offset, one.field[:, rows, columns] * scales)

        parts = [
            AlignedFrame(cropped(frame, self.source, area)[0], repeats, tuple(map(cut, alignments)))
            for frame, repeats, alignments in self.frames
        ]
        return replace(self, frames=parts, source=part_format)

    @property
    def _fields(self) -> list[NDArray[np.float32]]:
        alignments = self.frames[self.place].alignments
        return [one.field for one in alignments if one.field is not None]

    def _step(self, field: NDArray[Any]) -> int:
        """How many pixels of the picture one of the field stands for in a row."""
        columns: int = field.shape[2]
        return ceil(self.source.width / columns)

    def _places(self, area: Area, field: NDArray[Any]) -> tuple[slice, slice]:
        step = self._step(field)
        return (
            slice(area.y // step, ceil((area.y + area.height) / step)),
            slice(area.x // step, ceil((area.x + area.width) / step)),
        )


def read_steady_window(
    runner: FfmpegRunner,
    video: IndexedVideo,
    at_seconds: Fraction,
    *,
    strength: int,
    cancelled: Callable[[], bool],
    stall_seconds: float,
) -> SteadyWindow | None:
    """The window around the frame of `read_frame`, as `stabilise` of that strength has it.

    None if the frames around it are not known. Raises as `read_frame` does.
    """
    rate = None if video.metadata.deinterlacing is None else video.metadata.deinterlacing.film_rate
    around = read_frames_around(
        runner,
        video,
        at_seconds,
        radius=STABILISED_RADIUS if rate is None else FILM_RADIUS,
        cancelled=cancelled,
        stall_seconds=stall_seconds,
    )
    if around is None:
        return None
    source = video.colour.source
    frames, place = (around.frames, around.place) if rate is None else _film(around, video, rate)
    aligned = aligned_frames(
        (AlignedFrame(frame, 1) for frame in frames),
        source=source,
        strength=strength,
        shown=range(place, place + 1),
    )
    return SteadyWindow(frames=list(aligned), place=place, source=source)


def _film(around: FramesAround, video: IndexedVideo, rate: Fraction) -> tuple[Sequence[Frame], int]:
    """The film's frames among those of the stream around the one of a moment, and the place of that moment's."""
    source, stream = video.colour.source, video.info.video
    lumas = [luma_8_bits(source.split(frame)[0], source.bit_depth) for frame in around.frames]
    differences = [0.0, *(_difference(*pair) for pair in pairwise(lumas))]
    nominal = max(1, round(1 / (stream.frame_rate * stream.time_base)))
    timeline = SourceTimeline(
        time_base=stream.time_base, pts=around.times, end_pts=around.times[-1] + nominal
    )
    numbers = film_of(timeline, differences, rate=rate).numbers
    at = max(0, bisect_right(numbers, around.place) - 1)
    first = max(0, at - STABILISED_RADIUS)
    shown = numbers[first : at + STABILISED_RADIUS + 1]
    return [around.frames[number] for number in shown], at - first


def _difference(before: NDArray[Any], after: NDArray[Any]) -> float:
    """As `frame_differences` has it."""
    blocks = cv2.resize(cv2.absdiff(before, after), (BLOCKS, BLOCKS), interpolation=cv2.INTER_AREA)
    return float(blocks.max())
