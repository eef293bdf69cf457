"""Few combinations that hold every pair of values of different parameters at least once."""

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import combinations, product
from typing import Any

Case = dict[str, Any]
Pair = frozenset[tuple[str, int]]
# So many combinations are tried for each that is taken.
TRIES = 40
# Of the choices; with others there are more cases.
SEED = 1


def pairwise(
    values: Mapping[str, Sequence[Any]],
    *,
    goes: Callable[[Case], bool],
    first: Sequence[Case] = (),
    seldom: Collection[str] = (),
) -> list[Case]:
    """Cases of all parameters, among them `first`, completed. Of what `goes` refuses, a part of a case too, there is
    none. Parameters that are taken `seldom` have their first value unless another one holds more pairs. The same for
    the same arguments."""
    chance = random.Random(SEED)
    missing = {
        frozenset([(one, i), (two, j)])
        for one, two in combinations(values, 2)
        for (i, a), (j, b) in product(enumerate(values[one]), enumerate(values[two]))
        if goes({one: a, two: b})
    }
    cases: list[Case] = []

    def complete(start: dict[str, int]) -> dict[str, int] | None:
        chosen = dict(start)
        for name in chance.sample(left := [name for name in values if name not in chosen], len(left)):
            places = range(len(values[name]))
            able = [
                place
                for place in (places if name in seldom else chance.sample(places, len(places)))
                if goes(_case(values, {**chosen, name: place}))
            ]
            if not able:
                return None
            chosen[name] = max(able, key=lambda place: _missing_with((name, place), chosen, missing))
        return chosen

    starts = [{name: values[name].index(value) for name, value in case.items()} for case in first]
    while missing or starts:
        start = starts.pop(0) if starts else dict(sorted(min(missing, key=sorted)))
        able = [found for _ in range(TRIES) if (found := complete(start)) is not None]
        if not able:
            # No whole case holds this pair.
            missing.discard(frozenset(start.items()))
            continue
        best = max(
            able, key=lambda found: (len(_pairs(found) & missing), -sum(found[one] > 0 for one in seldom))
        )
        missing -= _pairs(best)
        cases.append(_case(values, best))
    return cases


def _case(values: Mapping[str, Sequence[Any]], chosen: Mapping[str, int]) -> Case:
    return {name: values[name][place] for name, place in chosen.items()}


def _missing_with(one: tuple[str, int], chosen: Mapping[str, int], missing: set[Pair]) -> int:
    return sum(frozenset((one, other)) in missing for other in chosen.items())


def _pairs(chosen: Mapping[str, int]) -> set[Pair]:
    return {frozenset(pair) for pair in combinations(chosen.items(), 2)}
