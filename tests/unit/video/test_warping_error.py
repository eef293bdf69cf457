"""The warping error: no motion counts, and flicker counts as its mean square."""

from itertools import pairwise
from math import log10
from typing import Any

import cv2
import numpy as np
import pytest

from worker.video.warping_error import WarpingMeter

RANDOM = np.random.default_rng(3)


def texture(rows: int, columns: int) -> Any:
    """Smooth shapes of many sizes, between 60 and 190."""
    spectrum = np.fft.rfft2(RANDOM.normal(0, 1, (rows, columns)))
    down, across = np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None]
    smooth = np.fft.irfft2(spectrum * np.exp(-(down**2 + across**2) * 200), (rows, columns))
    return (125 + 30 * smooth / smooth.std()).clip(60, 190).astype(np.float32)


def errors(inputs: list[Any], outputs: list[Any], numbers: list[int] | None = None) -> Any:
    meter = WarpingMeter()
    for number, one, other in zip(numbers or range(len(inputs)), inputs, outputs, strict=True):
        meter.add(number, one, other)
    return meter.errors()


def enlarged(plane: Any) -> Any:
    return plane.repeat(2, axis=0).repeat(2, axis=1)


PICTURE = texture(80, 140)
PAN = [PICTURE[4:68, 3 * at : 3 * at + 96] for at in range(6)]


def test_a_pan_has_almost_none() -> None:
    found = errors(PAN, [enlarged(frame) for frame in PAN])
    # A twentieth of the difference of neighbours without regard to motion, at most.
    plain = np.mean([np.square(b - a).mean() for a, b in pairwise(PAN)]) / 255**2
    assert 0 <= found.input < plain / 20
    assert found.output < plain / 20


@pytest.mark.parametrize("frames", [[PAN[0]] * 6, PAN])
def test_flicker_counts_as_its_mean_square(frames: list[Any]) -> None:
    flickering = [enlarged(frame + 6 * (at % 2)) for at, frame in enumerate(frames)]
    before, after = errors(frames, [enlarged(frame) for frame in frames]), errors(frames, flickering)
    assert after.input == before.input
    assert after.output - before.output == pytest.approx((6 / 255) ** 2, rel=0.1)


def test_noise_counts_twice_its_variance() -> None:
    noisy = [PAN[0] + RANDOM.normal(0, 5, PAN[0].shape).astype(np.float32) for _ in range(6)]
    found = errors([PAN[0]] * 6, noisy)
    assert found.input == pytest.approx(0, abs=1e-6)
    assert found.output == pytest.approx(2 * (5 / 255) ** 2, rel=0.05)


def test_only_consecutive_frames_are_pairs() -> None:
    assert errors(PAN[:1], PAN[:1]) is None
    assert errors(PAN[:3], PAN[:3], [0, 2, 4]) is None
    assert errors(PAN[:3], PAN[:3], [0, 1, 4]) is not None


def test_unrelated_pictures_have_no_motion_to_compare_along() -> None:
    found = errors([texture(64, 96), texture(64, 96)], [PAN[0], PAN[1]])
    assert found is None or found.input < np.square(texture(64, 96) - texture(64, 96)).mean() / 255**2
    # Very small pictures have room for no flow of their own.
    tiny = [np.full((3, 5), 80, np.float32)] * 2
    assert errors(tiny, [enlarged(frame) for frame in tiny]).output == 0


@pytest.mark.parametrize("frames", [[PAN[0]] * 6, PAN], ids=["still", "pan"])
@pytest.mark.parametrize("scale", [1, 4])
def test_half_the_flicker_of_fine_detail_is_six_decibels_of_stability(frames: list[Any], scale: int) -> None:
    """Invented anew in every frame, and gone when the output is reduced: each pixel's four-by-four sum to nothing."""
    rows, columns = PAN[0].shape[0] * scale, PAN[0].shape[1] * scale

    def detailed(amount: float) -> list[Any]:
        random = np.random.default_rng(5)
        enlarged = [cv2.resize(frame, (columns, rows), interpolation=cv2.INTER_CUBIC) for frame in frames]
        return [frame + amount * random.choice([-1, 1], frame.shape).astype(np.float32) for frame in enlarged]

    levels = [errors(frames, detailed(amount)).stability_db for amount in (8, 4, 2)]
    # Each pixel changes by the difference of two independent signs.
    assert levels[0] == pytest.approx(20 * log10(255 / 8) - 10 * log10(2), abs=0.5)
    assert np.diff(levels) == pytest.approx([20 * log10(2)] * 2, abs=0.3)
    assert errors(frames, detailed(0)).stability_db > levels[-1] + 3


def test_a_lasting_difference_is_stable_and_one_that_comes_and_goes_is_not() -> None:
    frames = [enlarged(frame) for frame in PAN]
    steady = errors(PAN, frames).stability_db
    assert errors(PAN, [frame + 5 for frame in frames]).stability_db == pytest.approx(steady, abs=0.01)
    blinking = errors(PAN, [frame + 5 * (at % 2) for at, frame in enumerate(frames)]).stability_db
    assert blinking == pytest.approx(20 * log10(255 / 5), abs=0.5)
    halved = errors(PAN, [frame + 2.5 * (at % 2) for at, frame in enumerate(frames)]).stability_db
    assert halved == pytest.approx(20 * log10(255 / 2.5), abs=0.8)


def test_new_content_has_no_stability_to_lose() -> None:
    """What comes from behind an edge is new in the input as well."""
    covered = [PAN[0].copy() for _ in range(2)]
    covered[1][20:40, 30:60] = 250
    steady = [enlarged(frame) for frame in covered]
    noisy = [frame + RANDOM.normal(0, 6, frame.shape).astype(np.float32) for frame in steady]
    assert errors(covered, steady).stability_db > errors(covered, noisy).stability_db + 6
