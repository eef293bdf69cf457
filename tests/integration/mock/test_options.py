from datetime import UTC, datetime

import pytest

from app.mock.options import MockOptions, Transitions
from app.mock.repeatable import Repeatable
from app.platform.errors import InvalidRequest

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", ["instant", "seconds:0", "seconds:1.5", "polls:1", "polls:20"])
def test_transitions_are_written_as_they_are_read(text):
    assert str(Transitions.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "at once", "instant:1", "polls:0", "polls:1.5", "seconds:-1", "seconds:nan", "seconds:1e9"]
)
def test_transitions_that_are_none(text):
    with pytest.raises(InvalidRequest, match="transitions"):
        Transitions.parse(text)


def test_ids_depend_on_the_scope_and_not_on_what_happens_beside_it():
    def ids(*, beside: int) -> list[str]:
        source = Repeatable(seed=3, start=START)
        made = []
        for _request in range(2):
            for _id in range(beside):
                source.new_id()
            with source.request():
                made += [source.new_id(), source.new_id()]
        return made

    assert ids(beside=0) == ids(beside=5)
    assert len(set(ids(beside=0))) == 4


def test_what_runs_beside_the_requests_is_never_told_an_earlier_time_than_they_were():
    source = Repeatable(seed=0, start=START)
    assert source.now() == START
    for second in range(3):
        with source.request():
            assert (source.now() - START).total_seconds() == second
    with source.scope("a render", at=START):
        assert source.now() == START
    assert (source.now() - START).total_seconds() == 2


def test_without_a_start_the_time_is_the_machines():
    source = Repeatable(seed=MockOptions().seed, start=MockOptions().clock)
    before = datetime.now(UTC)
    with source.request():
        assert before <= source.now() <= datetime.now(UTC)
