"""A segment is some seconds of work where devices are fast, and never shorter than the settings have it."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.work.segment_length import (
    LONGEST_WORK_SECONDS,
    MOST_STRETCH,
    SEGMENT_WORK_SECONDS,
    SEGMENTS_PER_WORKER,
    stretch_for,
)
from app.work.speeds import DeviceSpeed

SEGMENT = 2_000_000
FILM = 1000 * SEGMENT


def measured(*speeds: tuple[float, int]) -> list[DeviceSpeed]:
    """Devices of these input pixels a second, each of so many workers."""
    return [
        DeviceSpeed(device=f"device {number}", engine="regen-4x", pixels_per_second=speed, workers=workers)
        for number, (speed, workers) in enumerate(speeds)
    ]


@pytest.mark.parametrize(
    ("speeds", "pixels", "stretch"),
    [
        ([], FILM, 1),
        ([(SEGMENT / 60, 1)], FILM, 1),
        ([(SEGMENT, 1)], FILM, 10),
        ([(SEGMENT, 1), (SEGMENT / 6, 1)], FILM, 5),
        ([(SEGMENT, 1), (SEGMENT / 60, 1)], FILM, 1),
        ([(1000 * SEGMENT, 1)], FILM, MOST_STRETCH),
        ([(1000 * SEGMENT, 100)], FILM, 5),
        ([(1000 * SEGMENT, 1)], SEGMENT, 1),
    ],
)
def test_segments_are_seconds_of_work_and_every_worker_has_a_share(
    speeds: list[tuple[float, int]], pixels: int, stretch: int
) -> None:
    assert stretch_for(measured(*speeds), segment_pixels=SEGMENT, pixels=pixels) == stretch


@settings(max_examples=200, deadline=None)
@given(
    speeds=st.lists(
        st.tuples(st.floats(1e3, 1e10), st.integers(1, 1000)),
        min_size=1,
        max_size=5,
    ),
    segment_pixels=st.floats(1.0, 1e9),
    segments=st.floats(0.01, 1e6),
    shuffle=st.randoms(use_true_random=False),
)
def test_a_longer_segment_is_no_longer_than_every_bound_allows(
    speeds: list[tuple[float, int]], segment_pixels: float, segments: float, shuffle: random.Random
) -> None:
    pixels = segments * segment_pixels
    stretch = stretch_for(measured(*speeds), segment_pixels=segment_pixels, pixels=pixels)
    assert 1 <= stretch <= MOST_STRETCH
    if stretch > 1:
        seconds = [stretch * segment_pixels / speed for speed, _ in speeds]
        assert min(seconds) <= SEGMENT_WORK_SECONDS * 1.001
        assert max(seconds) <= LONGEST_WORK_SECONDS * 1.001
        workers = sum(number for _, number in speeds)
        assert segments / stretch >= SEGMENTS_PER_WORKER * workers * 0.999
    shuffle.shuffle(speeds)
    assert stretch_for(measured(*speeds), segment_pixels=segment_pixels, pixels=pixels) == stretch
    twice = [(2 * speed, number) for speed, number in speeds]
    assert stretch_for(measured(*twice), segment_pixels=segment_pixels, pixels=pixels) >= stretch
