"""Statuses only move forward."""

from hypothesis import given
from hypothesis import strategies as st

from app.renders.statuses import RenderStatus, SegmentStatus

FORWARD = [RenderStatus.QUEUED, RenderStatus.PENDING, RenderStatus.PROCESSING]


@given(st.lists(st.sampled_from(RenderStatus), min_size=1))
def test_no_walk_along_allowed_moves_comes_back(wishes: list[RenderStatus]) -> None:
    status, visited = RenderStatus.QUEUED, [RenderStatus.QUEUED]
    for wish in wishes:
        if status.may_become(wish):
            status = wish
            visited.append(status)
    assert len(visited) == len(set(visited))
    assert visited[: len(FORWARD)] == [*FORWARD[: len(visited)]] or visited[-1] is RenderStatus.FAILED


def test_final_statuses_are_the_ones_without_a_move() -> None:
    for status in RenderStatus:
        assert status.is_final is not any(status.may_become(other) for other in RenderStatus)


def test_a_done_segment_stays_done() -> None:
    assert not any(SegmentStatus.DONE.may_become(other) for other in SegmentStatus)
