"""Users take turns: nobody waits for another's many renders, nobody runs more than their cap."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from itertools import pairwise, permutations
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, update

from app import migrations
from app.accounts import queries as account_queries
from app.accounts.tables import User
from app.files.tables import File
from app.platform.database import Database, database_now
from app.platform.media.info import VideoProperties
from app.platform.media.limits import MediaLimits
from app.platform.secrets import new_id
from app.platform.settings import Settings
from app.platform.work_kinds import WorkKind, WorkQueue
from app.renders import queries as render_queries
from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment
from app.work import claiming
from app.work.ledger import WorkLedger
from app.work.planning import PlannedSegment
from app.work.queries import Claim
from models.catalog import DEFAULT_ENGINE, get_engine
from tests.integration.rows import a_file, a_render
from tests.servers.postgres import PostgresServer

FACTS = VideoProperties(width=64, height=48, frame_rate=Fraction(25), duration_seconds=Fraction(2), frames=50)
LIMITS = MediaLimits.from_settings(Settings())

Emptied: TypeAlias = Callable[[], Database]

on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


def add_user(database: Database, *, cap: int | None = None) -> str:
    with database.write() as session:
        user = account_queries.add_user(session, user_id=new_id(), name=new_id())
        user.max_running_segments = cap
        session.add(a_file(user.id))
        return user.id


def add_render(database: Database, user_id: str, *, segments: int = 0, priority: int = 0) -> str:
    """A queued render of the user, or with segments one that is prepared."""
    with database.write() as session:
        file = session.scalars(select(File).where(File.user_id == user_id)).one()
        render = a_render(session, file, engine=get_engine(DEFAULT_ENGINE))
        render.priority = priority
        if segments:
            render.status = RenderStatus.PROCESSING
        for position in range(segments):
            session.add(
                Segment(
                    id=new_id(),
                    render_id=render.id,
                    position=position,
                    status=SegmentStatus.WAITING,
                    created_at=datetime.now(UTC),
                    plan="",
                    frames=10,
                )
            )
        return render.id


def make(database: Database, *queues: WorkQueue, cap: int | None = None) -> WorkLedger:
    return WorkLedger(
        database=database,
        worker="worker",
        lease_seconds=600,
        max_attempts=3,
        max_running_segments=cap,
        queues=queues or tuple(WorkQueue),
    )


def owner(database: Database, claim: Claim | None) -> str:
    assert claim is not None
    with database.read() as session:
        return session.get_one(Render, claim.render_id).user_id


def prepare(ledger: WorkLedger, claim: Claim, *, segments: int = 1) -> None:
    ledger.prepared(
        claim,
        plan="",
        source=FACTS,
        output=FACTS,
        cost=1.0,
        warnings=[],
        segments=[PlannedSegment(frames=10, plan="") for _ in range(segments)],
    )


def test_segments_are_claimed_in_turns_of_their_users(database: Database) -> None:
    many, few = add_user(database), add_user(database)
    add_render(database, many, segments=6)
    add_render(database, few, segments=2)
    gpu = make(database, WorkQueue.GPU)
    order = [owner(database, gpu.claim()) for _ in range(8)]
    assert sorted(order[:2]) == sorted([many, few])
    assert sorted(order[2:4]) == sorted([many, few])
    assert order[4:] == [many] * 4
    assert gpu.claim() is None

    newcomer = add_user(database)
    add_render(database, many, segments=3)
    add_render(database, newcomer, segments=1)
    assert owner(database, gpu.claim()) == newcomer


def test_within_a_user_priority_comes_before_age_and_then_the_order_of_the_video(database: Database) -> None:
    user = add_user(database)
    old, urgent, new = (add_render(database, user, segments=2, priority=priority) for priority in (0, 5, 0))
    gpu = make(database, WorkQueue.GPU)
    claims = [gpu.claim() for _ in range(6)]
    assert [claim.render_id for claim in claims if claim] == [urgent] * 2 + [old] * 2 + [new] * 2
    with database.read() as session:
        positions = [session.get_one(Segment, claim.segment_id).position for claim in claims if claim]
    assert positions == [0, 1] * 3


@pytest.mark.parametrize("queues", [(WorkQueue.CPU,), tuple(WorkQueue)])
def test_one_users_many_renders_do_not_keep_anothers_single_one_from_being_prepared(
    database: Database, queues: tuple[WorkQueue, ...]
) -> None:
    """Neither hundred queued ones, nor a long one whose segments wait, also for a worker that does everything."""
    greedy, modest = add_user(database), add_user(database)
    add_render(database, greedy, segments=50)
    assert make(database, WorkQueue.GPU).claim() is not None
    for _ in range(20):
        add_render(database, greedy)
    single = add_render(database, modest)
    ledger = make(database, *queues)
    claims = [ledger.claim() for _ in range(2)]
    prepared = next(claim for claim in claims if claim and claim.kind is WorkKind.PREPARE)
    assert prepared.render_id == single
    prepare(ledger, prepared)
    claim = make(database).claim()
    assert claim is not None and (claim.kind, claim.render_id) == (WorkKind.UPSCALE, single)


@pytest.mark.parametrize("queues", [(WorkQueue.CPU,), tuple(WorkQueue)])
def test_one_users_many_finishes_do_not_delay_another_user(
    database: Database, queues: tuple[WorkQueue, ...]
) -> None:
    """Neither one that is ready later, nor one's render that is still to be prepared."""
    greedy, modest, newcomer = (add_user(database) for _ in range(3))
    ledger = make(database, *queues)

    def end_all_segments() -> None:
        with database.write() as session:
            session.execute(update(Segment).values(status="done"))

    for priority in (0, 0, 1, 0, 0):
        add_render(database, greedy, segments=1, priority=priority)
    end_all_segments()
    first = ledger.claim()
    assert first is not None and first.kind is WorkKind.FINISH
    with database.read() as session:
        assert session.get_one(Render, first.render_id).priority == 1
    single = add_render(database, modest, segments=1)
    end_all_segments()
    queued = add_render(database, newcomer)

    claims = [ledger.claim() for _ in range(3)]
    kinds = {claim.render_id: claim.kind for claim in claims if claim}
    assert (kinds[single], kinds[queued]) == (WorkKind.FINISH, WorkKind.PREPARE)
    assert [owner(database, ledger.claim()) for _ in range(3)] == [greedy] * 3
    assert ledger.claim() is None


