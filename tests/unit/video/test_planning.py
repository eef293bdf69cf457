"""Segments partition the output; expressions and decoding times come out as ffmpeg needs them."""

import re
from bisect import bisect_left, bisect_right
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.platform.media.info import input_start
from worker.inference.frames import FrameFormat
from worker.video.cuts import MAX_SEGMENT_FRAMES, UsedFrames, cut_segments
from worker.video.encoder import choose_codec, timestamp_expression
from worker.video.join import concat_list, decoding_times
from worker.video.plan import MOST_DISCARDED_FRAMES, SegmentPlan
from worker.video.segment_plans import run_lengths
from worker.video.thumbnail import thumbnail_size


def make_used(repeats: list[int], duration: int = 10) -> UsedFrames:
    starts = [duration * shown for shown in accumulate(repeats, initial=0)]
    return UsedFrames(
        numbers=range(len(repeats)),
        phases=[0] * len(repeats),
        starts=starts[:-1],
        repeats=repeats,
        end_tick=starts[-1],
    )


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=120),
    st.sets(st.integers(1, 119)),
    st.integers(1, 300),
    st.integers(1, 40),
)
def test_segments_partition_the_frames_within_their_bounds(
    repeats: list[int], keyframes: set[int], max_ticks: int, max_frames: int
) -> None:
    used = make_used(repeats)
    keys = sorted(position for position in keyframes if position < len(repeats))
    cuts = cut_segments(used, keyframes=keys, max_ticks=max_ticks, max_frames=max_frames)
    assert cuts[0] == 0
    assert cuts[-1] == len(repeats)
    for start, stop in pairwise(cuts):
        assert start < stop
        shown = sum(repeats[start:stop])
        assert stop == start + 1 or (shown <= max_frames and shown * 10 <= max_ticks)


def test_segments_end_at_keyframes_where_that_costs_little() -> None:
    used = make_used([1] * 100)
    cuts = cut_segments(used, keyframes=[12, 18, 55], max_ticks=200, max_frames=1000)
    assert cuts == [0, 18, 38, 55, 75, 87, 100]


def test_a_keyframe_too_early_is_passed_by() -> None:
    used = make_used([1] * 40)
    assert cut_segments(used, keyframes=[9], max_ticks=200, max_frames=1000) == [0, 20, 40]


def test_no_segment_at_the_end_is_absurdly_short() -> None:
    used = make_used([1] * 41)
    cuts = cut_segments(used, keyframes=[], max_ticks=200, max_frames=1000)
    assert [stop - start for start, stop in pairwise(cuts)] == [20, 10, 11]


def test_repeated_frames_count_as_often_as_they_are_shown() -> None:
    used = make_used([4] * 10)
    assert cut_segments(used, keyframes=[], max_ticks=10_000, max_frames=20) == [0, 5, 10]


@pytest.mark.parametrize(
    "gaps", [[30_000], [17, 29_983], [1_000] * 30, [400, 20_000, 350, 9_250], [250] * 120]
)
def test_what_is_decoded_is_in_proportion_to_the_video(gaps: list[int]) -> None:
    """`gaps`: the distances of keyframes. A segment that discards much is at least as long as what it discards."""
    used = make_used([1] * 30_000)
    keys = list(accumulate(gaps, initial=0))
    discarded = [position - keys[bisect_right(keys, position) - 1] for position in range(30_000)]
    cut = partial(cut_segments, used, keyframes=keys[1:-1], max_ticks=1_000, max_frames=1_000)
    cuts = cut(discarded=discarded)
    assert cuts[0] == 0 and cuts[-1] == 30_000
    for start, stop in pairwise(cuts):
        assert start < stop
        assert discarded[start] <= max(MOST_DISCARDED_FRAMES, stop - start)
    if len(gaps) < 10:
        decoded = sum(discarded[start] + stop - start for start, stop in pairwise(cuts))
        assert decoded <= 2 * 30_000 + 1_000 * len(gaps)
    if max(gaps) <= MOST_DISCARDED_FRAMES:
        assert cuts == cut()


def test_a_long_segment_has_no_more_durations_than_the_encoder_is_told() -> None:
    used = make_used([1] * 30_000)
    starts = [10 * number + number % 2 for number in range(30_000)]
    cuts = cut_segments(
        replace(used, starts=starts), keyframes=[], max_ticks=1_000, max_frames=1_000, discarded=range(30_000)
    )
    ticks = [*starts, used.end_tick]
    lengths = [len(run_lengths(ticks[start : stop + 1])) for start, stop in pairwise(cuts)]
    assert max(lengths) == MAX_SEGMENT_FRAMES
    assert len(cuts) < 25


ticks_lists = st.lists(st.sampled_from([1, 1, 1, 2, 40, 512]), min_size=1, max_size=80).map(
    lambda steps: list(accumulate(steps, initial=0))
)


@given(ticks_lists)
def test_timestamp_expression_gives_every_timestamp(ticks: list[int]) -> None:
    runs = run_lengths(ticks)
    assert sum(count for count, _ in runs) == len(ticks) - 1
    expression = timestamp_expression(runs).replace("\\,", ",")
    python = re.sub(r"\bif\(", "choose(", expression)
    names = {"choose": lambda condition, yes, no: yes if condition else no, "lt": lambda a, b: a < b}
    assert [eval(python, names, {"N": n}) for n in range(len(ticks) - 1)] == ticks[:-1]
    depth = max(accumulate((bracket == "(") - (bracket == ")") for bracket in expression), default=0)
    assert depth <= 2 * len(runs).bit_length() + 2


