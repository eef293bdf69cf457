"""Figures of the queue and the throughput, against a count of every moment by itself."""

import random
from datetime import timedelta

import pytest
from sqlalchemy import update

from app.administration.activity import activity
from app.platform.database import read_clock
from app.renders.statuses import RenderStatus
from app.renders.tables import Render


@pytest.fixture
def lives(database, add_render):
    """Renders made within the last thirty hours, most of which have ended: when each was made, taken
    from the queue (None: unknown, or not), ended, and how."""
    chance = random.Random(7)
    with database.read() as session:
        now = read_clock(session)
    lives = []
    for number in range(40):
        made = now - timedelta(seconds=chance.uniform(0, 30 * 3600))
        ended = made + timedelta(seconds=chance.randrange(10, 4 * 3600)) if number % 5 else None
        status = RenderStatus.QUEUED
        if ended is not None and ended < now:
            status = RenderStatus.FAILED if number % 3 == 0 else RenderStatus.COMPLETED
        else:
            ended = None
        started = made + timedelta(seconds=chance.randrange(5, 4000)) if number % 4 else None
        if started is not None and started >= (ended or now):
            started = None
        if started is not None and ended is None:
            status = RenderStatus.PROCESSING
        render = add_render()
        with database.write() as session:
            of_this = update(Render).where(Render.id == render.id)
            session.execute(
                of_this.values(created_at=made, started_at=started, ended_at=ended, status=status)
            )
        # A completed render of which it is not known counts as taken at once.
        if status is RenderStatus.COMPLETED and started is None:
            started = made
        lives.append((made, started, ended, status))
    return lives


@pytest.mark.parametrize("hours", [24, 1])
def test_every_interval(database, lives, hours):
    with database.read() as session:
        figures = activity(session, hours=hours)
    assert len(figures.intervals) <= 96
    assert figures.interval_seconds * len(figures.intervals) >= (hours - 1) * 3600
    for interval in figures.intervals:
        end = interval.ends_at
        begin = end.replace(microsecond=0) - timedelta(
            seconds=int(end.timestamp()) % figures.interval_seconds or figures.interval_seconds
        )
        open_then = [made for made, _, ended, _ in lives if made <= end and (ended is None or ended > end)]
        waiting = [
            made
            for made, started, ended, _ in lives
            if made <= end and ((left := started or ended) is None or left > end)
        ]
        within = [status for _, _, ended, status in lives if ended is not None and begin <= ended < end]
        completed = within.count(RenderStatus.COMPLETED)
        expected = (
            len(open_then),
            max([(end - made).total_seconds() for made in open_then], default=0),
            sum(begin <= made < end for made, *_ in lives),
            completed,
            len(within) - completed,
            50 * completed,
        )
        assert interval.oldest_seconds == pytest.approx(expected[1], abs=0.001)
        assert interval.queued == len(waiting)
        oldest = max([(end - made).total_seconds() for made in waiting], default=0)
        assert interval.oldest_queued_seconds == pytest.approx(oldest, abs=0.001)
        shown = (interval.unfinished, interval.made, interval.completed, interval.failed, interval.frames)
        assert shown == (expected[0], *expected[2:])


def test_nothing_yet(database):
    with database.read() as session:
        figures = activity(session, hours=24)
    assert {(one.unfinished, one.oldest_seconds, one.frames) for one in figures.intervals} == {(0, 0.0, 0)}
    assert {(one.queued, one.oldest_queued_seconds) for one in figures.intervals} == {(0, 0.0)}


def test_a_render_that_a_worker_takes_leaves_the_queue(database, add_render, make_ledger):
    def now():
        with database.read() as session:
            latest = activity(session, hours=1).intervals[-1]
        return latest.unfinished, latest.queued

    first, _second = add_render(), add_render()
    assert now() == (2, 2)
    ledger = make_ledger()
    claim = ledger.claim()
    assert (claim.render_id, now()) == (first.id, (2, 1))
    # What goes back to be prepared again was in the queue once.
    ledger.hand_back(claim)
    assert now() == (2, 1)
