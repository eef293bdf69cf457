"""A long video's segments are upscaled while it is still being read."""

import subprocess
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from app.platform.errors import PermanentError, Unavailable
from app.platform.media.programs import find_programs
from app.platform.settings import Settings
from app.platform.work_kinds import WorkKind
from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment
from app.renders.transitions import fail_render
from app.work.queries import ReadyUnits
from app.work.segment_length import SEGMENT_WORK_SECONDS
from app.work.speeds import MEMORY_SECONDS, note_segment
from models.catalog import ENGINES
from tests.integration.worker.conftest import Workplace
from tests.integration.worker.worker_in_process import WorkerInProcess
from worker.registration import Registration
from worker.video import frame_list

FRAMES = 170


class Site(WorkerInProcess):
    """`on_release` is called after each release."""

    releases = 0

    def on_release(self) -> None: ...

    def wake(self, ready: ReadyUnits) -> None:
        self.releases += 1
        self.on_release()

    def do_one(self, kind: WorkKind) -> None:
        """As another worker would."""
        ledger = copy(self.ledger)
        ledger.queues = frozenset({kind.queue})
        jobs = [ledger.claim()]
        assert jobs[0] is not None
        assert jobs[0].kind is kind
        self.work(lambda _kinds: jobs.pop() if jobs else None)

    def work_with(self, **defaults: str) -> None:
        """From now on with these settings, as if an operator had set nothing."""
        settings = Settings(**{**self.place.settings.model_dump(), **defaults})
        settings.model_fields_set.clear()
        self.units = replace(self.units, settings=settings)


@pytest.fixture
def long_clip(tmp_path: Path) -> Path:
    path = tmp_path / "long.mp4"
    source = f"testsrc2=size=32x32:rate=25,scroll=horizontal={1 / FRAMES}"
    command = ["-f", "lavfi", "-i", source, "-frames:v", str(FRAMES), "-g", "25", "-pix_fmt", "yuv420p"]
    subprocess.run([find_programs().ffmpeg, "-v", "error", *command, path], check=True)
    return path


@pytest.fixture
def site(
    workplace: Callable[..., Workplace], long_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    for name, value in (("LOOK_SECONDS", 0.0), ("LOOK_SHARE", 1.0), ("LINES_PER_CHECK", 16)):
        monkeypatch.setattr(frame_list, name, value)
    place = workplace(segment_seconds="1", sandbox="off")
    place.clip = long_clip
    one = Site(place)
    yield one
    one.close()


@pytest.mark.slow
def test_segments_are_done_before_the_video_is_read_to_its_end(site: Site) -> None:
    """Also after an outage of the database and a reading that fails: what was released is not released again."""
    render_id = site.place.submit()
    outages, halves = [Unavailable("away")], []
    release = site.ledger.release_segments

    def away_once(*arguments: Any, **named: Any) -> ReadyUnits:
        if outages:
            raise outages.pop()
        return release(*arguments, **named)

    def upscale_then_fail() -> None:
        if not halves:
            site.do_one(WorkKind.UPSCALE)
            halves.append(site.render(render_id))
            raise ValueError("the worker stumbles")

    site.ledger.release_segments = away_once  # type: ignore[method-assign]
    site.on_release = upscale_then_fail
    site.work()
    with site.place.database.write() as session:
        session.execute(update(Render).values(retry_at=None))
    site.work()
    (half,) = halves
    assert (half.status, half.segments[0].status) == (RenderStatus.PROCESSING, SegmentStatus.DONE)
    assert half.unplanned_frames + sum(segment.frames for segment in half.segments) == FRAMES
    whole = site.render(render_id)
    assert (whole.status, whole.unplanned_frames) == (RenderStatus.COMPLETED, None), whole.error
    assert whole.attempt == 3, "two readings and a finish"
    assert (whole.output.frames, sum(segment.frames for segment in whole.segments)) == (FRAMES, FRAMES)
    kept = {segment.id: segment.attempt for segment in half.segments}
    again = {segment.id: segment.attempt for segment in whole.segments if segment.id in kept}
    assert again == dict.fromkeys(kept, 1), "no segment is made twice"
    assert [stored.key for stored in site.place.storage.list(f"renders/{render_id}/segments/")] == []


@pytest.mark.parametrize("ends_by", ["cancel", "damage"])
def test_a_render_that_ends_while_its_video_is_read(site: Site, ends_by: str) -> None:
    render_id = site.place.submit()

    def end() -> None:
        if ends_by == "damage":
            raise PermanentError("It is damaged.")
        with site.place.database.write() as session:
            fail_render(session, render_id=render_id, error="Canceled")

    site.on_release = end
    site.work()
    render = site.render(render_id)
    assert render.status is RenderStatus.FAILED
    assert {segment.status for segment in render.segments} == {SegmentStatus.FAILED}
    assert site.releases == 1
    assert site.ledger.claim() is None


def test_another_worker_goes_on_with_the_lengths_of_the_first(site: Site) -> None:
    """Its settings are others, and by now devices are known to be faster."""
    render_id, kept = site.place.submit(), dict[str, str]()
    pace = 2.1 * (5 * 32 * 32) / SEGMENT_WORK_SECONDS

    def measured(pixels_per_second: float) -> None:
        for engine in ENGINES:
            seconds = 10 * MEMORY_SECONDS
            pixels = round(pixels_per_second * seconds)
            note_segment(site.place.database, device="fast", engine=engine, pixels=pixels, seconds=seconds)

    def stumble() -> None:
        if not kept:
            kept.update({segment.id: segment.plan for segment in site.render(render_id).segments})
            raise ValueError("the worker stumbles")

    Registration(site.ledger, device="cuda:0", device_name="fast").beat()
    measured(pace)
    site.on_release = stumble
    site.work_with(segment_seconds="0.2")
    site.do_one(WorkKind.PREPARE)
    measured(20 * pace)
    with site.place.database.write() as session:
        session.execute(update(Render).values(retry_at=None))
        # Reading goes on once no segments wait.
        session.execute(update(Segment).values(status=SegmentStatus.DONE))
    site.work_with(segment_seconds="3")
    site.do_one(WorkKind.PREPARE)
    segments = site.render(render_id).segments
    # Ten frames, twice the first worker's setting, or up to the next keyframe.
    assert [segment.frames for segment in segments] == [10, 10, 5] * 6 + [10, 10]
    assert {segment.id: segment.plan for segment in segments if segment.id in kept} == kept != {}
