"""The work ledger: a worker's interface to units of work. Claims a unit, renews its lease, reports its outcome.

Each method is one short transaction. ReadyUnits counts the units that became claimable through it, by queue, so that
the caller can wake workers after the commit.
"""

import socket
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import structlog
from sqlalchemy.orm import Session

from app.platform.database import Database
from app.platform.errors import FfmpegInterrupted, LeaseLost, PermanentError
from app.platform.media.info import VideoProperties
from app.platform.retry_policies import WORK_FAILED, WORK_LEASE_EXPIRED, WORK_OUTAGE
from app.platform.work_kinds import WorkKind, WorkQueue
from app.renders.transitions import cancel_overdue, fail_render
from app.work import (
    claimable,
    claiming,
    failed_attempts,
    periodic_tasks,
    planning,
    worker_queries,
    worker_standing,
)
from app.work import queries as work_queries
from app.work.planning import PlannedSegment
from app.work.queries import AttemptOutcome, Claim, Job, ReadyUnits
from app.work.worker_standing import Standing
from app.work.workers import FORGOTTEN_AFTER_SECONDS

# Outages in a row of one unit of work while other work of its kind succeeds: with the pauses between them
# they take at least seven minutes. Then the unit itself is at fault.
MOST_LONE_OUTAGES = 12
SWEEP = "sweep"

log = structlog.get_logger(__name__)


