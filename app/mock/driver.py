"""The mock's worker: one thread that runs the work loop over all renders that are due."""

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime

import structlog

from app.mock.claims import LEASE_SECONDS, WORKER_NAME, claim_next_unit, open_renders
from app.mock.faults import ActiveFaults
from app.mock.options import TransitionMode, Transitions
from app.mock.render_state import RenderState, RenderStates
from app.mock.repeatable import Repeatable
from app.mock.results import ResultMaker
from app.mock.work_units import MockUnits, permanent_errors
from app.platform import clock
from app.platform.database import Database
from app.platform.errors import FfmpegCancelled, LeaseLost, PermanentError, RegenError
from app.platform.work_kinds import WorkKind, WorkQueue
from app.previews.service import PreviewJob, PreviewLedger
from app.renders.statuses import RenderStatus
from app.renders.tables import Render
from app.work import worker_queries
from app.work.drain import Drain
from app.work.ledger import WorkLedger
from app.work.loop import WorkLoop, WorkObserver
from app.work.outage_retry import OutageRetry
from app.work.queries import Claim, Job

TICK_SECONDS = 0.05
IDLE_TICK_SECONDS = 5.0
HEARTBEAT_SECONDS = 3.0
# After a pass that raised.
REST_SECONDS = 1.0
SETTLE_SECONDS = 120.0

log = structlog.get_logger(__name__)


