"""Interpolates frames between two source frames, for a `target_fps` with other frame times than the source's.

`blend` is a weighted mean of the two; `motion` warps both along the motion between them and then blends them: see
`worker.video.motion`. It uses OpenCV's DIS optical flow, which comes in one dependency, needs no weights, runs on any
worker's processor beside the GPU, and measured best (bench/RESULTS.md).

No frame mixes two scenes: across a cut both methods show the nearer frame. A frame depends on its two neighbours alone,
so that segments made apart equal a single pass.
"""

from typing import Any, Protocol, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from app.platform.media.rates import Retime
from worker.inference.frames import CHROMA_OFFSETS, FrameFormat
from worker.video.motion import MIN_SIDE, Motion, optical_flow, warp
from worker.video.timeline import FULL_PHASE

Frame: TypeAlias = NDArray[np.uint8]
Plane: TypeAlias = NDArray[Any]

# Cuts are detected in pictures whose longer side has this many pixels: fast, and insensitive to noise.
CUT_SIDE = 96
# Detail is the difference from the blurred picture: flashes, fades and shadows leave it unchanged.
CUT_BLUR = 4.0
# Least correlation of the detail of two frames of one scene, after motion compensation. In real clips it was 0.72 or
# more for neighbours in one scene, and 0.35 or less for unrelated frames.
CUT_CORRELATION = 0.5
# Frames with a smaller mean difference (8-bit codes) are never a cut; noise is below it.
CUT_DIFFERENCE = 6.0


class Retimer:
    """Interpolates between frames of one format. `method` is BLEND or MOTION."""

    def __init__(self, method: Retime, source: FrameFormat) -> None:
        self._method = method
        self._source = source

    def pair(self, before: Frame, after: Frame) -> "FramePair":
        """Analyse two neighbouring frames, once for all frames between them. Neither array may change meanwhile."""
        planes_before, planes_after = self._source.split(before), self._source.split(after)
        lumas = self._luma(planes_before[0]), self._luma(planes_after[0])
        if is_cut(*lumas):
            return _SceneCut(before, after)
        if self._method is Retime.BLEND:
            return _Blend(self._source, planes_before, planes_after)
        return _MotionCompensated(self._source, planes_before, planes_after, Motion(*lumas))

    def _luma(self, plane: Plane) -> Plane:
        """The first plane in 8 bits; of RGB that is green, which is close enough to luma."""
        return (
            plane if self._source.bit_depth == 8 else (plane >> (self._source.bit_depth - 8)).astype(np.uint8)
        )


class FramePair(Protocol):
    """Two neighbouring source frames."""

    def frame_at(self, phase: int, out: Frame) -> None:
        """Write into `out` the frame at `phase` between the first (0) and the second (FULL_PHASE)."""


class _SceneCut:
    def __init__(self, before: Frame, after: Frame) -> None:
        self._before, self._after = before, after

    def frame_at(self, phase: int, out: Frame) -> None:
        out[:] = self._after if 2 * phase > FULL_PHASE else self._before


class _Blend:
    def __init__(self, source: FrameFormat, before: list[Plane], after: list[Plane]) -> None:
        self._source = source
        self._before, self._after = before, after

    def frame_at(self, phase: int, out: Frame) -> None:
        for first, last, plane in zip(self._before, self._after, self._source.split(out), strict=True):
            # 32 bits just hold the largest 16-bit code times FULL_PHASE, and half of that for rounding.
            mixed = first.astype(np.uint32) * np.uint32(FULL_PHASE - phase)
            mixed += last.astype(np.uint32) * np.uint32(phase)
            mixed += np.uint32(FULL_PHASE // 2)
            plane[:] = mixed // np.uint32(FULL_PHASE)


class _MotionCompensated:
    def __init__(self, source: FrameFormat, before: list[Plane], after: list[Plane], motion: Motion) -> None:
        self._source = source
        self._before, self._after = before, after
        self._motion = motion

    def frame_at(self, phase: int, out: Frame) -> None:
        field = self._motion.field_at(phase / FULL_PHASE)
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
    """Luma pixels (right, down) that one sample of the plane covers, and its siting in them."""
    if plane == 0 or source.layout in ("gray", "yuv444", "gbr"):
        return (1, 1), (0, 0)
    right, down = CHROMA_OFFSETS[source.chroma_location]
    return ((2, 2), (right, down)) if source.layout == "yuv420" else ((2, 1), (right, 0))


def is_cut(before: Plane, after: Plane) -> bool:
    """Whether two frames (8-bit luma) show different scenes.

    Reduced copies are motion-compensated; frames of one scene then have the same detail, however much their brightness
    differs. Frames without detail are compared by brightness alone.
    """
    before, after = _small(before), _small(after)
    if cv2.norm(before, after, cv2.NORM_L1) < CUT_DIFFERENCE * before.size:
        return False
    correlation = _detail_correlation(before, warp(after, optical_flow(before, after), 1))
    return (
        correlation < CUT_CORRELATION
        and _detail_correlation(after, warp(before, optical_flow(after, before), 1)) < CUT_CORRELATION
    )


def _small(luma: Plane) -> Plane:
    rows, columns = luma.shape
    factor = min(1.0, CUT_SIDE / max(rows, columns))
    size = (max(MIN_SIDE, round(columns * factor)), max(MIN_SIDE, round(rows * factor)))
    return cv2.resize(luma, size, interpolation=cv2.INTER_AREA)


def _detail_correlation(one: Plane, other: Plane) -> float:
    """Correlation of the detail of two pictures, -1 to 1; 0 if one of them has none."""
    details = [plane.astype(np.float32) for plane in (one, other)]
    details = [plane - cv2.GaussianBlur(plane, (0, 0), CUT_BLUR) for plane in details]
    products = [
        float(np.sum(a * b)) for a, b in ((details[0], details[1]), (details[0],) * 2, (details[1],) * 2)
    ]
    return products[0] / float(np.sqrt(products[1] * products[2])) if min(products[1:]) > 0 else 0.0