def make_segment(index: int, start_tick: int, runs: tuple[tuple[int, int], ...]) -> SegmentPlan:
    count = sum(frames for frames, _ in runs)
    return SegmentPlan(
        index=index,
        first_frame=0,
        first_pts=-5,
        last_pts=9,
        seek_ticks=(3,),
        repeats=(1,) * count,
        checksums=(0xFFFFFFFF,) * count,
        start_tick=start_tick,
        runs=runs,
    )


@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=50),
    st.sampled_from([25, 1001, 24_000, 90_000, 1_000_000]),
)
def test_concat_starts_round_to_their_ticks(lengths: list[int], timescale: int) -> None:
    starts = list(accumulate(lengths, initial=0))
    segments = [
        make_segment(n, start, ((1, end - start),)) for n, (start, end) in enumerate(pairwise(starts))
    ]
    text = concat_list([f"{n}.mp4" for n in range(len(segments))], segments, timescale=timescale)
    microseconds = 0
    for start, line in zip(
        starts, [line for line in text.splitlines() if line.startswith("duration")], strict=False
    ):
        assert round(Fraction(microseconds * timescale, 1_000_000)) == start
        microseconds += int(line.removeprefix("duration ").replace(".", ""))


@given(ticks_lists, st.integers(0, 3), st.data())
def test_decoding_times_make_both_durations_of_mp4_right(
    ticks: list[int], depth: int, data: st.DataObject
) -> None:
    """Against the MP4 muxer's own rules, for whatever order the encoder delivers frames in."""
    *pts, total = ticks
    depth = min(depth, len(pts) - 1)
    order = _reorder(list(range(len(pts))), depth, data)
    shown = [pts[number] for number in order]
    # As encoders do: sorted timestamps, `depth` frames late.
    delay = pts[depth]
    decoded = [pts[n] - delay if n < depth else pts[n - depth] for n in range(len(pts))]
    held_back = sum(1 for dts in decoded if dts < 0)
    expression, duration = decoding_times(
        held_back=held_back,
        natural_delay=-decoded[0],
        greatest_pts=pts[-1],
        last_pts=shown[-1],
        last_dts=decoded[-1],
        total_ticks=total,
    )
    if expression is not None:
        delay = int(re.findall(r"-(\d+)", expression)[0])
        decoded = [
            -delay if n == 0 else n - held_back if n < held_back else decoded[n] for n in range(len(pts))
        ]
    assert all(before < after for before, after in pairwise(decoded))
    assert all(dts <= at for dts, at in zip(decoded, shown, strict=True))
    assert duration >= 1
    # The media's duration, and the edit list's.
    assert decoded[-1] + duration - decoded[0] == total
    ends = [
        at + (total - at if at == pts[-1] and n < len(shown) - 1 else 1) for n, at in enumerate(shown[:-1])
    ]
    assert max([*ends, shown[-1] + duration]) == total


def _reorder(numbers: list[int], depth: int, data: st.DataObject) -> list[int]:
    """A decoding order in which no frame comes more than `depth` places after its turn of being shown."""
    order: list[int] = []
    waiting = numbers.copy()
    while waiting:
        # The frame shown first among those waiting may be put off while its place still allows.
        latest = waiting[0] + depth
        reach = len(waiting) if len(order) < latest else 1
        choice = data.draw(st.integers(0, min(reach, depth + 1) - 1)) if order else 0
        order.append(waiting.pop(choice))
    for place, number in enumerate(order):
        if place - bisect_left(numbers, number) > depth:
            return numbers
    return order


@pytest.mark.parametrize(
    ("width", "height", "bit_depth", "codec"),
    [
        (960, 544, 8, "h264"),
        (4096, 2304, 8, "h264"),
        (4112, 2304, 8, "hevc"),
        (8192, 1152, 8, "h264"),
        (8720, 64, 8, "hevc"),
        (960, 544, 10, "hevc"),
    ],
)
def test_codec(width: int, height: int, bit_depth: int, codec: str) -> None:
    assert choose_codec(FrameFormat(width=width, height=height, bit_depth=bit_depth)) == codec


@pytest.mark.parametrize(
    ("size", "ratio", "expected"),
    [
        ((1920, 1080), "1", (640, 360)),
        ((1080, 1920), "1", (360, 640)),
        ((320, 240), "1", (320, 240)),
        ((2880, 2304), "64/45", (640, 360)),
        ((16384, 4), "1", (640, 1)),
    ],
)
def test_thumbnail_size(size: tuple[int, int], ratio: str, expected: tuple[int, int]) -> None:
    assert thumbnail_size(*size, Fraction(ratio)) == expected


def test_plans_survive_json() -> None:
    segment = make_segment(3, 7, ((2, 5), (1, 6)))
    assert SegmentPlan.from_json(segment.to_json()) == segment
    assert list(segment.output_ticks()) == [0, 5, 10]
    assert segment.duration_ticks == 16


@pytest.mark.parametrize(
    ("format_name", "file_start", "video_start", "expected"),
    [
        ("mov,mp4,m4a,3gp,3g2,mj2", Fraction(0), Fraction(37, 100), Fraction(0)),
        ("mpegts", Fraction(14, 10), Fraction(14, 10), Fraction(14, 10)),
        # Known to the microsecond only.
        ("mpegts", Fraction("1.433333"), Fraction(129_000, 90_000), Fraction(129_000, 90_000)),
        ("mov,mp4,m4a,3gp,3g2,mj2", Fraction(-1, 5), Fraction(0), Fraction(-1, 5)),
        # What an Opus decoder warms up with is no part of what is heard.
        ("matroska,webm", Fraction(-7, 1000), Fraction(7, 1000), Fraction(0)),
        ("avi", Fraction(1), Fraction(0), Fraction(0)),
    ],
)
def test_the_moment_that_becomes_zero(
    format_name: str, file_start: Fraction, video_start: Fraction, expected: Fraction
) -> None:
    assert input_start(format_name, file_start, video_start) == expected
