"""The motion between two frames, and what lies between them when everything keeps moving along it.

Dense optical flow (OpenCV's DIS) from the earlier frame to the later and back. At a moment between the two both flows
are carried over to it, which gives every pixel two motions to choose from: the one along which both frames look most
alike wins. Both frames are drawn along it to that moment and mixed. Where even then they do not look alike, or where
nothing moves, the two are mixed as they lie: pixels that stand still keep their codes.

Everything depends on the two frames alone, and is the same with any number of threads.
"""

from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Plane: TypeAlias = NDArray[Any]
Field: TypeAlias = NDArray[np.float32]

# OpenCV 5.0 reads beyond its buffers when a side has less than 16 pixels.
LEAST_SIDE = 32
# Larger frames are halved (quartered, ...) to see how they move: what moves is larger there too.
MOST_PIXELS = 1920 * 1200
# Looking for the pixel that arrives here: each round starts with the motion found in the one before.
ROUNDS = 2
# Motions are compared over squares of this side.
NEIGHBOURHOOD = 13
# Neighbouring pixels that have chosen differently are brought into line over squares of this side.
SMOOTHING = 5
# Frames that differ by more than this along the motion (8-bit codes) are not the same thing: half trusted at DOUBT,
# not at all a little beyond.
DOUBT = 30.0
# Differences up to the first are noise, from the second on they are something; in between a bit of both.
STILL = (1.0, 3.0)
# A pixel that stands still in both frames may yet be passed over in between: the frames drawn along the motion then
# show something this different there, and agree on it to within AGREEMENT.
PASSING = (1.5, 4.0)
AGREEMENT = (0.5, 2.0)
# Rows of a plane that are drawn at a time, which bounds memory.
ROWS = 256


def optical_flow(before: Plane, after: Plane) -> Field:
    """(rows, columns, 2): how far right and down each pixel of `before` has gone in `after`. Planes of 8 bits."""
    rows, columns = before.shape
    down, right = max(0, LEAST_SIDE - rows), max(0, LEAST_SIDE - columns)
    if down or right:
        before, after = (
            cv2.copyMakeBorder(plane, 0, down, 0, right, cv2.BORDER_REPLICATE) for plane in (before, after)
        )
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    # What is in it counts as a first guess.
    flow = np.zeros((*before.shape, 2), np.float32)
    dis.calc(before, after, flow)
    return flow[:rows, :columns]


def follow(plane: Plane, flow: Field, share: float) -> Plane:
    """What lies in `plane` at the given share of the flow away from each pixel."""
    rows, columns = flow.shape[:2]
    x = np.arange(columns, dtype=np.float32) + np.float32(share) * flow[..., 0]
    y = np.arange(rows, dtype=np.float32)[:, None] + np.float32(share) * flow[..., 1]
    return _remapped(plane, x, y, cv2.INTER_LINEAR)


class Motion:
    """The motion between two frames, seen in one plane of 8 bits of each: their luma."""

    def __init__(self, before: Plane, after: Plane) -> None:
        self._step = 1
        while before.size > MOST_PIXELS * self._step**2:
            self._step *= 2
        self._before, self._after = (_reduced(plane, self._step) for plane in (before, after))
        self._there = optical_flow(self._before, self._after)
        self._back = optical_flow(self._after, self._before)

    def field_at(self, place: float) -> "MotionField":
        """The motion of what is at each pixel at `place`, from 0 (before) to 1 (after)."""
        candidates = [_carried(self._there, place), -_carried(self._back, 1 - place)]
        best: list[Plane] = []
        for flow in candidates:
            early = follow(self._before, flow, -place).astype(np.float32)
            late = follow(self._after, flow, 1 - place).astype(np.float32)
            found = [_nearby(early - late), flow[..., 0], flow[..., 1], early + (late - early) * place]
            if best:
                is_better = found[0] < best[0]
                best = [np.where(is_better, new, old) for new, old in zip(found, best, strict=True)]
            else:
                best = found
        difference, right, down, moved = best
        right, down = (cv2.medianBlur(plane.astype(np.float32), SMOOTHING) for plane in (right, down))
        held_difference = self._after.astype(np.float32) - self._before
        held = self._before + held_difference * np.float32(place)
        held_difference = _nearby(held_difference)
        passing = _rising(np.abs(moved - held), *PASSING) * (
            1 - _rising(difference - held_difference, *AGREEMENT)
        )
        still = (1 - _rising(held_difference, *STILL)) * (1 - passing)
        trust = _nearby(1 - _rising(difference, DOUBT / 2, DOUBT * 3 / 2)) * (1 - still)
        return MotionField(np.dstack((right * self._step, down * self._step, trust)), place, self._step)


