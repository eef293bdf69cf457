"""Motion-compensated interpolation between two frames.

Dense optical flow (OpenCV's DIS) is computed forwards and backwards. For a time between the frames, both flows are
projected to it, which gives each pixel two candidate motions; the one with the smaller matching error wins. Both frames
are warped along it and blended. Where even the better one matches badly, or where nothing moves, the frames are
blended without motion: static pixels keep their codes.

The result depends on the two frames alone, and is the same with any number of threads.
"""

from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Plane: TypeAlias = NDArray[Any]
Field: TypeAlias = NDArray[np.float32]

# OpenCV 5.0 reads beyond its buffers if a side has fewer than 16 pixels.
MIN_SIDE = 32
# Flow of larger frames is computed at half (a quarter, ...) of their size: moving objects are larger there too.
MAX_FLOW_PIXELS = 1920 * 1200
# Fixed-point iterations that invert the flow; each starts from the result of the one before.
INVERSION_ITERATIONS = 2
# Side of the square over which matching errors are averaged.
NEIGHBOURHOOD = 13
# Side of the median filter that smooths the chosen motions.
SMOOTHING = 5
# Matching error (8-bit codes) at which the motion has half its weight; at 1.5 times that it has none.
MISMATCH = 30.0
# Differences (8-bit codes): noise up to the first, change from the second on, and a ramp in between.
STATIC_DIFFERENCE = (1.0, 3.0)
# A pixel that is static in both frames may be occluded in between: there the warped frames differ from the static blend
# by OCCLUSION_DIFFERENCE, and from each other by no more than AGREEMENT.
OCCLUSION_DIFFERENCE = (1.5, 4.0)
AGREEMENT = (0.5, 2.0)
# Rows of a plane that are interpolated at a time, which bounds memory.
BAND_ROWS = 256


def optical_flow(before: Plane, after: Plane) -> Field:
    """Displacement (right, down) in pixels of each pixel of `before`, shape (rows, columns, 2). Planes of 8 bits."""
    rows, columns = before.shape
    down, right = max(0, MIN_SIDE - rows), max(0, MIN_SIDE - columns)
    if down or right:
        before, after = (
            cv2.copyMakeBorder(plane, 0, down, 0, right, cv2.BORDER_REPLICATE) for plane in (before, after)
        )
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    # DIS takes its initial content as the first guess.
    flow = np.zeros((*before.shape, 2), np.float32)
    dis.calc(before, after, flow)
    return flow[:rows, :columns]


def flow_step(plane: Plane) -> int:
    """How many times smaller the flow of such a plane is computed: 1, 2, 4, ..."""
    step = 1
    while plane.size > MAX_FLOW_PIXELS * step**2:
        step *= 2
    return step


def warp(plane: Plane, flow: Field, share: float) -> Plane:
    """Sample `plane` at each pixel's position plus `share` times its flow."""
    rows, columns = flow.shape[:2]
    x = np.arange(columns, dtype=np.float32) + np.float32(share) * flow[..., 0]
    y = np.arange(rows, dtype=np.float32)[:, None] + np.float32(share) * flow[..., 1]
    return _remapped(plane, x, y, cv2.INTER_LINEAR)


class Motion:
    """The motion between two frames, estimated from their luma (8 bits)."""

    def __init__(self, before: Plane, after: Plane) -> None:
        self._step = flow_step(before)
        self._before, self._after = (reduced(plane, self._step) for plane in (before, after))
        self._there = optical_flow(self._before, self._after)
        self._back = optical_flow(self._after, self._before)

    def field_at(self, phase: float) -> "MotionField":
        """The motion of each pixel at `phase`, from 0 (before) to 1 (after)."""
        candidates = [_flow_at(self._there, phase), -_flow_at(self._back, 1 - phase)]
        best: list[Plane] = []
        for flow in candidates:
            early = warp(self._before, flow, -phase).astype(np.float32)
            late = warp(self._after, flow, 1 - phase).astype(np.float32)
            found = [_local_mean(early - late), flow[..., 0], flow[..., 1], early + (late - early) * phase]
            if best:
                is_better = found[0] < best[0]
                best = [np.where(is_better, new, old) for new, old in zip(found, best, strict=True)]
            else:
                best = found
        difference, right, down, moved = best
        right, down = (cv2.medianBlur(plane.astype(np.float32), SMOOTHING) for plane in (right, down))
        held_difference = self._after.astype(np.float32) - self._before
        held = self._before + held_difference * np.float32(phase)
        held_difference = _local_mean(held_difference)
        passing = _ramp(np.abs(moved - held), *OCCLUSION_DIFFERENCE) * (
            1 - _ramp(difference - held_difference, *AGREEMENT)
        )
        still = (1 - _ramp(held_difference, *STATIC_DIFFERENCE)) * (1 - passing)
        trust = _local_mean(1 - _ramp(difference, MISMATCH / 2, MISMATCH * 3 / 2)) * (1 - still)
        return MotionField(np.dstack((right * self._step, down * self._step, trust)), phase, self._step)


