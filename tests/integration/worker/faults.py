"""Looking into work while faults befall it."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app.platform.queue import make_celery, wake_workers
from app.platform.storage.keys import output_key, segment_key
from app.platform.work_kinds import WorkKind
from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment
from app.work.tables import WorkerProcess
from tests.e2e.reading import decibels, decode, probe, timestamps
from tests.integration.worker.conftest import CLIP_HEIGHT, CLIP_WIDTH, Workplace
from tests.servers.process import ServerProcess, wait_until
from worker.workspace import Workspace

SECONDS = 120


@dataclass(frozen=True, kw_only=True)
class Hold:
    """A unit of work in a worker's hands. `result` is the key that its file gets."""

    worker: str
    result: str | None


def in_hand(session: Session, render_id: str, kind: WorkKind) -> list[Hold]:
    """Who has such units of the render, and has begun with one."""
    render = session.get_one(Render, render_id)
    if kind is WorkKind.UPSCALE:
        # The first worker begins by writing the render's precision, for which it needs the row.
        if render.precision is None:
            return []
        return [
            Hold(
                worker=segment.worker or "",
                result=segment_key(render_id, position=segment.position, attempt=segment.attempt),
            )
            for segment in render.segments
            if segment.status is SegmentStatus.RUNNING
        ]
    status = RenderStatus.PENDING if kind is WorkKind.PREPARE else RenderStatus.PROCESSING
    if render.status is not status or render.lease_expires_at is None:
        return []
    key = output_key(render_id, attempt=render.attempt) if kind is WorkKind.FINISH else None
    return [Hold(worker=render.worker or "", result=key)]


@contextmanager
def held_before_commit(place: Workplace, render_id: str, kind: WorkKind) -> Iterator[ServerProcess]:
    """A worker that has done such a unit and is kept from telling the database: the render's row is locked meanwhile,
    and the workers', which each report of a segment writes last. So are the segments: where a unit takes long, its
    lease runs out, and no other worker may take it yet."""

    def someone_has_it() -> bool:
        with place.database.read() as session:
            return bool(in_hand(session, render_id, kind))

    wait_until(someone_has_it, seconds=SECONDS, what=f"{kind} is in hand", pause_seconds=0.02)
    with place.database.write() as session:
        session.execute(select(Render.id).where(Render.id == render_id).with_for_update())
        session.execute(select(Segment.id).where(Segment.render_id == render_id).with_for_update())
        session.execute(select(WorkerProcess.name).with_for_update())
        holds = in_hand(session, render_id, kind)
        assert holds, f"{kind} was over too soon"

        def done() -> list[Hold]:
            # The server ends a transaction that has been silent for long.
            session.execute(text("SELECT 1"))
            stored = (None, *keys(place, render_id))
            return [hold for hold in holds if hold.result in stored]

        # Of several, some may wait for the render's row before they begin.
        wait_until(done, seconds=SECONDS, what="one is stored")
        yield process_of(place, done()[0].worker)


def process_of(place: Workplace, name: str) -> ServerProcess:
    (process,) = [worker for worker in place.workers if str(worker.pid) in name.split("-")]
    return process


def keys(place: Workplace, render_id: str) -> list[str]:
    return sorted(stored.key for stored in place.storage.list(f"renders/{render_id}/"))


def wake(place: Workplace, *, units: int = 1) -> None:
    celery = make_celery(place.settings)
    for kind in (WorkKind.PREPARE, WorkKind.UPSCALE):
        wake_workers(celery, kind.queue, units=units)
    celery.close()


def segments(place: Workplace, render_id: str) -> list[Segment]:
    with place.database.read() as session:
        return list(session.get_one(Render, render_id).segments)


def render_row(place: Workplace, render_id: str) -> Render:
    with place.database.read() as session:
        return session.get_one(Render, render_id)


def running(place: Workplace, render_id: str, *, frames: int = 1) -> list[Segment]:
    """The segments in hand of which so many frames are done, as the database knows."""
    return [
        segment
        for segment in segments(place, render_id)
        if segment.status is SegmentStatus.RUNNING and segment.frames_done >= frames
    ]


def check_whole(
    place: Workplace, render_id: str, *, leftovers: Callable[[str], bool] = lambda _key: False
) -> Path:
    """The render is completed once, its frames are the clip's, and nothing else is left of it. Returns its output."""
    row = render_row(place, render_id)
    assert row.status is RenderStatus.COMPLETED, row.error
    assert row.output_key is not None
    assert {segment.status for segment in segments(place, render_id)} == {SegmentStatus.DONE}
    own = sorted(key for key in (row.output_key, row.thumbnail_key, row.sound_key) if key)

    def only_results() -> bool:
        return [key for key in keys(place, render_id) if not leftovers(key)] == own

    wait_until(only_results, seconds=20, what=f"{own} alone are left of {keys(place, render_id)}")
    output = place.root / f"{render_id}-output.mp4"
    place.storage.fetch(row.output_key, output)
    assert timestamps(probe(output), "video") == timestamps(probe(place.clip), "video")
    before, after = (decode(path, width=CLIP_WIDTH, height=CLIP_HEIGHT) for path in (place.clip, output))
    assert len(after) == len(before)
    # The clip is too small for its colours to stay sharp; each frame is most like its own.
    assert [max(range(len(before)), key=lambda at: decibels(before[at], frame)) for frame in after] == [
        *range(len(before))
    ]
    # What killed workers left goes when the next one starts.
    Workspace(place.settings.work_dir, cache_bytes=0).close()
    wait_until(
        lambda: not list(place.settings.work_dir.glob("worker-*/job-*/*")),
        seconds=20,
        what="no job's files are left",
    )
    return output


def ffmpegs_of(pid: int) -> list[int]:
    """The running children of a worker, once they are ffmpeg."""
    children = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it has ended
            children += thread.read_text().split()
    return [int(child) for child in children if "ffmpeg" in _program(int(child))]


def _program(pid: int) -> str:
    """Its name. Not its arguments: before it becomes ffmpeg it has the worker's, whose directories may say ffmpeg."""
    try:
        return Path(Path(f"/proc/{pid}/cmdline").read_text().partition("\0")[0]).name
    except OSError:
        return ""


def stop(process: ServerProcess) -> None:
    os.kill(process.pid, signal.SIGSTOP)
