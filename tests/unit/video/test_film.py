"""Which frames of a telecined stream are the film's, and when they are shown."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.platform.media.rates import Retime
from worker.video.film import SETTLING_FRAMES, Film, film_of
from worker.video.timeline import SourceTimeline, plan_output_timeline

RATE = Fraction(24000, 1001)
FIELD = Fraction(1001, 60000)
# How many fields a frame of the stream lasts, and whether it repeats the one before.
HARD = [(2, False), (2, False), (2, True), (2, False), (2, False)]
SOFT = [(3, False), (2, False)]
THIRTY = [(2, False)]

Stream = list[tuple[int, bool]]


def make(stream: Stream, noise: Sequence[float] = (0.0,)) -> tuple[SourceTimeline, list[float]]:
    """The stream's times, and the differences of its frames: of a repeat only the noise."""
    pts = list(accumulate((fields for fields, _ in stream), initial=0))
    differences = [noise[at % len(noise)] + (0 if repeats else 12) for at, (_, repeats) in enumerate(stream)]
    return SourceTimeline(time_base=FIELD, pts=pts[:-1], end_pts=pts[-1]), differences


def repeated(rhythm: Stream, frames: int, first: int = 0) -> Stream:
    return [rhythm[(first + at) % len(rhythm)] for at in range(frames)]


def slots_of(film: Film) -> list[int]:
    assert film.timeline.time_base == Fraction(1, 24000)
    assert all(pts % 1001 == 0 for pts in film.timeline.pts)
    return [pts // 1001 for pts in film.timeline.pts]


@given(
    rhythm=st.sampled_from([HARD, SOFT]),
    first=st.integers(0, 4),
    frames=st.one_of(st.integers(1, 60), st.integers(500, 1100)),
    noise=st.lists(st.floats(0, 1.5), min_size=1, max_size=7),
)
@settings(max_examples=80, deadline=None)
def test_a_regular_rhythm_loses_only_repeats(
    rhythm: Stream, first: int, frames: int, noise: list[float]
) -> None:
    stream = repeated(rhythm, frames, first)
    film = film_of(*make(stream, noise), rate=RATE)
    # A repeat at the very start is of a frame that is not there.
    kept = [at for at, (_, repeats) in enumerate(stream) if not (repeats and at)]
    assert [number - stream[number][1] * (number > 0) for number in film.numbers] == kept
    assert slots_of(film) == list(range(len(kept)))
    assert film.timeline.end_pts == 1001 * len(kept)


@given(
    passages=st.lists(
        st.tuples(st.sampled_from([HARD, SOFT, THIRTY, [(7, False)]]), st.integers(1, 90), st.integers(0, 4)),
        min_size=1,
        max_size=8,
    ),
    noise=st.lists(st.floats(0, 40), min_size=1, max_size=9),
)
@settings(max_examples=80, deadline=None)
def test_no_frame_is_far_from_its_time(passages: list[tuple[Stream, int, int]], noise: list[float]) -> None:
    stream = [one for rhythm, frames, first in passages for one in repeated(rhythm, frames, first)]
    source, differences = make(stream, noise)
    film = film_of(source, differences, rate=RATE)
    slots = slots_of(film)
    assert all(before < after for before, after in pairwise(slots))
    assert film.numbers[0] == slots[0] == 0
    for number, slot in zip(film.numbers, slots, strict=True):
        assert abs(slot / RATE - source.pts[number] * FIELD) <= 1 / RATE
    assert abs(film.timeline.end_pts * Fraction(1, 24000) - source.end_pts * FIELD) <= 2 / RATE


@given(
    passages=st.lists(
        st.tuples(st.sampled_from([HARD, SOFT, THIRTY]), st.integers(1, 400), st.integers(0, 4)),
        min_size=1,
        max_size=6,
    ),
    noise=st.lists(st.floats(0, 40), min_size=1, max_size=9),
    share=st.floats(0.01, 1),
)
@settings(max_examples=40, deadline=None)
def test_what_is_settled_does_not_change(
    passages: list[tuple[Stream, int, int]], noise: list[float], share: float
) -> None:
    stream = [one for rhythm, frames, first in passages for one in repeated(rhythm, frames, first)]
    source, differences = make(stream, noise)
    seen = max(1, round(share * len(stream)))
    # As while the stream is being read: when the last frame ends is a guess.
    start = replace(source, pts=source.pts[:seen], end_pts=source.pts[seen - 1] + 2)
    partial = film_of(start, differences[:seen], rate=RATE)
    whole = film_of(source, differences, rate=RATE)
    assert partial.settled_frames > seen - 2 * SETTLING_FRAMES - 1

    def settled(film: Film) -> list[tuple[int, int]]:
        shown = zip(film.numbers, slots_of(film), strict=True)
        return [one for one in shown if one[0] < partial.settled_frames]

    assert settled(partial) == settled(whole)


@pytest.mark.parametrize("cut", range(31, 41))
def test_a_cut_in_the_rhythm_loses_nothing(cut: int) -> None:
    stream = [*repeated(HARD, cut), (2, False), *repeated(HARD, 49, 1)]
    film = film_of(*make(stream), rate=RATE)
    assert film.numbers == [at for at, (_, repeats) in enumerate(stream) if not repeats]


def test_of_thirty_moments_those_are_lost_that_differ_least() -> None:
    stream = repeated(THIRTY, 100)
    source, differences = make(stream)
    for number in range(3, 100, 5):
        differences[number] = 6
    film = film_of(source, differences, rate=RATE)
    assert set(range(100)) - set(film.numbers) <= set(range(3, 100, 5))
    assert len(film.numbers) == pytest.approx(80, abs=1)


def test_a_pause_shows_the_last_frame_for_as_long() -> None:
    film = film_of(*make([(2, False), (250, False), (3, False)]), rate=RATE)
    assert film.numbers == [0, 1, 2]
    assert slots_of(film)[2] == pytest.approx(252 / 2.5, abs=1)


def test_what_is_interpolated_is_between_neighbours_of_the_stream() -> None:
    stream = repeated(HARD, 5)
    film = film_of(*make(stream), rate=RATE)
    doubled = plan_output_timeline(film.timeline, target_fps=2 * RATE, retime=Retime.BLEND)
    among = film.among_all(doubled, len(stream))
    assert (among.ticks, among.end_tick) == (doubled.ticks, doubled.end_tick)
    assert among.repeats == [1, 1, 0, 1, 2]
    # After the repeat of the second frame, not before it.
    assert [len(phases) for phases in among.between] == [1, 0, 1, 1, 0]


def test_pictures_that_the_film_repeats_keep_their_number() -> None:
    """Animation on threes, whose own repeats differ less than those of the telecine."""
    stream = repeated(HARD, 300)
    source, differences = make(stream)
    drawn = 0
    for number, (_, repeats) in enumerate(stream):
        drawn += not repeats
        differences[number] = 1.5 if repeats else 12 if drawn % 3 == 1 else 0.2
    film = film_of(source, differences, rate=RATE)
    assert film.numbers == [at for at, (_, repeats) in enumerate(stream) if not repeats]