class WorkLedger:
    """One worker's ledger. `worker` names it in the rows that it holds; it claims the work of `queues`."""

    def __init__(
        self,
        *,
        database: Database,
        worker: str,
        lease_seconds: float,
        max_attempts: int,
        max_running_segments: int | None = None,
        max_running_renders: int | None = None,
        queues: Iterable[WorkQueue] = tuple(WorkQueue),
        machine: str | None = None,
        engines: Collection[str] = (),
        lacked_codecs: Collection[str] = (),
        precisions: Collection[str] = (),
    ) -> None:
        """`max_running_segments` and `max_running_renders` are the caps of users without their own.

        `machine` is shared by workers that fail together: by default the host's name. `engines` are those
        with which it upscales; empty for all. `lacked_codecs` are those of renders that it cannot encode,
        `precisions` those in which it upscales; empty for any.
        """
        self.database = database
        self.worker = worker
        self.machine = machine or socket.gethostname()
        self.engines = tuple(engines)
        self.lacked_codecs = tuple(lacked_codecs)
        self.measures_vmaf = True
        """Whether it can search for a quality, as some renders ask for."""
        self.precisions = tuple(precisions)
        self.left_to_others: frozenset[tuple[str, str]] = frozenset()
        """The engines and precisions of renders that other workers go on with, which have those precisions."""
        self.queues = frozenset(queues)
        self.lease_seconds = lease_seconds
        self.max_attempts = max_attempts
        self.max_running_segments = max_running_segments
        self.max_running_renders = max_running_renders

    def claim(self, among: Collection[WorkKind] = tuple(WorkKind)) -> Job | None:
        """The most urgent unit of its queues that is `among` these kinds: a render to finish, else a segment, else a
        render to prepare.

        Users are served in rotation for each kind. A worker also prepares a render before it claims a segment or
        finishes a render, where that render's user would otherwise wait for all segments or finishes of others.
        """
        kinds = [kind for kind in WorkKind if kind in among and kind.queue in self.queues]
        if not kinds:
            return None
        lease: dict[str, Any] = {"worker": self.worker, "lease_seconds": self.lease_seconds}
        of_renders = {**lease, "render_cap": self.max_running_renders}
        of_segments = {**lease, "cap": self.max_running_segments}
        of_segments |= {"engines": self.engines, "lacked_codecs": self.lacked_codecs}
        of_segments["measures_vmaf"] = self.measures_vmaf
        of_segments["left_to_others"] = self.left_to_others
        with self.database.write() as session:
            urgent = partial(claiming.claim_urgent_prepare, session, **of_renders)
            first = urgent if WorkKind.PREPARE in kinds else None
            claims: dict[WorkKind, Callable[[], Job | None]] = {
                WorkKind.FINISH: partial(claiming.claim_finish, session, first=first, **lease),
                WorkKind.UPSCALE: partial(claiming.claim_segment, session, first=first, **of_segments),
                WorkKind.PREPARE: partial(claiming.claim_prepare, session, **of_renders),
            }
            for kind in kinds:
                job = claims[kind]()
                if job is not None:
                    worker_queries.take_unit(session, name=self.worker, claim=job)
                    return job
        return None

    def agree_on_precision(self, claim: Claim, own: str) -> str:
        """Return in what the render's segments are computed: `own` if this worker is the first to upscale it."""
        with self.database.write() as session:
            return work_queries.agree_on_precision(session, render_id=claim.render_id, own=own)

    def renew(self, claim: Claim, *, frames_done: int) -> bool:
        """Extend the lease. False when it is lost: the worker stops and reports nothing."""
        with self.database.write() as session:
            return work_queries.renew(
                session, claim, lease_seconds=self.lease_seconds, frames_done=frames_done
            )

    def prepared(
        self,
        claim: Claim,
        *,
        plan: str,
        source: VideoProperties,
        output: VideoProperties,
        cost: float,
        warnings: Iterable[str],
        segments: Sequence[PlannedSegment],
        playlist: Mapping[str, Any] | None = None,
    ) -> ReadyUnits:
        """Move the render to `processing`, with its segments waiting; those released before stay. Raises LeaseLost.

        `playlist`: of `planning.playlist_values`, if it can be watched.
        """
        values = {"plan": plan, "cost": cost, "input": source, "output": output, **(playlist or {})}
        with self.database.write() as session:
            values["warnings"] = work_queries.all_warnings(session, claim, warnings)
            new = planning.store_plan(session, claim, values=values, segments=segments)
            if new is None:
                raise LeaseLost("The render was given to another worker.")
            self._put_down(session, claim, is_done=True)
        return self._ready_to_finish(claim) or Counter({WorkKind.UPSCALE.queue: new})

    def release_segments(
        self,
        claim: Claim,
        *,
        plan: str,
        segments: Sequence[PlannedSegment],
        first: int,
        unplanned_frames: int,
    ) -> ReadyUnits:
        """Make the render's segments from position `first` on claimable while its video is still being read.

        `plan` is the render's plan so far, `unplanned_frames` the probable number of frames in later
        segments. Raises LeaseLost.
        """
        with self.database.write() as session:
            new = planning.release_segments(
                session,
                claim,
                plan=plan,
                segments=segments,
                first=first,
                unplanned_frames=unplanned_frames,
                lease_seconds=self.lease_seconds,
            )
            if new is None:
                raise LeaseLost("The render was given to another worker.")
        return Counter({WorkKind.UPSCALE.queue: new})

    def segment_done(self, claim: Claim, *, storage_key: str, **made: Any) -> ReadyUnits:
        """Move the segment to `done`; after the render's last one the finish is claimable. `made`: how it was made, see
        `complete_segment`. Raises LeaseLost."""
        with self.database.write() as session:
            if not work_queries.complete_segment(session, claim, storage_key=storage_key, **made):
                raise LeaseLost("The segment was given to another worker.")
            self._put_down(session, claim, is_done=True)
        return self._ready_to_finish(claim)

    def _ready_to_finish(self, claim: Claim) -> ReadyUnits:
        # After the commit: of workers that end at once the last one sees all their writes, and none locks the
        # render. Two may report that the finish is ready; one claims it.
        with self.database.read_columns() as connection:
            may_be = work_queries.may_be_finished(connection, render_id=claim.render_id)
        return Counter({WorkKind.FINISH.queue: 1} if may_be else {})

    def finished(
        self,
        claim: Claim,
        *,
        output_key: str,
        thumbnail_key: str,
        output: VideoProperties,
        cost: float,
        warnings: Iterable[str],
        quality: Mapping[str, Any] | None = None,
        encoded_quality: Mapping[str, Any] | None = None,
        output_bytes: int | None = None,
        playlist: Mapping[str, Any] | None = None,
    ) -> None:
        """Move the render to `completed`. Raises LeaseLost.

        `playlist`: as `prepared` takes it, where it was not known then.
        """
        values: dict[str, Any] = {
            "output_key": output_key,
            "output_bytes": output_bytes,
            "thumbnail_key": thumbnail_key,
            "cost": cost,
            "quality": None if quality is None else dict(quality),
            "encoded_quality": None if encoded_quality is None else dict(encoded_quality),
            "output": output,
            **(playlist or {}),
        }
        with self.database.write() as session:
            values["warnings"] = work_queries.all_warnings(session, claim, warnings)
            if not work_queries.complete_render(session, claim, values=values):
                raise LeaseLost("The render was given to another worker.")
            self._put_down(session, claim, is_done=True)

    def failed(self, claim: Claim, error: Exception) -> bool:
        """Release the work for another attempt after a growing pause, or end its render as failed.

        A PermanentError ends the render at once, with its message; so does the last of `max_attempts`. But where
        another machine could take the work, one machine's failures end no render (`FailureHistory.is_final`). An ffmpeg
        that was killed from outside while other renders failed too weighs as much as an expired lease.

        Returns whether this worker is now in quarantine: it rather than the work seems to be at fault.
        """
        with self.database.write() as session:
            is_victim = isinstance(error, FfmpegInterrupted) and failed_attempts.others_failed(session, claim)
            outcome = AttemptOutcome.EXPIRY if is_victim else AttemptOutcome.FAILURE
            failures = work_queries.charge(session, claim, outcome)
            if failures is None:
                self._put_down(session, claim)
                return False
            weighed = failures
            if is_victim:
                weighed //= self._expiries_per_failure(session, claim)
            is_permanent = isinstance(error, PermanentError)
            history = failed_attempts.note(
                session,
                claim,
                worker=self.worker,
                machine=self.machine,
                is_permanent=is_permanent,
                lease_seconds=self.lease_seconds,
            )
            fatal = None
            if history.is_final(is_permanent=is_permanent, failures=weighed, max_attempts=self.max_attempts):
                fatal = (
                    error.message
                    if isinstance(error, PermanentError)
                    else f"The video could not be processed: {_step(claim.kind)} failed {failures} times."
                )
            rests = WORK_LEASE_EXPIRED if is_victim else WORK_FAILED
            _give_back(session, claim, fatal=fatal, rest_seconds=rests.pause(failures))
            self._put_down(session, claim)
            is_to_blame = worker_standing.note_failure(
                session, name=self.worker, kind=claim.kind, lease_seconds=self.lease_seconds
            )
            if is_to_blame:
                worker_standing.quarantine(session, name=self.worker, reason=f"{_step(claim.kind)}: {error}")
        return is_to_blame

    def postponed(self, claim: Claim) -> float:
        """Release the work after an outage, for another attempt after a growing pause. Returns the pause in seconds.

        Outages fail a render only if other work of that kind succeeds between them, each time, MOST_LONE_OUTAGES times
        in a row.
        """
        with self.database.write() as session:
            outages = work_queries.charge(session, claim, AttemptOutcome.OUTAGE)
            if outages is None:
                self._put_down(session, claim)
                return 0.0
            lone_outages = work_queries.note_outage(session, claim)
            fatal = None
            if lone_outages >= MOST_LONE_OUTAGES:
                fatal = (
                    f"The video could not be processed: {_step(claim.kind)} was postponed {outages} times for lack of "
                    "storage or disk space, while other videos were done."
                )
            seconds = WORK_OUTAGE.pause(outages)
            _give_back(session, claim, fatal=fatal, rest_seconds=seconds)
            self._put_down(session, claim)
            return seconds

    def hand_back(self, claim: Claim) -> None:
        """Release the work when the worker stops: uncharged, for another attempt at once."""
        with self.database.write() as session:
            work_queries.give_back(session, claim)
            self._put_down(session, claim)

    def put_down(self, claim: Claim) -> None:
        """Record that the worker has ended this unit, which it lost to another worker or because its render ended."""
        with self.database.write() as session:
            self._put_down(session, claim)

    def give_back_expired(self) -> Sequence[Claim]:
        """Release the work whose leases have expired.

        Returns the claims that ended in this way. Several expiries count as a failure
        (`failed_attempts.expiries_per_failure`): most workers that die take innocent work with them. From the second
        one on the work pauses, so that a unit that kills its workers leaves them time for other work.
        """
        given_back = []
        with self.database.write() as session:
            for claim in work_queries.expired_claims(session):
                expiries = work_queries.charge(session, claim, AttemptOutcome.EXPIRY)
                if expiries is None:
                    continue
                given_back.append(claim)
                log.warning(
                    "lease_expired",
                    kind=claim.kind.value,
                    render_id=claim.render_id,
                    segment_id=claim.segment_id,
                    attempt=claim.attempt,
                    expiries=expiries,
                )
                fatal, rest_seconds = None, None
                if expiries // self._expiries_per_failure(session, claim) >= self.max_attempts:
                    fatal = (
                        f"The video could not be processed: the worker stopped unexpectedly {expiries} times "
                        f"while {_step(claim.kind)} ran."
                    )
                elif expiries > 1:
                    rest_seconds = WORK_LEASE_EXPIRED.pause(expiries - 1)
                _give_back(session, claim, fatal=fatal, rest_seconds=rest_seconds)
        return given_back

    def _expiries_per_failure(self, session: Session, claim: Claim) -> int:
        return failed_attempts.expiries_per_failure(session, claim, lease_seconds=self.lease_seconds)

    def standing(self) -> Standing:
        """The reasons that keep this worker from claiming."""
        with self.database.read() as session:
            return worker_standing.standing_of(session, name=self.worker)

    def recover(self) -> None:
        """End this worker's quarantine."""
        with self.database.write() as session:
            worker_standing.recover(session, name=self.worker)

    def take_sweep(self, *, every_seconds: float) -> bool:
        """Whether this worker should sweep now; one worker does, every `every_seconds`."""
        with self.database.write() as session:
            is_taken = periodic_tasks.claim_run(
                session, SWEEP, worker=self.worker, every_seconds=every_seconds
            )
            if is_taken:
                worker_queries.remove_silent(session, silent_for=FORGOTTEN_AFTER_SECONDS)
                failed_attempts.forget(session, older_than_seconds=FORGOTTEN_AFTER_SECONDS)
        return is_taken

    def leave_sweep(self) -> None:
        """Make the sweep due again for any worker, after this worker's sweep failed."""
        with self.database.write() as session:
            periodic_tasks.release_run(session, SWEEP, worker=self.worker)

    def ready_units(self) -> ReadyUnits:
        with self.database.read() as session:
            return claimable.ready_units(
                session, cap=self.max_running_segments, render_cap=self.max_running_renders
            )

    def cancel_overdue(self) -> None:
        """Cancel the renders that were to be done by now."""
        for render_id in cancel_overdue(self.database):
            log.info("render_overdue", render_id=render_id)

    def _put_down(self, session: Session, claim: Claim, *, is_done: bool = False) -> None:
        # The last lock of each transaction: several units of one worker may end at once.
        worker_queries.put_down_unit(session, name=self.worker, claim=claim, is_done=is_done)


def _give_back(session: Session, claim: Claim, *, fatal: str | None, rest_seconds: float | None) -> None:
    """Release the work for another attempt; with `fatal` end its render with that error."""
    work_queries.give_back(session, claim, rest_seconds=None if fatal else rest_seconds)
    if fatal:
        fail_render(session, render_id=claim.render_id, error=fatal)


def _step(kind: WorkKind) -> str:
    return {
        WorkKind.PREPARE: "reading it",
        WorkKind.UPSCALE: "upscaling a part of it",
        WorkKind.FINISH: "putting the result together",
    }[kind]
