"""Integer time: which source frame each output frame shows, and when."""

from fractions import Fraction
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.platform.media.rates import Retime
from worker.video.timeline import (
    FULL_PHASE,
    MAX_INTERPOLATED_SECONDS,
    MAX_TIMESCALE,
    OutputTimeline,
    SourceTimeline,
    apply_offset,
    increasing_timestamps,
    plan_output_timeline,
    without_equal_neighbours,
)

durations = st.lists(st.integers(1, 60), min_size=1, max_size=40)
rates = st.fractions(min_value=1, max_value=120, max_denominator=1001)
time_bases = st.sampled_from(
    [Fraction(1, 1000), Fraction(1, 90_000), Fraction(1, 25), Fraction(1001, 30_000), Fraction(1, 12_800)]
)


def make_source(durations: list[int], time_base: Fraction, first: int = 0) -> SourceTimeline:
    *pts, end = accumulate(durations, initial=first)
    return SourceTimeline(time_base=time_base, pts=pts, end_pts=end)


@given(durations, time_bases, st.integers(-10_000, 10_000))
def test_own_rate_keeps_every_timestamp(durations: list[int], time_base: Fraction, first: int) -> None:
    source = make_source(durations, time_base, first)
    output = plan_output_timeline(source, target_fps=None)
    assert list(output.repeats) == [1] * len(durations)
    assert [Fraction(tick, output.timescale) for tick in output.ticks] == [
        (pts - first) * time_base for pts in source.pts
    ]
    assert Fraction(output.end_tick, output.timescale) == source.duration_seconds


@given(durations, time_bases, rates)
def test_constant_rate_shows_no_frame_more_than_half_an_output_frame_beside_its_time(
    durations: list[int], time_base: Fraction, rate: Fraction
) -> None:
    source = make_source(durations, time_base)
    if source.duration_seconds * rate > 2000:
        return
    output = plan_output_timeline(source, target_fps=rate)
    count = len(output.ticks)
    assert sum(output.repeats) == count >= 1
    assert abs(Fraction(count) / rate - source.duration_seconds) <= 1 / rate / 2 or count == 1
    assert [Fraction(tick, output.timescale) for tick in output.ticks] == [i / rate for i in range(count)]
    shown = [frame for frame, repeats in enumerate(output.repeats) for _ in range(repeats)]
    assert shown == sorted(shown)
    times = [pts * time_base for pts in source.pts]
    half = 1 / rate / 2
    for number, frame in enumerate(shown):
        at = number / rate
        if number == 0 or shown[number - 1] != frame:
            assert abs(times[frame] - at) <= half
        # Another one that was due is shown in its place only if it is nearer, or stays.
        due = [one for one, time in enumerate(times) if -half <= time - at < half]
        stays = number + 1 < count and shown[number + 1] == frame
        if due and not stays:
            assert abs(times[frame] - at) == min(abs(times[one] - at) for one in due)
        if not due:
            assert frame == max(one for one, time in enumerate(times) if time < at)


def test_a_slide_changes_at_its_time_and_not_halfway_to_the_next() -> None:
    """At 30 frames a second slides of 0, 6, 7 and 8 s change at 6.00, 7.00 and 8.00 s."""
    source = SourceTimeline(time_base=Fraction(1, 1000), pts=[0, 6000, 7000, 8000], end_pts=10_000)
    assert list(plan_output_timeline(source, target_fps=Fraction(30)).repeats) == [180, 30, 30, 60]


def shown_places(output: OutputTimeline) -> list[Fraction]:
    """Of each output frame, in turn: the number of the source frame it shows, and how far on to the next it is."""
    places: list[Fraction] = []
    for number, repeats in enumerate(output.repeats):
        places += [Fraction(number)] * repeats
        if output.between:
            places += [number + Fraction(place, FULL_PHASE) for place in output.between[number]]
    return places


@given(durations, time_bases, rates)
def test_between_two_frames_each_output_frame_has_its_exact_place(
    durations: list[int], time_base: Fraction, rate: Fraction
) -> None:
    source = make_source(durations, time_base)
    if source.duration_seconds * rate > 2000:
        return
    nearest = plan_output_timeline(source, target_fps=rate)
    output = plan_output_timeline(source, target_fps=rate, retime=Retime.MOTION)
    assert (output.timescale, list(output.ticks), output.end_tick) == (
        nearest.timescale,
        list(nearest.ticks),
        nearest.end_tick,
    )
    places = shown_places(output)
    assert len(places) == len(output.ticks)
    assert places == sorted(places)
    times = [pts * time_base for pts in source.pts]
    for number, place in enumerate(places):
        at = number / rate
        before = max(k for k, time in enumerate(times) if time <= at)
        gap = times[before + 1] - times[before] if before + 1 < len(times) else Fraction(0)
        moves = 0 < gap <= MAX_INTERPOLATED_SECONDS
        exact = before + ((at - times[before]) / gap if moves else 0)
        assert abs(place - exact) <= Fraction(1, 2 * FULL_PHASE)
    if output.between:
        assert len(output.between) == len(output.repeats)
        assert all(0 < place < FULL_PHASE for frame in output.between for place in frame)


