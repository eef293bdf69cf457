"""Stores the result of preparing a render: its plan, and its segments in one run or in several.

Storing a run again changes nothing, so that a new attempt continues where the previous one ended. A segment
whose plan differs from before is made again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from app.platform.database import read_clock
from app.platform.lease import revoke
from app.platform.media.segment_times import SegmentTimes
from app.platform.secrets import new_id
from app.renders import webhook_events
from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment
from app.work.queries import BACK_TO_WAITING, Claim


@dataclass(frozen=True, kw_only=True)
class PlannedSegment:
    """A segment as prepared: the frames it upscales and its plan."""

    frames: int
    plan: str


def playlist_values(times: SegmentTimes | None, sound_key: str | None) -> dict[str, Any]:
    """The columns of a render that its playlist is made of; None: it has none, or no sound."""
    return {
        "is_watchable": times is not None,
        "segment_times": None if times is None else times.as_json(),
        "sound_key": sound_key,
    }


def release_segments(
    session: Session,
    claim: Claim,
    *,
    plan: str,
    segments: Sequence[PlannedSegment],
    first: int,
    unplanned_frames: int,
    lease_seconds: float,
) -> int | None:
    """Make the segments from position `first` on claimable, before later ones are planned.

    Returns how many were new; None when the lease is lost.
    """
    before = _lock(session, claim)
    values = {"status": RenderStatus.PROCESSING, "plan": plan, "unplanned_frames": unplanned_frames}
    if not claim.lease.renew(session, seconds=lease_seconds, **values):
        return None
    new = _store(session, claim.render_id, segments, first=first)
    _tell(session, claim, before)
    return new


def store_plan(
    session: Session, claim: Claim, *, values: dict[str, Any], segments: Sequence[PlannedSegment]
) -> int | None:
    """Store the whole plan, and move the render to `processing` if no segment was released before.

    Returns how many segments were new; None when the lease is lost. May be repeated by the same claim, if a commit
    succeeded without an answer: then all waiting ones count as new, because the first call woke no worker.
    """
    before = _lock(session, claim)
    changed = claim.lease.release(
        session,
        status=RenderStatus.PROCESSING,
        unplanned_frames=None,
        failures=0,
        expiries=0,
        outages=0,
        lone_outages=0,
        postponed_at=None,
        **values,
    )
    if not changed:
        is_stored = claim.lease.has_left(
            session, Render.unplanned_frames.is_(None), status=RenderStatus.PROCESSING
        )
        return _waiting(session, claim.render_id) if is_stored else None
    new = _store(session, claim.render_id, segments, first=0)
    surplus = delete(Segment).where(Segment.render_id == claim.render_id, Segment.position >= len(segments))
    session.execute(surplus.execution_options(synchronize_session=False))
    _tell(session, claim, before)
    return new


def _lock(session: Session, claim: Claim) -> RenderStatus | None:
    """Lock the render's row, before those of its segments. Returns its status."""
    query = select(Render.status).where(Render.id == claim.render_id).with_for_update()
    return session.scalars(query).one_or_none()


def _waiting(session: Session, render_id: str) -> int:
    query = select(func.count()).where(
        Segment.render_id == render_id, Segment.status == SegmentStatus.WAITING
    )
    return session.scalar(query) or 0


def _store(session: Session, render_id: str, segments: Sequence[PlannedSegment], *, first: int) -> int:
    query = select(Segment.position, Segment.id, Segment.plan).where(
        Segment.render_id == render_id, Segment.position >= first, Segment.position < first + len(segments)
    )
    stored = {position: (segment_id, plan) for position, segment_id, plan in session.execute(query)}
    now = read_clock(session)
    rows, changed = [], 0
    for position, segment in enumerate(segments, first):
        if position not in stored:
            rows.append(
                {
                    "id": new_id(),
                    "render_id": render_id,
                    "position": position,
                    "status": SegmentStatus.WAITING,
                    "created_at": now,
                    "plan": segment.plan,
                    "frames": segment.frames,
                }
            )
            continue
        segment_id, plan = stored[position]
        if plan != segment.plan:
            # Its attempts count on, so that a late attempt's file has a different key than the next one's.
            values = {**BACK_TO_WAITING, "plan": segment.plan, "frames": segment.frames, "storage_key": None}
            changed += revoke(session, Segment, Segment.id == segment_id, **values)
    if rows:
        session.execute(insert(Segment), rows)
    return len(rows) + changed


def _tell(session: Session, claim: Claim, before: RenderStatus | None) -> None:
    if before is not RenderStatus.PROCESSING:
        webhook_events.write_event(session, render_id=claim.render_id, status=RenderStatus.PROCESSING)
