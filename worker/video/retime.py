"""Interpolates frames between two source frames, for a `target_fps` with other frame times than the source's.

`blend` is a weighted mean of the two; `motion` warps both along the motion between them and then blends them: see
`worker.video.motion`. It uses OpenCV's DIS optical flow, which comes in one dependency, needs no weights, runs on any
worker's processor beside the GPU, and measured best (bench/RESULTS.md).

Colours are mixed as far as they are visible: of a pixel that is transparent in one of the frames, the other's remains.

No frame mixes two scenes: across a cut both methods show the nearer frame. A frame depends on its two neighbours alone,
so that segments made apart equal a single pass.
"""

from typing import Any, Protocol, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from app.platform.media.rates import Retime
from worker.inference.frames import CHROMA_OFFSETS, FrameFormat
from worker.video.motion import MIN_SIDE, Motion, MotionField, optical_flow, warp
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
# Of visibility, below which colours are not computed from it: less than a code of alpha of 8 bits.
LEAST_SHARE = 1e-3
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
        depth = self._source.bit_depth
        lumas = luma_8_bits(planes_before[0], depth), luma_8_bits(planes_after[0], depth)
        if is_cut(*lumas):
            return _SceneCut(before, after)
        mixing: _Mixing
        if self._method is Retime.BLEND:
            mixing = _Blend(self._source, planes_before, planes_after)
        else:
            mixing = _MotionCompensated(self._source, planes_before, planes_after, Motion(*lumas))
        if not self._source.has_alpha:
            return mixing
        return _Visible(self._source, planes_before, planes_after, mixing)


class FramePair(Protocol):
    """Two neighbouring source frames."""

    def frame_at(self, phase: int, out: Frame) -> None:
        """Write into `out` the frame at `phase` between the first (0) and the second (FULL_PHASE)."""


class _Mixing(FramePair, Protocol):
    def plane_at(self, phase: int, number: int, before: Plane, after: Plane) -> Plane:
        """Two planes, in place of those of that number, mixed: float32, not rounded."""


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

    def plane_at(self, phase: int, number: int, before: Plane, after: Plane) -> Plane:
        return before + (after - before) * np.float32(phase / FULL_PHASE)


class _MotionCompensated:
    def __init__(self, source: FrameFormat, before: list[Plane], after: list[Plane], motion: Motion) -> None:
        self._source = source
        self._before, self._after = before, after
        self._motion = motion
        # The last one that was asked for, and its phase.
        self._field: tuple[int, MotionField] | None = None

    def plane_at(self, phase: int, number: int, before: Plane, after: Plane) -> Plane:
        sampling, offset = plane_sampling(self._source, number)
        mixed = np.empty(before.shape, np.float32)
        self._field_at(phase).draw(before, after, mixed, sampling=sampling, offset=offset, max_code=None)
        return mixed

    def _field_at(self, phase: int) -> MotionField:
        if self._field is None or self._field[0] != phase:
            self._field = phase, self._motion.field_at(phase / FULL_PHASE)
        return self._field[1]

    def frame_at(self, phase: int, out: Frame) -> None:
        field = self._field_at(phase)
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


class _Visible:
    """Mixes colours by their visibility: each plane multiplied by alpha, over alpha mixed alike."""

    def __init__(self, source: FrameFormat, before: list[Plane], after: list[Plane], mixing: _Mixing) -> None:
        self._source = source
        self._before, self._after = before, after
        self._mixing = mixing

    def frame_at(self, phase: int, out: Frame) -> None:
        # Alpha is right, and colours where they are invisible in both frames.
        self._mixing.frame_at(phase, out)
        for number, plane in enumerate(self._source.split(out)[:3]):
            shares = [
                _share(planes[3], plane.shape, self._source.max_code)
                for planes in (self._before, self._after)
            ]
            visible = self._mixing.plane_at(
                phase, number, self._before[number] * shares[0], self._after[number] * shares[1]
            )
            share = self._mixing.plane_at(phase, number, *shares)
            is_shown = share > LEAST_SHARE
            codes = np.floor(visible / np.maximum(share, np.float32(LEAST_SHARE)) + np.float32(0.5))
            plane[is_shown] = codes.clip(0, self._source.max_code)[is_shown]


def _share(alpha: Plane, shape: tuple[int, int], max_code: int) -> Plane:
    """Alpha from 0 to 1, for samples of a plane of that shape: the mean of the pixels that they cover."""
    rows, columns = shape
    share = alpha.astype(np.float32) / np.float32(max_code)
    if share.shape == shape:
        return share
    down, right = round(share.shape[0] / rows), round(share.shape[1] / columns)
    whole = np.pad(share, ((0, rows * down - share.shape[0]), (0, columns * right - share.shape[1])), "edge")
    means: Plane = whole.reshape(rows, down, columns, right).mean(axis=(1, 3), dtype=np.float32)
    return means


def luma_8_bits(plane: Plane, bit_depth: int) -> Plane:
    """A frame's first plane in 8 bits; of RGB that is green, which is close enough to luma."""
    return plane if bit_depth == 8 else (plane >> (bit_depth - 8)).astype(np.uint8)


def plane_sampling(source: FrameFormat, plane: int) -> tuple[tuple[int, int], tuple[float, float]]:
    """Luma pixels (right, down) that one sample of the plane covers, and its siting in them."""
    if plane in (0, 3) or source.layout in ("gray", "yuv444", "gbr"):
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