def test_a_frame_that_is_shown_for_long_does_not_move() -> None:
    source = SourceTimeline(time_base=Fraction(1, 10), pts=[0, 5, 11, 12], end_pts=13)
    output = plan_output_timeline(source, target_fps=Fraction(10), retime=Retime.BLEND)
    assert list(output.repeats) == [1, 6, 1, 1]
    assert [len(places) for places in output.between] == [4, 0, 0, 0]


def test_at_the_inputs_own_rate_nothing_lies_between() -> None:
    source = make_source([512] * 20, Fraction(1, 12_800))
    own = plan_output_timeline(source, target_fps=Fraction(25), retime=Retime.MOTION)
    assert own == plan_output_timeline(source, target_fps=Fraction(25))


def test_between_equal_frames_the_earlier_is_repeated() -> None:
    source = make_source([2] * 4, Fraction(1, 50))
    output = plan_output_timeline(source, target_fps=Fraction(50), retime=Retime.BLEND)
    assert (list(output.repeats), [len(places) for places in output.between]) == ([1, 1, 1, 2], [1, 1, 1, 0])
    joined = without_equal_neighbours(output, [7, 7, 8, 9])
    assert (joined.repeats, [len(places) for places in joined.between]) == ([2, 1, 1, 2], [0, 1, 1, 0])
    assert joined.ticks == output.ticks
    still = without_equal_neighbours(output, [7, 7, 7, 7])
    assert (still.repeats, still.between) == ([2, 2, 2, 2], ())


def test_ticks_too_fine_for_the_join_are_made_coarser_exactly() -> None:
    source = SourceTimeline(
        time_base=Fraction(1, 10**9), pts=[0, 40_000_000, 90_000_000], end_pts=130_000_000
    )
    output = plan_output_timeline(source, target_fps=None)
    assert (output.timescale, list(output.ticks), output.end_tick) == (100, [0, 4, 9], 13)


def test_ticks_too_fine_for_mp4_go_to_the_nearest_microsecond() -> None:
    source = SourceTimeline(
        time_base=Fraction(1, 10**9), pts=[7, 33_333_340, 66_666_674], end_pts=100_000_007
    )
    output = plan_output_timeline(source, target_fps=None)
    assert (output.timescale, list(output.ticks), output.end_tick) == (10**6, [0, 33_333, 66_667], 100_000)
    assert output.timescale <= MAX_TIMESCALE


@pytest.mark.parametrize(
    ("timescale", "offset", "expected_timescale", "expected_offset"),
    [
        (12_800, Fraction(0), 12_800, 0),
        (12_800, Fraction(3, 128), 12_800, 300),
        (25, Fraction(37, 100), 100, 37),
        (30_000, Fraction(1, 3), 30_000, 10_000),
        (24_000, Fraction(1, 7), 168_000, 24_000),
        (25, Fraction(1, 999_983), 90_000, 0),
    ],
)
def test_offset(timescale: int, offset: Fraction, expected_timescale: int, expected_offset: int) -> None:
    timeline = OutputTimeline(timescale=timescale, repeats=[1, 1], ticks=[0, 3], end_tick=5)
    placed, ticks = apply_offset(timeline, offset)
    assert (placed.timescale, ticks) == (expected_timescale, expected_offset)
    factor = expected_timescale // timescale
    assert (list(placed.ticks), placed.end_tick) == ([0, 3 * factor], 5 * factor)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 4))
def test_repaired_timestamps_increase(steps: list[int], nominal: int) -> None:
    pts = list(accumulate(steps))
    repaired, changed = increasing_timestamps(pts, nominal=nominal)
    assert all(before < after for before, after in pairwise(repaired))
    assert changed == any(before >= after for before, after in pairwise(pts))
    if not changed:
        assert repaired == pts


def test_doubled_timestamps_are_spread_without_moving_the_others() -> None:
    assert increasing_timestamps([0, 40, 40, 120, 160], nominal=40) == ([0, 40, 80, 120, 160], True)
    assert increasing_timestamps([0, 40, 40, 40], nominal=40) == ([0, 40, 80, 120], True)
    assert increasing_timestamps([0, 40, 40, 60], nominal=40) == ([0, 40, 50, 60], True)
