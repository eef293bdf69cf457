"""Flicker: how much a video changes from frame to frame other than by its motion.

The warping error of Lai et al., "Learning blind video temporal consistency" (ECCV 2018): the mean squared difference
of a frame and the frame before, moved along the motion between them, where that motion exists; white squared is 1. It
exists where the motions forwards and backwards agree (Sundaram et al., "Dense point trajectories by GPU-accelerated
large displacement optical flow", 2010). The motion is that of the input, by Farneback's method ("Two-frame motion
estimation based on polynomial expansion", 2003): `stabilise` uses another one, and would else judge itself.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.video.motion import MIN_SIDE, Field, reduced, warp
from worker.video.similarity_metrics import PEAK, Plane, decibels, mean_square

# The motion of larger pictures is found at half (a quarter, ...) of their size.
MOST_MOTION_PIXELS = 1280 * 720
# Larger pictures are reduced before their flicker is looked at, which bounds memory.
MOST_LARGE_PIXELS = 3840 * 2176
# Codes by which the input may change along its motion; more is new content, of which detail is new as well.
MOST_UNEXPLAINED = 8
# Two motions agree if the square of their sum is below this share of their squares' sum, and so much in pixels.
AGREEMENT_SHARE, AGREEMENT_SQUARE = 0.01, 0.5


@dataclass(frozen=True, kw_only=True)
class WarpingErrors:
    """Means over all pairs of consecutive frames; white squared is 1. `explained`: the output's where motion explains
    the input, None where it does so nowhere."""

    input: float
    output: float
    explained: float | None

    @property
    def stability_db(self) -> float | None:
        """`explained` in decibels, MAX_DECIBELS at most."""
        return None if self.explained is None else decibels(self.explained * PEAK**2)

    def as_json(self) -> dict[str, float]:
        """As the API shows them, without those that are None."""
        stability = self.stability_db
        return {
            **({} if stability is None else {"temporalStability": round(stability, 3)}),
            "warpingError": shown_error(self.output),
            "warpingErrorInput": shown_error(self.input),
        }

    def formatted(self) -> list[tuple[str, str]]:
        """Name and formatted value of each figure that is not None."""
        errors = f"{formatted_error(self.output)} (input {formatted_error(self.input)})"
        stability = self.stability_db
        words = [] if stability is None else [("temporal stability", f"{stability:.2f} dB")]
        return [*words, ("warping error", errors)]


def shown_error(error: float) -> float:
    """As the API shows it."""
    return round(error, 8)


def formatted_error(error: float) -> str:
    return f"{error * 1e4:.3f}e-4"


class PastMotion(NamedTuple):
    """For each pixel of a frame, where it was in the frame before (shares of its sides), and whether that is known.

    Both of the size at which the motion was found: `shift` is rows x columns x 2 (right, down), `is_known` is boolean.
    """

    shift: Field
    is_known: NDArray[np.bool_]

    def at(self, shape: tuple[int, ...]) -> "SampledMotion":
        """Of planes with this (rows, columns)."""
        rows, columns = shape
        shift = cv2.resize(self.shift, (columns, rows), interpolation=cv2.INTER_LINEAR)
        known = cv2.resize(self.is_known.astype(np.uint8), (columns, rows), interpolation=cv2.INTER_NEAREST)
        x = np.arange(columns, dtype=np.float32) + shift[..., 0] * columns
        y = np.arange(rows, dtype=np.float32)[:, None] + shift[..., 1] * rows
        return SampledMotion(x, y, known > 0)


class SampledMotion(NamedTuple):
    """For each pixel of a plane, the `x` and `y` where it was in the plane before, and whether that is known."""

    x: Field
    y: Field
    is_known: NDArray[np.bool_]

    def change(self, before: Plane, after: Plane) -> Plane:
        """What is not motion: the differences of all pixels whose motion is known, 1-D, in codes."""
        moved = cv2.remap(before, self.x, self.y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray((after - moved)[self.is_known], np.float32)

    def error(self, before: Plane, after: Plane) -> float:
        """The warping error; white squared is 1."""
        return error_of(self.change(before, after))


def error_of(change: Plane) -> float:
    """The mean square of a change in codes; white squared is 1. 0 of none."""
    return mean_square(change) / PEAK**2 if change.size else 0.0


class WarpingMeter:
    """Accumulates the errors of a video from planes of 8-bit codes: the input's, and the output's at any size."""

    def __init__(self) -> None:
        self._last: tuple[int, Plane, Plane] | None = None
        self._pairs = 0
        self._input = self._output = 0.0
        self._explained: list[float] = []

    def add(self, number: int, reference: Plane, result: Plane) -> None:
        """`number` is the output frame's; pairs have consecutive numbers."""
        if self._last is not None and self._last[0] == number - 1:
            _, last_reference, last_result = self._last
            motion = past_motion(last_reference, reference)
            if motion.is_known.any():
                self._pairs += 1
                self._input += motion.at(reference.shape).error(last_reference, reference)
                sampled = motion.at(result.shape)
                change = sampled.change(last_result, result)
                self._output += error_of(change)
                enlarged = (_resized(plane, result.shape) for plane in (last_reference, reference))
                expected = sampled.change(*enlarged)
                explained = change[np.abs(expected) < MOST_UNEXPLAINED]
                if explained.size:
                    self._explained.append(error_of(explained))
        self._last = (number, reference, result)

    def errors(self) -> WarpingErrors | None:
        """None if there was no pair with known motion."""
        if not self._pairs:
            return None
        return WarpingErrors(
            input=self._input / self._pairs,
            output=self._output / self._pairs,
            explained=sum(self._explained) / len(self._explained) if self._explained else None,
        )