class MockDriver(WorkObserver):
    """Decides when each render is due. The work loop does the rest: it runs units and reports their outcome.

    A unit is claimed when a render enters a status and run when the status is over. Start the driver once, and stop it
    before the database is closed; all other methods may be called from any thread.
    """

    def __init__(
        self,
        *,
        database: Database,
        results: ResultMaker,
        faults: ActiveFaults,
        repeatable: Repeatable,
        transitions: Transitions,
    ) -> None:
        self._database = database
        self._results = results
        self._repeatable = repeatable
        self._transitions = transitions
        self._states = RenderStates(faults, clock=repeatable.monotonic)
        self._due_jobs: Iterator[Job] = iter(())
        self._drain = Drain(grace_seconds=0)
        self._ledger = WorkLedger(
            database=database, worker=WORKER_NAME, lease_seconds=LEASE_SECONDS, max_attempts=1
        )
        self._previews = PreviewLedger(
            database=database, worker=WORKER_NAME, lease_seconds=LEASE_SECONDS, max_attempts=1
        )
        units = MockUnits(
            ledger=self._ledger, results=results, fault_of=lambda render_id: self._states[render_id].fault
        )
        self._work_loop = WorkLoop(
            ledger=self._ledger,
            units=units.by_kind(),
            drain=self._drain,
            outage_retry=OutageRetry(seconds=0),
            wake=lambda _ready: None,
            stop=lambda: None,
            observer=self,
            claim=lambda _kinds: next(self._due_jobs, None),
        )
        self._heartbeat_at = 0.0
        self._polls: list[tuple[str, datetime]] = []
        # Held through a pass over all renders; `_changed` guards `_polls`, `_asked` and `_done`.
        self._passing = threading.Lock()
        self._changed = threading.Condition()
        self._asked = 0
        self._done = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mock-driver", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._drain.request(at_once=True)
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join()

    @property
    def transitions(self) -> Transitions:
        return self._transitions

    def wake(self) -> None:
        """Requests a pass soon. Returns at once."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()

    def settle(self, *, polled: str | None = None) -> None:
        """Counts a poll of the render with that id, and returns once everything due has changed."""
        with self._changed:
            if polled is not None:
                self._polls.append((polled, clock.now()))
            self._asked += 1
            ticket = self._asked
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._done >= ticket or self._stopping.is_set(), timeout=SETTLE_SECONDS
            )

    def clock_has_moved(self) -> None:
        """Returns once everything due by now has changed."""
        self._heartbeat_at = 0.0
        self.settle()

    @contextmanager
    def paused(self, *, transitions: Transitions) -> Iterator[None]:
        """Nothing changes within the block; afterwards the driver forgets all renders and follows `transitions`."""
        with self._passing:
            yield
            with self._changed:
                self._polls.clear()
            self._states.clear()
            self._transitions = transitions

    def unit(self, claim: Claim) -> AbstractContextManager[None]:
        """See WorkObserver: ids and times within a unit are repeatable."""
        moment = self._states[claim.render_id].moment_of_transition(self._transitions)
        return self._repeatable.scope(f"{claim.kind} {claim.render_id} {claim.attempt}", at=moment)

    def _run(self) -> None:
        while not self._stopping.is_set():
            is_timed = self._transitions.mode is TransitionMode.SECONDS and len(self._states) > 0
            with self._changed:
                self._changed.wait_for(
                    lambda: self._asked > self._done or self._stopping.is_set(),
                    timeout=TICK_SECONDS if is_timed else IDLE_TICK_SECONDS,
                )
                ticket = self._asked
            try:
                with self._passing:
                    self._pass()
            except RegenError as error:
                log.warning("mock_pass_failed", error=error.message, detail=error.detail)
                self._stopping.wait(REST_SECONDS)
            except Exception:
                log.exception("mock_pass_failed")
                self._stopping.wait(REST_SECONDS)
            with self._changed:
                self._done = max(self._done, ticket)
                self._changed.notify_all()

    def _pass(self) -> None:
        """Advances everything until nothing is due. Previews are always due."""
        if time.monotonic() >= self._heartbeat_at:
            with self._database.write() as session:
                worker_queries.beat(session, name=WORKER_NAME)
            self._heartbeat_at = time.monotonic() + HEARTBEAT_SECONDS
        with self._changed:
            polls, self._polls = self._polls, []
        self._ledger.cancel_overdue()
        self._read_renders()
        for render_id, moment in polls:
            state = self._states.get(render_id)
            if state is not None:
                state.poll(at=moment)
        self._due_jobs = self._take_due_jobs()
        self._work_loop()
        while not self._stopping.is_set() and self._previews.any_waits():
            job = self._previews.claim()
            if job is not None:
                self._make_preview(job)

    def _take_due_jobs(self) -> Iterator[Job]:
        """The next unit of each render that is due, the oldest render first, until none is."""
        has_moved = True
        while has_moved:
            has_moved = False
            for render in self._read_renders():
                state = self._states[render.id]
                is_due = state.is_due(self._transitions)
                if state.job is None and (is_due or render.status is RenderStatus.PROCESSING):
                    with self._database.write() as session:
                        state.job = claim_next_unit(session, render)
                    has_moved = has_moved or is_due
                if render.status is RenderStatus.QUEUED or state.job is None:
                    continue
                if is_due:
                    job, state.job = state.job, None
                    has_moved = True
                    yield job
                else:
                    self._show_progress(state, state.job, frames=render.output.frames)

    def _read_renders(self) -> list[Render]:
        with self._database.read() as session:
            renders = list(open_renders(session))
        self._states.follow(renders)
        return renders

    def _show_progress(self, state: RenderState, job: Job, *, frames: int) -> None:
        progress = state.share_passed(self._transitions)
        if job.kind is WorkKind.UPSCALE and progress > state.progress and not state.is_stuck:
            self._ledger.renew(job, frames_done=min(frames, int(frames * progress)))
            state.progress = progress

    def _make_preview(self, job: PreviewJob) -> None:
        try:
            with permanent_errors():
                before, after = self._results.make_preview(job, cancelled=self._stopping.is_set)
        except FfmpegCancelled:
            self._previews.hand_back(job.claim)
        except PermanentError as error:
            log.info("mock_preview_failed", error=error.message, detail=error.detail)
            self._previews.failed(job.claim, error)
        else:
            with suppress(LeaseLost):  # deleted meanwhile
                self._previews.completed(
                    job.claim, crop=job.crop, before_key=before, after_key=after, warnings=[]
                )


class MockBroker:
    """See Broker. Sends no messages: the driver runs in this process, and closing the broker stops it."""

    def __init__(self) -> None:
        self._driver: MockDriver | None = None

    def start(self, driver: MockDriver) -> None:
        self._driver = driver
        driver.start()

    def wake(self, queue: WorkQueue) -> None:
        if self._driver is not None:
            self._driver.wake()

    def waiting(self, queue: WorkQueue) -> int:
        return 0

    def check(self) -> None:
        """There is no connection that could break."""

    def close(self) -> None:
        if self._driver is not None:
            self._driver.stop()
