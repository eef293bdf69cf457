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
from worker.video.quality import RUN_FRAMES, RUNS, MeasuredQuality, luma, sampled_frames
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


def compared(references: list[Any], results: list[Any], numbers: list[int] | None = None) -> Any:
    gathered = SimilarityMeter()
    for number, reference, result in zip(numbers or range(len(results)), references, results, strict=True):
        gathered.add(number, reference, result)
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


def test_flicker_lowers_the_stability_and_a_lasting_difference_does_not() -> None:
    frames = [picture(24, 24) for _ in range(6)]
    blurred = [frame * 0.8 + 20 for frame in frames]
    assert compared(frames, [frame + 4 for frame in frames]).stability_db == pytest.approx(100, abs=1)
    steady = compared(frames, blurred).stability_db
    flickering = compared(frames, [frame + 6 * (-1) ** at for at, frame in enumerate(blurred)]).stability_db
    assert flickering < steady - 3
    alone = compared(frames, [frame + 3 * (-1) ** at for at, frame in enumerate(frames)])
    assert alone.stability_db == pytest.approx(20 * log10(255 / 6), abs=1e-3)
    assert alone.psnr_db == pytest.approx(20 * log10(255 / 3), abs=1e-3)


def test_only_frames_that_follow_each_other_tell_of_stability() -> None:
    flat = np.full((16, 16), 100, np.float32)
    results = [flat, flat + 2, flat + 50, flat + 52]
    assert compared([flat] * 4, results, [3, 4, 8, 9]).stability_db == pytest.approx(20 * log10(255 / 2))
    assert compared([flat] * 2, results[:2], [3, 5]).stability_db is None


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
    one_frame = MeasuredQuality(psnr=100.0, ssim=0.98765432, vmaf=None, temporal_stability=None, frames=1)
    assert one_frame.as_json() == {"psnr": 100.0, "ssim": 0.98765, "frames": 1}
    whole = MeasuredQuality(psnr=40.12345, ssim=1.0, vmaf=95.5, temporal_stability=50.0, frames=24)
    assert list(whole.as_json()) == ["psnr", "ssim", "vmaf", "temporalStability", "frames"]
    moving = replace(whole, warping_errors=WarpingErrors(input=1e-4, output=2.34567891234e-4))
    assert moving.as_json() | {"frames": 0} == whole.as_json() | {
        "warpingError": 0.00023457,
        "warpingErrorInput": 0.0001,
        "frames": 0,
    }
    assert ("warping error", "2.346e-4 (input 1.000e-4)") in moving.formatted()
    assert [name for name, _ in whole.formatted()] == [
        *("PSNR", "SSIM", "VMAF", "temporal stability", "frames compared")
    ]