class MotionField:
    """The motion of each pixel at one moment, and how far it is trusted."""

    def __init__(self, field: Field, place: float, step: int) -> None:
        self._field = field
        self._place = np.float32(place)
        self._step = step

    def draw(
        self,
        before: Plane,
        after: Plane,
        out: Plane,
        *,
        sampling: tuple[int, int] = (1, 1),
        offset: tuple[float, float] = (0, 0),
        max_code: int,
    ) -> None:
        """Write into `out` what lies between two planes.

        One sample of theirs belongs to `sampling` (right, down) pixels, and sits at `offset` of the first of these.
        """
        place = self._place
        first, last = before.astype(np.float32), after.astype(np.float32)
        for top in range(0, out.shape[0], ROWS):
            bottom = min(top + ROWS, out.shape[0])
            x = np.arange(out.shape[1], dtype=np.float32)[None, :]
            y = np.arange(top, bottom, dtype=np.float32)[:, None]
            field = self._sampled(x * sampling[0] + offset[0], y * sampling[1] + offset[1])
            right, down = field[..., 0] / sampling[0], field[..., 1] / sampling[1]
            early = _remapped(first, x - place * right, y - place * down, cv2.INTER_CUBIC)
            late = _remapped(last, x + (1 - place) * right, y + (1 - place) * down, cv2.INTER_CUBIC)
            held = first[top:bottom] + (last[top:bottom] - first[top:bottom]) * place
            moved = early + (late - early) * place
            codes = held + (moved - held) * field[..., 2]
            out[top:bottom] = np.floor(codes + np.float32(0.5)).clip(0, max_code)

    def _sampled(self, x: Plane, y: Plane) -> Field:
        """The field at places given in pixels of the luma."""
        rows, columns = y.shape[0], x.shape[1]
        step = np.float32(self._step)
        x = np.broadcast_to((x + 0.5) / step - 0.5, (rows, columns)).astype(np.float32)
        y = np.broadcast_to((y + 0.5) / step - 0.5, (rows, columns)).astype(np.float32)
        return _remapped(self._field, x, y, cv2.INTER_LINEAR)


def _carried(flow: Field, share: float) -> Field:
    """The flow of what has come to each pixel after that share of its way."""
    carried = flow
    for _ in range(ROUNDS):
        carried = follow(flow, carried, -share)
    return carried


def _remapped(plane: Plane, x: Plane, y: Plane, interpolation: int) -> Plane:
    return cv2.remap(plane, x, y, interpolation, borderMode=cv2.BORDER_REPLICATE)


def _nearby(difference: Plane) -> Plane:
    """How much there is of it around each pixel."""
    return cv2.blur(np.abs(difference), (NEIGHBOURHOOD, NEIGHBOURHOOD), borderType=cv2.BORDER_REPLICATE)


def _rising(values: Field, low: float, high: float) -> Field:
    """0 up to `low`, 1 from `high` on, straight in between."""
    return ((values - np.float32(low)) / np.float32(high - low)).clip(0, 1)


def _reduced(plane: Plane, step: int) -> Plane:
    if step == 1:
        return plane
    size = (-(-plane.shape[1] // step), -(-plane.shape[0] // step))
    return cv2.resize(plane, size, interpolation=cv2.INTER_AREA)