class MotionField:
    """The motion of each pixel at one phase, with the weight of the motion-compensated blend."""

    def __init__(self, field: Field, phase: float, step: int) -> None:
        self._field = field
        self._phase = np.float32(phase)
        self._step = step

    def draw(
        self,
        before: Plane,
        after: Plane,
        out: Plane,
        *,
        sampling: tuple[int, int] = (1, 1),
        offset: tuple[float, float] = (0, 0),
        max_code: int | None,
    ) -> None:
        """Interpolate between two planes into `out`, rounded to codes; to floats without a `max_code`.

        One sample of the planes covers `sampling` (right, down) luma pixels and is sited at `offset` in them.
        """
        phase = self._phase
        first, last = before.astype(np.float32), after.astype(np.float32)
        for top in range(0, out.shape[0], BAND_ROWS):
            bottom = min(top + BAND_ROWS, out.shape[0])
            x = np.arange(out.shape[1], dtype=np.float32)[None, :]
            y = np.arange(top, bottom, dtype=np.float32)[:, None]
            field = self._sampled(x * sampling[0] + offset[0], y * sampling[1] + offset[1])
            right, down = field[..., 0] / sampling[0], field[..., 1] / sampling[1]
            early = _remapped(first, x - phase * right, y - phase * down, cv2.INTER_CUBIC)
            late = _remapped(last, x + (1 - phase) * right, y + (1 - phase) * down, cv2.INTER_CUBIC)
            held = first[top:bottom] + (last[top:bottom] - first[top:bottom]) * phase
            moved = early + (late - early) * phase
            codes = held + (moved - held) * field[..., 2]
            if max_code is not None:
                codes = np.floor(codes + np.float32(0.5)).clip(0, max_code)
            out[top:bottom] = codes

    def _sampled(self, x: Plane, y: Plane) -> Field:
        """The field at positions in luma pixels."""
        rows, columns = y.shape[0], x.shape[1]
        step = np.float32(self._step)
        x = np.broadcast_to((x + 0.5) / step - 0.5, (rows, columns)).astype(np.float32)
        y = np.broadcast_to((y + 0.5) / step - 0.5, (rows, columns)).astype(np.float32)
        return _remapped(self._field, x, y, cv2.INTER_LINEAR)


def _flow_at(flow: Field, share: float) -> Field:
    """The flow projected to the time after `share` of the motion: that of the object at each pixel then."""
    carried = flow
    for _ in range(INVERSION_ITERATIONS):
        carried = warp(flow, carried, -share)
    return carried


def _remapped(plane: Plane, x: Plane, y: Plane, interpolation: int) -> Plane:
    return cv2.remap(plane, x, y, interpolation, borderMode=cv2.BORDER_REPLICATE)


def _local_mean(difference: Plane) -> Plane:
    """Mean absolute difference around each pixel."""
    return cv2.blur(np.abs(difference), (NEIGHBOURHOOD, NEIGHBOURHOOD), borderType=cv2.BORDER_REPLICATE)


def _ramp(values: Field, low: float, high: float) -> Field:
    """0 up to `low`, 1 from `high` on, linear in between."""
    return ((values - np.float32(low)) / np.float32(high - low)).clip(0, 1)


def reduced(plane: Plane, step: int) -> Plane:
    """The plane, so many times smaller; the plane itself for 1."""
    if step == 1:
        return plane
    size = (-(-plane.shape[1] // step), -(-plane.shape[0] // step))
    return cv2.resize(plane, size, interpolation=cv2.INTER_AREA)
