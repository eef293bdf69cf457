"""The mock's worker: one thread that moves renders on when they are due, and makes their files."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime

import structlog

from app.mock.faults import Faults
from app.mock.moves import LEASE_SECONDS, WORKER_NAME, Moves, OpenRender
from app.mock.options import Pace, Transitions
from app.mock.repeatable import Repeatable
from app.mock.results import Results, likely_quality
from app.mock.stage import Stage
from app.platform import clock
from app.platform.database import Database
from app.platform.errors import (
    FfmpegCancelled,
    FfmpegError,
    LeaseLost,
    PermanentError,
    RegenError,
    StorageError,
)
from app.previews.service import PreviewJob, PreviewLedger
from app.renders.statuses import RenderStatus
from app.work import worker_queries

TICK_SECONDS = 0.05
IDLE_TICK_SECONDS = 5.0
BEAT_SECONDS = 3.0
# After a pass that went wrong.
REST_SECONDS = 1.0
SETTLE_SECONDS = 120.0
NO_RESULT = "The mock could not enlarge this video."

log = structlog.get_logger(__name__)


class Driver:
    """Start it, and stop it before the database is closed. Everything but the thread itself may be asked from any
    thread."""

    def __init__(
        self,
        *,
        database: Database,
        results: Results,
        faults: Faults,
        repeatable: Repeatable,
        transitions: Transitions,
        stopping: threading.Event,
    ) -> None:
        self._database = database
        self._moves = Moves(database)
        self._previews = PreviewLedger(
            database=database, worker=WORKER_NAME, lease_seconds=LEASE_SECONDS, max_attempts=1
        )
        self._results = results
        self._faults = faults
        self._repeatable = repeatable
        self._transitions = transitions
        self._stages: dict[str, Stage] = {}
        self._beat_at = 0.0
        self._polls: list[tuple[str, datetime]] = []
        # Held through a pass over all renders; `_changed` guards what follows.
        self._passing = threading.Lock()
        self._changed = threading.Condition()
        self._asked = 0
        self._done = 0
        self._stopping = stopping
        self._thread = threading.Thread(target=self._run, name="mock-driver", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join()

    @property
    def transitions(self) -> Transitions:
        return self._transitions

    def look(self) -> None:
        """Move on all that is due, and have somebody look again soon. Returns at once."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()

    def settle(self, *, polled: str | None = None) -> None:
        """Return once everything that is due now has moved, after counting a poll of that render."""
        with self._changed:
            if polled is not None:
                self._polls.append((polled, clock.now()))
            self._asked += 1
            ticket = self._asked
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._done >= ticket or self._stopping.is_set(), timeout=SETTLE_SECONDS
            )

    @contextmanager
    def at_rest(self, *, transitions: Transitions) -> Iterator[None]:
        """Nothing moves within the block, after which the driver begins anew, with these transitions."""
        with self._passing:
            yield
            with self._changed:
                self._polls.clear()
            self._stages.clear()
            self._transitions = transitions

    def _run(self) -> None:
        while not self._stopping.is_set():
            tick = TICK_SECONDS if self._is_timed() else IDLE_TICK_SECONDS
            with self._changed:
                self._changed.wait_for(
                    lambda: self._asked > self._done or self._stopping.is_set(), timeout=tick
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

    def _is_timed(self) -> bool:
        return self._transitions.pace is Pace.SECONDS and bool(self._stages)

    def _pass(self) -> None:
        """Move everything until nothing is due. Previews are always due."""
        if time.monotonic() >= self._beat_at:
            with self._database.write() as session:
                worker_queries.beat(session, name=WORKER_NAME)
            self._beat_at = time.monotonic() + BEAT_SECONDS
        with self._changed:
            polls, self._polls = self._polls, []
        renders = self._known()
        for render_id, moment in polls:
            if (stage := self._stages.get(render_id)) is not None:
                stage.poll(at=moment)
        moved = True
        while moved and not self._stopping.is_set():
            moved = sum(self._may_move(render) for render in renders) > 0
            renders = self._known()
        while not self._stopping.is_set() and self._previews.any_waits():
            job = self._previews.claim()
            if job is not None:
                self._make_preview(job)

    def _known(self) -> Sequence[OpenRender]:
        """The renders that have not ended; those that have are forgotten."""
        renders = self._moves.open_renders()
        for render in renders:
            stage = self._stages.get(render.id)
            if stage is None:
                fault = self._faults.take_render(render.request_id)
                self._stages[render.id] = Stage(
                    status=render.status, created_at=render.created_at, fault=fault
                )
        for ended in self._stages.keys() - {render.id for render in renders}:
            del self._stages[ended]
        return renders

    def _may_move(self, render: OpenRender) -> bool:
        """Whether it has moved."""
        stage = self._stages[render.id]
        if not stage.is_due(self._transitions):
            self._show_progress(render, stage)
            return False
        moment = stage.moment_of_move(self._transitions)
        try:
            with self._repeatable.move(f"render {render.id} {render.attempt} {render.status}", at=moment):
                stage.moved_to(self._move(render, stage))
        except (LeaseLost, FfmpegCancelled):
            # Canceled meanwhile, or we are stopping.
            return False
        log.info("mock_render_moved", render_id=render.id, status=stage.status.value)
        return True

    def _move(self, render: OpenRender, stage: Stage) -> RenderStatus:
        match render.status:
            case RenderStatus.QUEUED:
                self._moves.begin(render)
                return RenderStatus.PENDING
            case RenderStatus.PENDING:
                self._moves.prepare(render)
                return RenderStatus.PROCESSING
        try:
            if stage.fault is not None and stage.fault.fail is not None:
                raise PermanentError(stage.fault.fail)
            stored = self._results.make(render)
        except FfmpegCancelled:
            raise
        except (PermanentError, FfmpegError, StorageError) as error:
            log.info("mock_render_failed", render_id=render.id, error=error.message, detail=error.detail)
            told = error if isinstance(error, PermanentError) else PermanentError(NO_RESULT)
            self._moves.fail(render, told)
            return RenderStatus.FAILED
        self._moves.complete(
            render,
            output_key=stored.output_key,
            thumbnail_key=stored.thumbnail_key,
            warnings=[] if stage.fault is None else stage.fault.warnings,
            quality=likely_quality(render) if render.measures_quality else None,
        )
        return RenderStatus.COMPLETED

    def _show_progress(self, render: OpenRender, stage: Stage) -> None:
        progress = stage.part_passed(self._transitions)
        if render.status is RenderStatus.PROCESSING and progress > stage.progress and not stage.is_stuck:
            self._moves.report(render, progress=progress)
            stage.progress = progress

    def _make_preview(self, job: PreviewJob) -> None:
        try:
            before, after = self._results.make_preview(job)
        except FfmpegCancelled:
            self._previews.hand_back(job.claim)
        except (FfmpegError, StorageError) as error:
            log.info("mock_preview_failed", error=error.message, detail=error.detail)
            self._previews.failed(job.claim, PermanentError(NO_RESULT))
        else:
            with suppress(LeaseLost):  # deleted meanwhile
                self._previews.completed(
                    job.claim, crop=job.crop, before_key=before, after_key=after, warnings=[]
                )