def flicker_step(pixels: int) -> int:
    """How many times narrower and lower pictures of so many pixels are looked at: 1, 2, 4, ..."""
    step = 1
    while pixels > MOST_LARGE_PIXELS * step**2:
        step *= 2
    return step


def past_motion(before: Plane, after: Plane) -> PastMotion:
    """From two planes of 8-bit codes, shape (rows, columns)."""
    step = 1
    while before.size > MOST_MOTION_PIXELS * step**2:
        step *= 2
    first, last = (_enlarged_to_least(reduced(plane, step)) for plane in (before, after))
    back, forth = _farneback(last, first), _farneback(first, last)
    there = np.asarray(warp(forth, back, 1), np.float32)
    sum_squared = np.square(back + there).sum(axis=2)
    squares = np.square(back).sum(axis=2) + np.square(there).sum(axis=2)
    is_known = sum_squared < AGREEMENT_SHARE * squares + AGREEMENT_SQUARE
    rows, columns = first.shape
    back[..., 0] /= columns
    back[..., 1] /= rows
    return PastMotion(back, is_known)


def _farneback(here: NDArray[np.uint8], other: NDArray[np.uint8]) -> Field:
    flow = np.zeros((*here.shape, 2), np.float32)
    return np.asarray(cv2.calcOpticalFlowFarneback(here, other, flow, 0.5, 5, 21, 5, 7, 1.5, 0), np.float32)


def _enlarged_to_least(plane: Plane) -> NDArray[np.uint8]:
    """In 8 bits, with sides long enough for the flow."""
    rows, columns = plane.shape
    size = (max(columns, MIN_SIDE), max(rows, MIN_SIDE))
    codes = np.rint(plane).clip(0, 255).astype(np.uint8)
    return codes if size == (columns, rows) else np.asarray(cv2.resize(codes, size), np.uint8)


def _resized(plane: Plane, shape: tuple[int, ...]) -> Plane:
    rows, columns = shape
    way = cv2.INTER_AREA if rows < plane.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(plane, (columns, rows), interpolation=way), np.float32)
