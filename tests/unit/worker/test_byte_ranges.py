"""Arithmetic of byte ranges."""

import random

from worker.byte_ranges import ByteRange, merged, pieces, size_of, without


def numbers(ranges: list[ByteRange]) -> set[int]:
    return {number for start, stop in ranges for number in range(start, stop)}


def test_ranges_are_sets_of_bytes() -> None:
    draw = random.Random(1)
    for _ in range(200):
        some, others = ([(at, at + draw.randrange(9)) for at in draw.sample(range(40), 5)] for _ in range(2))
        for result, expected in (
            (merged(some), numbers(some)),
            (without(some, others), numbers(some) - numbers(others)),
            (list(pieces(merged(some), most_bytes=3)), numbers(some)),
        ):
            assert numbers(result) == expected
            assert size_of(result) == len(expected)
            assert result == sorted(result)
            assert all(start < stop for start, stop in result)


def test_near_ranges_are_one() -> None:
    assert merged([(10, 20), (25, 30), (36, 40)], gap=5) == [(10, 30), (36, 40)]
    assert list(pieces([(0, 5), (7, 8)], most_bytes=2)) == [(0, 2), (2, 4), (4, 5), (7, 8)]