def test_renders_that_fail_while_being_prepared_use_up_turns(database: Database) -> None:
    """On a worker that does everything segments come between them."""
    faulty, other = add_user(database), add_user(database)
    add_render(database, other, segments=10)
    for _ in range(10):
        add_render(database, faulty)
    ledger = make(database)
    kinds = []
    for _ in range(8):
        claim = ledger.claim()
        assert claim is not None
        kinds.append(claim.kind)
        if claim.kind is WorkKind.PREPARE:
            with database.write() as session:
                session.execute(update(Render).where(Render.id == claim.render_id).values(status="failed"))
    assert kinds.count(WorkKind.UPSCALE) >= 4


def test_nobody_runs_more_segments_than_their_cap_and_finishes_are_not_held_back(database: Database) -> None:
    capped, generous, usual = add_user(database, cap=1), add_user(database, cap=4), add_user(database)
    for user in (capped, generous, usual):
        add_render(database, user, segments=6)
    gpu, cpu = make(database, WorkQueue.GPU, cap=2), make(database, WorkQueue.CPU, cap=2)
    assert gpu.ready_units() == {WorkQueue.GPU: 1 + 4 + 2}
    claims = []
    while (claim := gpu.claim()) is not None:
        claims.append(claim)
    assert Counter(owner(database, claim) for claim in claims) == {capped: 1, generous: 4, usual: 2}
    assert gpu.ready_units().total() == 0

    own = next(claim for claim in claims if owner(database, claim) == capped)
    gpu.segment_done(own, storage_key="done")
    assert gpu.ready_units() == {WorkQueue.GPU: 1}
    assert owner(database, gpu.claim()) == capped
    ended = add_render(database, capped, segments=1)
    with database.write() as session:
        session.execute(update(Segment).where(Segment.render_id == ended).values(status="done"))
    finish = cpu.claim()
    assert finish is not None and (finish.kind, finish.render_id) == (WorkKind.FINISH, ended)


