"""The search for a CRF finds what trying all of them would, in few measurements."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.platform.media.codecs import VmafTarget
from worker.video.quality_search import (
    MOST_FRAMES,
    SCALES,
    CrfScale,
    EncodedQuality,
    FoundQuality,
    find_crf,
    sampled_frames,
)

SCALE = SCALES["h264"]
MOST_MEASUREMENTS = 11


def all_crfs(scale: CrfScale) -> list[float]:
    return [scale.best + n * scale.step for n in range(round((scale.worst - scale.best) / scale.step) + 1)]


def counted(score: Callable[[float], float]) -> tuple[Callable[[float], float], list[float]]:
    asked: list[float] = []

    def measure(crf: float) -> float:
        asked.append(crf)
        return score(crf)

    return measure, asked


@given(
    falls=st.lists(st.floats(0, 4), min_size=len(all_crfs(SCALE)), max_size=len(all_crfs(SCALE))),
    best=st.floats(60, 100),
    target=st.floats(70, 99),
)
def test_the_highest_that_reaches_the_target(falls: list[float], best: float, target: float) -> None:
    score = {crf: best - math.fsum(falls[:n]) for n, crf in enumerate(all_crfs(SCALE))}
    measure, asked = counted(score.__getitem__)
    crf, vmaf = find_crf(SCALE, target, measure)
    assert crf == max((crf for crf in score if score[crf] >= target), default=SCALE.best)
    assert vmaf == score[crf]
    assert len(asked) == len(set(asked)) <= MOST_MEASUREMENTS


@pytest.mark.parametrize("codec", SCALES)
@pytest.mark.parametrize("steepness", [0.5, 1, 2])
def test_few_measurements_of_pictures_as_they_are(codec: str, steepness: float) -> None:
    """VMAF as x264 had it on a film: flat near 100, then ever steeper."""
    scale = SCALES[codec]  # type: ignore[index]
    measure, asked = counted(lambda crf: 99.6 - steepness * max(0, crf - 10) ** 2 / 30)
    find_crf(scale, 95, measure)
    assert len(asked) <= 7


def test_a_higher_target_never_has_a_higher_crf() -> None:
    found = [find_crf(SCALE, target, lambda crf: 100 - crf**1.5 / 4)[0] for target in range(70, 100)]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) > 20


@pytest.mark.parametrize("frame_pixels", [64 * 48, 1920 * 1080, 3840 * 2160, 7680 * 4320])
@pytest.mark.parametrize("count", [1, 12, 13, 48, 49, 50, 100, 1000])
def test_the_sample(count: int, frame_pixels: int) -> None:
    sample = sampled_frames(count, frame_pixels=frame_pixels)
    assert sample == sorted(set(sample)) and sample[0] >= 0 and sample[-1] < count
    assert len(sample) <= MOST_FRAMES
    assert len(sample) * frame_pixels <= 200_000_000 or len(sample) == min(count, 24)
    assert len(sample) == count or len(sample) % 24 == 0
    # As much of the segment is before the sample as after it.
    assert abs(sample[0] - (count - 1 - sample[-1])) <= 1


def test_all_segments_together() -> None:
    parts = [(30, FoundQuality(crf=20.5, vmaf=95.2)), (10, FoundQuality(crf=8, vmaf=91.99999))]
    found = EncodedQuality.of(VmafTarget(95), parts, model="vmaf_v0.6.1")
    assert found.as_json() == {
        "target": 95,
        "vmaf": {"min": 91.999, "mean": 94.399},
        "crf": {"min": 8, "max": 20.5},
        "model": "vmaf_v0.6.1",
    }
    assert found.warning == (
        "A VMAF of 95 was not reached in 1 of 2 parts of the video at the best quality of the encoder; the least is "
        "91.999."
    )
    assert EncodedQuality.of(VmafTarget(95), parts[:1], model="vmaf_v0.6.1").warning is None
