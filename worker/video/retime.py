"""Frames between two frames of the source, for a `target_fps` with other moments than the source's.

`blend` mixes the two, each by how near it is. `motion` moves both along the motion between them and then mixes them:
see `worker.video.motion`. OpenCV's DIS optical flow was taken for it because it comes in one dependency, needs no
network's weights, runs on any worker's processor beside the GPU, and was the best that was measured (bench/RESULTS.md).

No frame is made of two scenes: across a cut either way shows the nearer of the two. A frame depends on its two
neighbours alone, so that segments made apart are the same as a single pass.
"""

from typing import Any, Protocol, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from app.platform.media.rates import Retime
from worker.inference.frames import CHROMA_OFFSETS, FrameFormat
from worker.video.motion import LEAST_SIDE, Motion, follow, optical_flow
from worker.video.timeline import WHOLE_WAY

Frame: TypeAlias = NDArray[np.uint8]
Plane: TypeAlias = NDArray[Any]

# Scenes are told apart in pictures with a longer side of this many pixels: fast, and deaf to noise.
CUT_SIDE = 96
# Detail is what differs from its surroundings: a flash, a fade or a shadow passes over it without changing it.
CUT_BLUR = 4.0
# How much alike the detail of two frames of one scene is at least, once the motion is undone; 1: the same. In real
# clips it was 0.72 or more of neighbours in one scene, and 0.35 or less of unrelated frames.
CUT_LIKENESS = 0.5
# Frames that differ by less than this on average (8-bit codes) are no two scenes, or nobody sees it; noise is below it.
CUT_DIFFERENCE = 6.0


class Retimer:
    """Makes frames between two others of one format. `way` is BLEND or MOTION."""

    def __init__(self, way: Retime, source: FrameFormat) -> None:
        self._way = way
        self._source = source

    def pair(self, before: Frame, after: Frame) -> "FramePair":
        """Look at two neighbouring frames, once for all that lie between them. Both must stay as they are meanwhile."""
        planes_before, planes_after = self._source.split(before), self._source.split(after)
        lumas = self._luma(planes_before[0]), self._luma(planes_after[0])
        if is_cut(*lumas):
            return _Cut(before, after)
        if self._way is Retime.BLEND:
            return _Blend(self._source, planes_before, planes_after)
        return _Moving(self._source, planes_before, planes_after, Motion(*lumas))

    def _luma(self, plane: Plane) -> Plane:
        """8 bits of the first plane; green comes near enough to luma."""
        return (
            plane if self._source.bit_depth == 8 else (plane >> (self._source.bit_depth - 8)).astype(np.uint8)
        )


class FramePair(Protocol):
    """Two neighbouring frames."""

    def frame_at(self, place: int, out: Frame) -> None:
        """Write into `out` the frame that lies `place` parts of WHOLE_WAY along from the first to the second."""


class _Cut:
    def __init__(self, before: Frame, after: Frame) -> None:
        self._before, self._after = before, after

    def frame_at(self, place: int, out: Frame) -> None:
        out[:] = self._after if 2 * place > WHOLE_WAY else self._before


class _Blend:
    def __init__(self, source: FrameFormat, before: list[Plane], after: list[Plane]) -> None:
        self._source = source
        self._before, self._after = before, after

    def frame_at(self, place: int, out: Frame) -> None:
        for first, last, plane in zip(self._before, self._after, self._source.split(out), strict=True):
            # 32 bits just hold the largest 16-bit code times WHOLE_WAY, and half of that for rounding.
            mixed = first.astype(np.uint32) * np.uint32(WHOLE_WAY - place)
            mixed += last.astype(np.uint32) * np.uint32(place)
            mixed += np.uint32(WHOLE_WAY // 2)
            plane[:] = mixed // np.uint32(WHOLE_WAY)


class _Moving:
    def __init__(self, source: FrameFormat, before: list[Plane], after: list[Plane], motion: Motion) -> None:
        self._source = source
        self._before, self._after = before, after
        self._motion = motion

    def frame_at(self, place: int, out: Frame) -> None:
        field = self._motion.field_at(place / WHOLE_WAY)
        for number, plane in enumerate(self._source.split(out)):
            sampling, offset = plane_sampling(self._source, number)
            field.draw(
                self._before[number],
                self._after[number],
                plane,
                sampling=sampling,
                offset=offset,
                max_code=self._source.max_code,
            )


def plane_sampling(source: FrameFormat, plane: int) -> tuple[tuple[int, int], tuple[float, float]]:
    """How many pixels right and down one sample of the plane stands for, and where among them it sits."""
    if plane == 0 or source.layout in ("gray", "yuv444", "gbr"):
        return (1, 1), (0, 0)
    right, down = CHROMA_OFFSETS[source.chroma_location]
    return ((2, 2), (right, down)) if source.layout == "yuv420" else ((2, 1), (right, 0))


def is_cut(before: Plane, after: Plane) -> bool:
    """Whether two frames (8-bit luma) show different scenes.

    The motion between reduced copies is undone; frames of one scene then have the same detail, however much brighter
    one of them is. Frames without any detail are told apart by their brightness alone.
    """
    before, after = _small(before), _small(after)
    if cv2.norm(before, after, cv2.NORM_L1) < CUT_DIFFERENCE * before.size:
        return False
    likeness = _likeness(before, follow(after, optical_flow(before, after), 1))
    return (
        likeness < CUT_LIKENESS
        and _likeness(after, follow(before, optical_flow(after, before), 1)) < CUT_LIKENESS
    )


def _small(luma: Plane) -> Plane:
    rows, columns = luma.shape
    factor = min(1.0, CUT_SIDE / max(rows, columns))
    size = (max(LEAST_SIDE, round(columns * factor)), max(LEAST_SIDE, round(rows * factor)))
    return cv2.resize(luma, size, interpolation=cv2.INTER_AREA)


def _likeness(one: Plane, other: Plane) -> float:
    """Correlation of the detail of two pictures: from 1, the same, to -1; 0 where there is none."""
    details = [plane.astype(np.float32) for plane in (one, other)]
    details = [plane - cv2.GaussianBlur(plane, (0, 0), CUT_BLUR) for plane in details]
    products = [
        float(np.sum(a * b)) for a, b in ((details[0], details[1]), (details[0],) * 2, (details[1],) * 2)
    ]
    return products[0] / float(np.sqrt(products[1] * products[2])) if min(products[1:]) > 0 else 0.0
