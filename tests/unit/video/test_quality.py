"""The arithmetics of measured quality, against definitions written out anew."""

from dataclasses import replace
from math import exp, log10
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.inference.frames import FrameFormat
from worker.video import similarity_metrics
from worker.video.filter_effect import FilterEffect
from worker.video.luma import luma
from worker.video.quality import RUN_FRAMES, RUNS, MeasuredQuality, sampled_frames
from worker.video.similarity_metrics import SimilarityMeter, decibels, structural_similarity
from worker.video.warping_error import WarpingErrors

RANDOM = np.random.default_rng(7)


def picture(rows: int, columns: int) -> Any:
    """Smooth shapes, noise and clipped lights: what has structure at every size."""
    down, across = np.mgrid[:rows, :columns]
    shapes = 120 + 90 * np.sin(down / 4) * np.cos(across / 7)
    return (shapes + RANDOM.normal(0, 12, shapes.shape)).clip(0, 255).astype(np.float32)


def ssim_by_definition(one: Any, other: Any) -> float:
    """Window by window, as the paper writes it."""
    weights = np.array(
        [[exp(-(y * y + x * x) / (2 * 1.5**2)) for x in range(-5, 6)] for y in range(-5, 6)], np.float64
    )
    weights /= weights.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for top in range(one.shape[0] - 10):
        for left in range(one.shape[1] - 10):
            a, b = (plane[top : top + 11, left : left + 11].astype(np.float64) for plane in (one, other))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            variance_a = (weights * (a - mean_a) ** 2).sum()
            variance_b = (weights * (b - mean_b) ** 2).sum()
            covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
            values.append(
                (2 * mean_a * mean_b + c1)
                * (2 * covariance + c2)
                / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))
            )
    return float(np.mean(values))


def compared(references: list[Any], results: list[Any]) -> Any:
    gathered = SimilarityMeter()
    for reference, result in zip(references, results, strict=True):
        gathered.add(reference, result)
    return gathered.metrics()


@pytest.mark.parametrize("size", [(29, 34), (11, 11), (11, 40)])
def test_ssim_is_what_its_authors_define(size: tuple[int, int]) -> None:
    one = picture(*size)
    other = (one * 0.9 + RANDOM.normal(0, 9, size)).astype(np.float32)
    expected = ssim_by_definition(one, other)
    assert expected < 0.98
    assert structural_similarity(one, other) == pytest.approx(expected, abs=1e-9)


def test_ssim_of_large_pictures_is_that_of_all_their_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = picture(41, 30), picture(41, 30)
    whole = structural_similarity(one, other)
    for rows in (1, 7, 31):
        monkeypatch.setattr(similarity_metrics, "BAND_ROWS", rows)
        assert structural_similarity(one, other) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (50, 10)])
def test_ssim_of_pictures_smaller_than_a_window(size: tuple[int, int]) -> None:
    one = picture(*size)
    assert structural_similarity(one, one) == pytest.approx(1)
    assert structural_similarity(one, one * 0) < 0.1


def test_psnr_is_of_all_frames_together() -> None:
    flat = np.full((16, 16), 100, np.float32)
    figures = compared([flat, flat], [flat + 1, flat - 3])
    assert figures.psnr_db == pytest.approx(10 * log10(255**2 / 5))
    assert figures.frames == 2
    assert compared([flat], [flat]).psnr_db == 100
    assert decibels(0) == 100


@given(st.integers(1, 500_000))
def test_the_sample_is_spread_over_the_video(count: int) -> None:
    sample = sampled_frames(count)
    assert sample == sorted(set(sample))
    assert sample[0] >= 0 and sample[-1] < count
    if count <= RUNS * RUN_FRAMES:
        assert sample == list(range(count))
    else:
        assert len(sample) <= RUNS * RUN_FRAMES
        gaps = np.diff([-1, *sample, count])
        assert gaps.max() <= count / RUNS + RUN_FRAMES
        assert all(number - 1 in sample or number + 1 in sample for number in sample)


def luma_of(codes: list[int], source: FrameFormat, target: FrameFormat) -> float:
    planes = [np.full(shape, code) for code, shape in zip(codes, source.plane_shapes, strict=True)]
    result = luma(source.join(planes), source=source, target=target)
    assert result.shape == (source.height, source.width)
    assert np.ptp(result) == 0
    return float(result[0, 0])


@pytest.mark.parametrize(
    ("codes", "changes", "full_range", "expected"),
    [
        ([200, 1, 2], {}, False, 200),
        ([803, 1, 2], {"bit_depth": 10}, False, 200.75),
        ([3210, 1, 2], {"bit_depth": 12, "layout": "yuv444"}, False, 3210 / 16),
        ([1023, 1, 2], {"bit_depth": 10, "full_range": True}, True, 255),
        ([65535], {"bit_depth": 16, "layout": "gray", "full_range": True}, True, 255),
        # Green, blue, red. BT.709 in the limited range.
        ([255, 255, 255], {"layout": "gbr", "full_range": True}, False, 235),
        ([0, 0, 255], {"layout": "gbr", "full_range": True}, False, 16 + 219 * 0.2126),
        ([1023, 0, 0], {"layout": "gbr", "bit_depth": 10, "full_range": True}, False, 16 + 219 * 0.7152),
    ],
)
def test_luma_comes_in_the_outputs_range_and_in_eight_bits(
    codes: list[int], changes: dict[str, Any], full_range: bool, expected: float
) -> None:
    source = FrameFormat(width=5, height=3, **changes)
    target = FrameFormat(width=20, height=12, bit_depth=10, full_range=full_range)
    assert luma_of(codes, source, target) == pytest.approx(expected, abs=1e-3)


def test_figures_that_are_not_there_are_left_out() -> None:
    one_frame = MeasuredQuality(psnr=100.0, ssim=0.98765432, vmaf=None, frames=1)
    assert one_frame.as_json() == {"psnr": 100.0, "ssim": 0.98765, "frames": 1}
    errors = WarpingErrors(input=1e-4, output=2.34567891234e-4, explained=1e-5)
    whole = MeasuredQuality(psnr=40.12345, ssim=1.0, vmaf=95.5, frames=24, warping_errors=errors)
    figures = whole.as_json()
    assert list(figures) == [
        *("psnr", "ssim", "vmaf", "temporalStability", "warpingError", "warpingErrorInput", "frames")
    ]
    assert (figures["temporalStability"], figures["warpingError"], figures["warpingErrorInput"]) == (
        *(50.0, 0.00023457, 0.0001),
    )
    effect = FilterEffect(errors=(4e-4, 1e-4), sharpness_lost=0.12345, psnr_db=41.23456, pairs=3)
    assert replace(whole, filter_effect=effect).as_json() == figures | {
        "stabiliseEffect": {
            "warpingErrorBefore": 0.0004,
            "warpingErrorAfter": 0.0001,
            "sharpnessLost": 0.1235,
            "psnrToUnfiltered": 41.235,
            "pairs": 3,
        }
    }
    still = FilterEffect(errors=None, sharpness_lost=None, psnr_db=100.0, pairs=1)
    assert still.as_json() == {"psnrToUnfiltered": 100.0, "pairs": 1}
    words = dict(replace(whole, filter_effect=effect).formatted())
    assert words["warping error"] == "2.346e-4 (input 1.000e-4)"
    assert words["stabilise: warping error"] == "1.000e-4 (before 4.000e-4)"
    assert words["stabilise: sharpness lost"] == "12.3 %"
    assert list(dict(whole.formatted())) == [
        *("PSNR", "SSIM", "VMAF", "temporal stability", "warping error", "frames compared")
    ]