def test_positions_are_the_order_in_which_renders_are_prepared(database: Database) -> None:
    first, second, third = users = [add_user(database) for _ in range(3)]
    cpu = make(database, WorkQueue.CPU)
    for user in (second, first):  # whose turns are over; the third user never had one
        add_render(database, user)
        cpu.claim()
    queued = [
        add_render(database, user, priority=priority)
        for user, priority in [(first, 0), (first, 1), (first, 0), (second, 0), (third, 0), (third, 2)]
    ]

    def positions() -> dict[str, int]:
        with database.read() as session:
            places = [
                render_queries.queue_positions(session, user_id=user, render_ids=queued) for user in users
            ]
            return {render: place for own in places for render, place in own.items()}

    assert len(users) == 3
    expected = positions()
    assert expected == positions()
    assert sorted(expected.values()) == [1, 2, 3, 4, 5, 6]
    order = []
    while (claim := cpu.claim()) is not None:
        order.append(claim.render_id)
        later = positions()
        assert all(later[render] <= expected[render] for render in later)
    assert order == sorted(expected, key=lambda render: expected[render])


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emptied]:
    """A database that is emptied for each example."""
    server: PostgresServer | None = None
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('fairness') / 'regen.db'}"
    else:
        server = request.getfixturevalue("postgres_server")
        url = server.create_database(template=request.getfixturevalue("postgres_template"))
    database = Database(url)
    migrations.upgrade(database)

    def emptied() -> Database:
        with database.write() as session:
            for table in (Segment, Render, File, User):
                session.execute(delete(table))
        return database

    yield emptied
    database.close()
    if server is not None:
        server.drop_database(url)


@dataclass
class Queue:
    """How renders to prepare are to be taken, in plain words: by turns of their users, within a user by priority, then
    age. A user's turn is the number of the last claim for them, 0 when there was none."""

    turns: dict[str, int] = field(default_factory=dict)
    queued: list[tuple[str, int, str]] = field(
        default_factory=list
    )  # user, priority, render: the oldest first
    claims: int = 0

    def claim(self) -> str:
        user = min({user for user, _priority, _render in self.queued}, key=lambda one: (self.turns[one], one))
        own = [entry for entry in self.queued if entry[0] == user]
        chosen = max(own, key=lambda entry: entry[1])  # the first of the highest
        self.queued.remove(chosen)
        self.claims += 1
        self.turns[user] = self.claims
        return chosen[2]

    def order(self) -> list[str]:
        copy = Queue(dict(self.turns), list(self.queued), self.claims)
        return [copy.claim() for _ in self.queued]


@settings(max_examples=8, deadline=None)
@given(
    users=st.integers(1, 4),
    steps=st.lists(st.none() | st.tuples(st.integers(0, 3), st.integers(-1, 1)), min_size=8, max_size=24),
)
def test_positions_foretell_the_order_of_claims_whoever_submits_what(
    empty: Emptied, users: int, steps: list[tuple[int, int] | None]
) -> None:
    """Each step is a claim or the submission of a render by some user with some priority. A claim brings everybody one
    forward; what is submitted moves back only what it goes ahead of."""
    database = empty()
    ids = sorted(add_user(database) for _ in range(users))
    model, cpu = Queue(dict.fromkeys(ids, 0)), make(database, WorkQueue.CPU)

    def positions() -> dict[str, int]:
        with database.read() as session:
            queued = session.scalars(select(Render.id).where(Render.status == "queued")).all()
            places = [
                render_queries.queue_positions(session, user_id=user, render_ids=queued) for user in ids
            ]
            return {render: place for own in places for render, place in own.items()}

    before: dict[str, int] = {}
    for step in steps:
        if step is None:
            claim = cpu.claim()
            assert (claim and claim.render_id) == (model.claim() if model.queued else None)
        else:
            user, priority = ids[step[0] % users], step[1]
            new = add_render(database, user, priority=priority)
            model.queued.append((user, priority, new))
        after = positions()
        assert after == {render: place for place, render in enumerate(model.order(), start=1)}
        for render, place in before.items():
            if step is None:
                assert render not in after or after[render] == place - 1
            else:
                assert after[render] == place or after[new] < after[render] > place
        before = after


