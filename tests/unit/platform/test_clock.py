"""Packets of files whose timestamps start again: which belong together, and how far each part is moved."""

from collections.abc import Sequence
from fractions import Fraction

import pytest

from app.platform.errors import LimitExceeded
from app.platform.media.clock import MAX_EPOCHS, EpochReader

TICKS = 90_000
FRAME, BLOCK = 3600, 1920
VIDEO, SOUND, TEXT = 0, 1, 2


def read(packets: Sequence[tuple[int, int]], *, restarts: bool = True) -> EpochReader:
    """Of (stream, timestamp)."""
    reader = EpochReader(
        dict.fromkeys((VIDEO, SOUND, TEXT), Fraction(1, TICKS)), reference=VIDEO, restarts=restarts
    )
    for stream, at in packets:
        duration = {VIDEO: FRAME, SOUND: BLOCK, TEXT: TICKS}[stream]
        reader.add(stream, pts=at, dts=at, duration=duration, is_steady=stream != TEXT, is_shown=True)
    return reader


def test_sound_of_another_rate_goes_on_where_it_seems_to_step_back() -> None:
    """Five frames to a packet, of which ffmpeg spaces four by the first part's 8 kHz: by 128 ms."""
    reader = EpochReader(dict.fromkeys((VIDEO, SOUND), Fraction(1, TICKS)), reference=VIDEO, restarts=True)
    seeming, parts, packet = 11_520, ((11_520, 10), (1920, 60), (Fraction(1024 * TICKS, 44_100), 60)), 5

    def read_sound(at: int, *, is_stated: bool) -> None:
        reader.add(
            SOUND, pts=at, dts=at, duration=seeming, is_steady=True, is_shown=True, is_stated=is_stated
        )

    for spacing, count in parts:
        for number in range(round(count * spacing / FRAME)):
            at = number * FRAME
            reader.add(VIDEO, pts=at, dts=at, duration=FRAME, is_steady=True, is_shown=True)
        for number in range(count):
            stated = round(number // packet * packet * spacing)
            read_sound(stated + number % packet * seeming, is_stated=number % packet == 0)
    assert reader.count == len(parts)
    assert reader.changes[SOUND] == [(0, 0), (10, 1), (70, 2)]
    found = reader.packet_spacings()[SOUND]
    assert [first for first, _ in found] == [10, 70]
    assert [round(float(ticks), 1) for _, ticks in found] == [1920, 2089.8]


def frames(count: int, start: int = 0) -> list[tuple[int, int]]:
    return [(VIDEO, start + number * FRAME) for number in range(count)]


def blocks(count: int, start: int = 0) -> list[tuple[int, int]]:
    return [(SOUND, start + number * BLOCK) for number in range(count)]


def test_parts_follow_each_other_by_their_pictures() -> None:
    """The second part's sound begins before its picture, and the first part's last sound comes after that."""
    first, second = 126_000, 900
    reader = read(
        [
            *frames(50, first),
            *blocks(90, first),
            *frames(2, second),
            *blocks(4, first + 90 * BLOCK),
            *blocks(94, second - BLOCK),
            *frames(48, second + 2 * FRAME),
        ]
    )
    assert reader.count == 2
    assert reader.shifts() == [0, Fraction(first + 50 * FRAME - second, TICKS)]
    assert reader.changes == {VIDEO: [(0, 0), (50, 1)], SOUND: [(0, 0), (94, 1)], TEXT: []}
    moved = first + 50 * FRAME - second
    assert reader.packet_shifts() == {
        VIDEO: ((0, -first), (50, moved - first)),
        SOUND: ((0, -first), (94, moved - first)),
        TEXT: (),
    }
    assert [(extent.start, extent.end) for extent in reader.extents()] == [
        (first, first + 50 * FRAME),
        (first + 50 * FRAME, first + 100 * FRAME),
    ]


def test_the_last_frame_of_a_part_may_have_no_time_of_its_own() -> None:
    """Program streams: I P B B, of which the P, shown last, has only the time at which it is decoded."""
    reader = EpochReader({VIDEO: Fraction(1, TICKS)}, reference=VIDEO, restarts=True)
    start = 10 * TICKS
    for part_start in (start, 0):
        for number, shown in enumerate((1, None, 2, 3)):
            reader.add(
                VIDEO,
                pts=None if shown is None else part_start + shown * FRAME,
                dts=part_start + number * FRAME,
                duration=FRAME,
                is_steady=True,
                is_shown=True,
            )
    assert reader.shifts() == [0, Fraction(start + 4 * FRAME, TICKS)]


@pytest.mark.parametrize(
    ("packets", "epochs"),
    [
        ([*frames(100), *frames(100, 100 * FRAME + 9 * TICKS)], 1),
        ([*frames(100), *frames(100, 100 * FRAME + 11 * TICKS)], 2),
        ([*frames(100), *frames(100, 99 * FRAME)], 1),
        ([*frames(100), *frames(100, 90 * FRAME)], 2),
        # Sound that was away for a minute, while the picture went on.
        ([*blocks(10), *frames(2000), *blocks(10, 60 * TICKS)], 1),
        # The second part has no sound; the third has.
        ([*frames(100), *blocks(180), *frames(100), *frames(100), *blocks(180)], 3),
        # Subtitles are far apart.
        ([*frames(3000), (TEXT, TICKS), (TEXT, 110 * TICKS)], 1),
        ([*frames(50), *frames(10), (TEXT, 0), *frames(40, 10 * FRAME)], 2),
    ],
)
def test_what_is_a_new_clock(packets: list[tuple[int, int]], epochs: int) -> None:
    assert read(packets).count == epochs
    assert read(packets, restarts=False).count == 1


def test_sound_of_a_later_part_is_moved_with_it() -> None:
    reader = read([*frames(100), *blocks(180), *frames(100), *frames(100), *blocks(180)])
    assert reader.packet_shifts()[SOUND] == ((0, 0), (180, 200 * FRAME))


def test_the_span_is_that_of_all_epochs_and_streams() -> None:
    seconds = 1_000_000
    assert read([*frames(101), *frames(101)]).span == 8 * seconds
    assert read([*frames(101), (TEXT, 9000 * TICKS)], restarts=False).span == 9000 * seconds
    assert read([*frames(101), (TEXT, 9000 * TICKS)]).span == 4 * seconds


def test_gaps_of_more_than_a_minute_are_counted() -> None:
    packets = [(SOUND, at * TICKS) for at in (0, 59, 120, 300)]
    assert read(packets, restarts=False).long_gaps == {VIDEO: 0, SOUND: 2, TEXT: 0}


def test_timestamps_that_start_again_all_the_time_are_refused() -> None:
    with pytest.raises(LimitExceeded, match="start again"):
        read([(VIDEO, 0), (VIDEO, TICKS)] * (MAX_EPOCHS + 1))
