"""Whatever order things happen in: statuses move forward, leases end with the work, and nothing is done twice."""

from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete, select, update

from app.platform.database import Database, database_now
from app.platform.errors import LeaseLost, PermanentError, TransientError
from app.platform.media.info import VideoProperties
from app.platform.work_kinds import WorkKind
from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment
from app.renders.transitions import fail_render
from app.work.ledger import WorkLedger
from app.work.planning import PlannedSegment
from app.work.queries import Claim

FACTS = VideoProperties(width=64, height=48, frame_rate=Fraction(25), duration_seconds=Fraction(2), frames=50)
MAX_ATTEMPTS = 2
PICK = st.integers(0, 1000)


def machine(
    database: Database, add_render: Callable[[], Render], ledger: WorkLedger
) -> type[RuleBasedStateMachine]:
    class Work(RuleBasedStateMachine):
        """Claims are kept for ever, so that late reports of long-lost ones are made too."""

        def __init__(self) -> None:
            super().__init__()
            with database.write() as session:
                session.execute(delete(Segment))
                session.execute(delete(Render))
            self.claims: list[Claim] = []
            self.completions: dict[str, int] = {}
            self.renders: dict[str, tuple[RenderStatus, int]] = {}
            self.segments: dict[str, tuple[SegmentStatus, int]] = {}

        def claim_of(self, pick: int) -> Claim:
            # Half of all reports come from the newest claims.
            return (
                self.claims[-1 - pick % min(len(self.claims), 2)]
                if pick % 2
                else self.claims[pick % len(self.claims)]
            )

        @rule()
        def submit(self) -> None:
            if len(self.renders) < 4:
                add_render()

        @rule()
        def claim(self) -> None:
            claim = ledger.claim()
            if claim is None:
                return
            with database.read() as session:
                render = session.get_one(Render, claim.render_id)
                assert not render.status.is_final
                assert claim.kind is not WorkKind.FINISH or render.unplanned_frames is None
            self.claims.append(claim)

        @precondition(lambda self: any(claim.kind is WorkKind.PREPARE for claim in self.claims))
        @rule(pick=PICK, first=st.integers(0, 2))
        def release(self, pick: int, first: int) -> None:
            claims = [claim for claim in self.claims if claim.kind is WorkKind.PREPARE]
            some = [PlannedSegment(frames=10, plan="")]
            with suppress(LeaseLost):
                ledger.release_segments(
                    claims[-1 - pick % min(len(claims), 2)],
                    plan="",
                    segments=some,
                    first=first,
                    unplanned_frames=20,
                )

        @precondition(lambda self: self.claims)
        @rule(pick=PICK, segments=st.integers(1, 3))
        def succeed(self, pick: int, segments: int) -> None:
            claim = self.claim_of(pick)
            with database.read() as session:
                before = session.get_one(Render, claim.render_id).status
            try:
                if claim.kind is WorkKind.PREPARE:
                    planned = [PlannedSegment(frames=10, plan="") for _ in range(segments)]
                    ledger.prepared(
                        claim, plan="", source=FACTS, output=FACTS, cost=1.0, warnings=[], segments=planned
                    )
                elif claim.kind is WorkKind.UPSCALE:
                    ledger.segment_done(claim, storage_key=f"attempt {claim.attempt}")
                else:
                    ledger.finished(
                        claim, output_key="out", thumbnail_key="thumb", output=FACTS, cost=1.0, warnings=[]
                    )
                    if before is not RenderStatus.COMPLETED:
                        self.completions[claim.render_id] = self.completions.get(claim.render_id, 0) + 1
            except LeaseLost:
                pass

        @precondition(lambda self: self.claims)
        @rule(pick=PICK, permanent=st.booleans())
        def fail(self, pick: int, permanent: bool) -> None:
            error = PermanentError("It is damaged.") if permanent else TransientError("It went wrong.")
            ledger.failed(self.claim_of(pick), error)

        @precondition(lambda self: self.claims)
        @rule(pick=PICK)
        def meet_an_outage(self, pick: int) -> None:
            ledger.postponed(self.claim_of(pick))

        @precondition(lambda self: self.claims)
        @rule(pick=PICK)
        def hand_back(self, pick: int) -> None:
            ledger.hand_back(self.claim_of(pick))

        @precondition(lambda self: self.claims)
        @rule(pick=PICK)
        def beat(self, pick: int) -> None:
            claim = self.claim_of(pick)
            renewed = ledger.renew(claim, frames_done=pick % 10)
            with database.read() as session:
                row: Any = session.get(Segment, claim.segment_id) if claim.segment_id else None
                row = row or session.get_one(Render, claim.render_id)
                assert not renewed or row.attempt == claim.attempt

        @rule(soon=st.booleans())
        def let_leases_run_out(self, soon: bool) -> None:
            with database.write() as session:
                past = database_now(plus_seconds=-1)
                session.execute(
                    update(Segment).where(Segment.lease_expires_at.is_not(None)).values(lease_expires_at=past)
                )
                session.execute(
                    update(Render).where(Render.lease_expires_at.is_not(None)).values(lease_expires_at=past)
                )
            if soon:
                ledger.give_back_expired()
                assert ledger.give_back_expired() == []

        @rule()
        def let_pauses_pass(self) -> None:
            with database.write() as session:
                session.execute(update(Segment).values(retry_at=None))
                session.execute(update(Render).values(retry_at=None))

        @precondition(lambda self: self.renders)
        @rule(pick=PICK)
        def cancel(self, pick: int) -> None:
            if pick % 4 == 0:
                with database.write() as session:
                    fail_render(
                        session, render_id=sorted(self.renders)[pick % len(self.renders)], error="Canceled"
                    )

        @invariant()
        def rows_are_sound(self) -> None:
            with database.read() as session:
                for render in session.scalars(select(Render)):
                    status, attempt = self.renders.get(render.id, (RenderStatus.QUEUED, 0))
                    assert render.status is status or reaches(status, render.status)
                    assert render.attempt >= attempt
                    assert render.failures <= MAX_ATTEMPTS
                    assert (render.ended_at is not None) == render.status.is_final
                    is_complete = render.status is RenderStatus.COMPLETED
                    assert self.completions.get(render.id, 0) == int(is_complete)
                    self.renders[render.id] = (render.status, render.attempt)
                    if render.status.is_final:
                        assert render.lease_expires_at is None
                        assert all(
                            row.status in (SegmentStatus.DONE, SegmentStatus.FAILED)
                            for row in render.segments
                        )
                for segment in session.scalars(select(Segment)):
                    before, attempt = self.segments.get(segment.id, (SegmentStatus.WAITING, 0))
                    assert segment.attempt >= attempt
                    assert segment.failures <= MAX_ATTEMPTS
                    assert (
                        before not in (SegmentStatus.DONE, SegmentStatus.FAILED) or segment.status is before
                    )
                    assert (segment.lease_expires_at is not None) == (segment.status is SegmentStatus.RUNNING)
                    if segment.status is SegmentStatus.DONE:
                        assert segment.storage_key == f"attempt {segment.attempt}"
                    self.segments[segment.id] = (segment.status, segment.attempt)

    return Work


def reaches(status: RenderStatus, other: RenderStatus) -> bool:
    """In any number of moves."""
    return any(step is other or reaches(step, other) for step in RenderStatus if status.may_become(step))


def test_rows_stay_sound_in_whatever_order_things_happen(
    database: Database, add_render: Callable[[], Render], make_ledger: Callable[..., WorkLedger]
) -> None:
    ledger = make_ledger(max_attempts=MAX_ATTEMPTS)
    run_state_machine_as_test(
        machine(database, add_render, ledger),
        settings=settings(
            max_examples=6 if database.is_sqlite else 3,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