@settings(max_examples=8, deadline=None)
@given(
    users=st.lists(
        st.tuples(
            st.none() | st.integers(1, 3),
            st.lists(st.tuples(st.integers(1, 4), st.integers(-2, 2)), min_size=1, max_size=3),
        ),
        min_size=1,
        max_size=4,
    ),
    ends=st.randoms(use_true_random=False),
)
def test_every_segment_is_claimed_within_its_bound(
    empty: Emptied,
    users: list[tuple[int | None, list[tuple[int, int]]]],
    ends: object,
) -> None:
    """A segment with k of its own user's before it is claimed within (k + 1) turns, and in a turn everybody who may be
    served is served once: no later than after (k + 1) times as many claims as there are users."""
    database = empty()
    gpu = make(database, WorkQueue.GPU)
    caps, waiting, running = {}, Counter[str](), []
    for cap, works in users:
        user = add_user(database, cap=cap)
        caps[user] = cap
        for segments, priority in works:
            add_render(database, user, segments=segments, priority=priority)
            waiting[user] += segments
    passed_over: Counter[str] = Counter()  # turns of others since a user was able to be served
    while waiting.total():
        at_work = Counter(user for user, _claim in running)
        able = {
            user
            for user in caps
            if waiting[user] and (caps[user] is None or at_work[user] < (caps[user] or 0))
        }
        claim = gpu.claim()
        if claim is None:
            assert not able
        else:
            user = owner(database, claim)
            assert user in able
            waiting[user] -= 1
            running.append((user, claim))
            for other in able - {user}:
                passed_over[other] += 1
                assert passed_over[other] < len(caps)
            passed_over[user] = 0
        if running and (claim is None or ends.random() < 0.4):  # type: ignore[attr-defined]
            _user, ended = running.pop(ends.randrange(len(running)))  # type: ignore[attr-defined]
            gpu.segment_done(ended, storage_key="done")


@on_postgresql
def test_workers_at_once_keep_the_caps(database: Database) -> None:
    capped, *free = [add_user(database, cap=2), *(add_user(database) for _ in range(2))]
    for user in (capped, *free):
        add_render(database, user, segments=32)
    start = threading.Barrier(4)
    most = 0

    def work() -> None:
        nonlocal most
        ledger = make(database, WorkQueue.GPU)
        start.wait(20)
        for _ in range(8):
            claim = ledger.claim()
            assert claim is not None
            with database.read() as session:
                running = (
                    select(Segment.id)
                    .join(Render)
                    .where(Render.user_id == capped, Segment.status == "running")
                )
                most = max(most, len(session.scalars(running).all()))
            if owner(database, claim) == capped:
                ledger.segment_done(claim, storage_key="done")

    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(work) for _ in range(4)]:
            future.result(timeout=60)
    assert 1 <= most <= 2
    with database.read() as session:
        assert max(session.scalars(select(Segment.attempt))) == 1


@dataclass(frozen=True, kw_only=True)
class Served:
    """One claim, from before it was asked for until it was there. Its turn was taken somewhere in between."""

    user: str
    began: float
    ended: float


@on_postgresql
def test_workers_at_once_share_the_turns(database: Database) -> None:
    """Whatever holds up one of them in the middle of a claim: meanwhile the user it serves is passed over."""
    users = [add_user(database) for _ in range(4)]
    for user in users:
        add_render(database, user, segments=32)
    start = threading.Barrier(2)

    def work() -> list[Served]:
        ledger = make(database, WorkQueue.GPU)
        start.wait(20)
        served = []
        for _ in range(16):
            began = time.monotonic()
            claim = ledger.claim()
            ended = time.monotonic()
            assert claim is not None
            served.append(Served(user=owner(database, claim), began=began, ended=ended))
        return served

    with ThreadPoolExecutor(2) as threads:
        workers = [threads.submit(work) for _ in range(2)]
        claims = [claim for worker in workers for claim in worker.result(timeout=60)]
    for user, other in permutations(users, 2):
        own = sorted((claim for claim in claims if claim.user == user), key=lambda claim: claim.began)
        for first, second in pairwise(own):
            until = max(first.ended, second.ended)
            assert any(
                claim.user == other and claim.ended > first.began and claim.began < until for claim in claims
            ), "one was served twice, and another neither in between nor just then"
    with database.read() as session:
        assert max(session.scalars(select(Segment.attempt))) == 1


@on_postgresql
def test_a_capped_user_who_is_being_served_is_waited_for(database: Database) -> None:
    """Else the only user's work would look like nothing to do; without the lock the cap would be exceeded."""
    user = add_user(database, cap=2)
    add_render(database, user, segments=4)
    ledger = make(database, WorkQueue.GPU)
    with ThreadPoolExecutor(2) as threads, database.write() as session:
        assert claiming.claim_segment(session, worker="by hand", lease_seconds=30) is not None
        others = [threads.submit(ledger.claim) for _ in range(2)]
        session.execute(select(database_now()))
        session.commit()
        claims = [other.result(timeout=20) for other in others]
    assert sorted(claim is None for claim in claims) == [False, True]
