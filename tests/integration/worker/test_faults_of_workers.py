"""Workers that are killed, stopped, hang or are poisoned: nothing is lost, nothing is done twice."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app.platform.media.programs import find_programs
from app.platform.work_kinds import WorkKind
from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Render
from tests.e2e.reading import decode
from tests.integration.worker.conftest import CLIP_HEIGHT, CLIP_WIDTH, Workplace, lines, wait_ready
from tests.integration.worker.faults import (
    SECONDS,
    check_whole,
    ffmpegs_of,
    held_before_commit,
    process_of,
    render_row,
    running,
    segments,
    stop,
    wake,
)
from tests.servers.broker import BrokerServer
from tests.servers.process import ServerProcess, wait_until
from worker.deadman import EXIT_HANGS

MakePlace = Callable[..., Workplace]


def broker_of(server: BrokerServer) -> dict[str, str]:
    return {"broker_url": server.url, "broker_password": server.password or ""}


def start(place: Workplace, count: int, *arguments: str, **settings: str) -> list[ServerProcess]:
    workers = [place.start_worker(*arguments, **settings) for _ in range(count)]
    for worker in workers:
        wait_ready(worker)
    return workers


def test_a_worker_killed_after_its_work_and_before_the_commit_costs_an_attempt(
    workplace: MakePlace, broker_server: BrokerServer, tmp_path: Path
) -> None:
    """In each of the three kinds of work."""
    program = tmp_path / "ffmpeg"
    program.write_text(
        "#!/bin/sh\n"
        # Reading and joining would be over before the test sees that they have begun.
        'case "$*" in *framecrc*|*segments.ffconcat*) sleep 0.5 ;; esac\n'
        f'exec {find_programs().ffmpeg} "$@"\n'
    )
    program.chmod(0o755)
    place = workplace(
        **broker_of(broker_server), lease_seconds="2", stand_in_seconds_per_frame="0.03", sandbox="off"
    )
    start(place, 4, ffmpeg=str(program), ffprobe=str(find_programs().ffprobe))
    render_id = place.submit()
    wake(place)
    for kind in (WorkKind.PREPARE, WorkKind.UPSCALE, WorkKind.FINISH):
        with held_before_commit(place, render_id, kind) as worker:
            worker.kill()
    place.wait_completed(render_id)

    row = render_row(place, render_id)
    assert (row.attempt, row.failures, row.expiries) == (4, 0, 1), "twice prepared, twice finished"
    # While the test keeps the database locked, the other segment's lease may run out as well.
    counts = [(part.attempt, part.expiries, part.failures) for part in segments(place, render_id)]
    assert (2, 1, 0) in counts
    assert set(counts) <= {(1, 0, 0), (2, 1, 0)}
    # What the killed finish had stored is left to the clean-up.
    check_whole(place, render_id, leftovers=lambda key: "-3." in key)


def test_a_worker_that_was_stopped_for_longer_than_its_lease_changes_nothing(
    migrated_postgres_url: str, workplace: MakePlace, broker_server: BrokerServer
) -> None:
    place = workplace(
        **broker_of(broker_server),
        # The server grants the row's lock to the one that is stopped, and ends its transaction after this time.
        database_url=f"{migrated_postgres_url}?options=-c%20idle_in_transaction_session_timeout=2s",
        lease_seconds="2",
        stand_in_seconds_per_frame="0.12",
        segment_seconds="10",
    )
    start(place, 3)
    render_id = place.submit()
    wake(place, units=3)
    with held_before_commit(place, render_id, WorkKind.UPSCALE) as late:
        stop(late)

    def another_has_it() -> bool:
        return [row.attempt for row in running(place, render_id)] == [2]

    wait_until(another_has_it, seconds=SECONDS, what="another worker has the segment")
    (row,) = running(place, render_id)
    cut_short = process_of(place, row.worker or "")
    stop(cut_short)
    assert ffmpegs_of(cut_short.pid)
    place.wait_completed(render_id)

    for zombie in (late, cut_short):
        zombie.send_signal(signal.SIGCONT)
        zombie.wait_until(
            lambda zombie=zombie: lines(zombie, "work_abandoned"), seconds=SECONDS, what="it learns of that"
        )
    wait_until(lambda: not ffmpegs_of(cut_short.pid), what="its ffmpeg ends")
    (segment,) = segments(place, render_id)
    assert (segment.attempt, segment.expiries, segment.failures) == (3, 2, 0)
    check_whole(place, render_id)


def test_an_asked_worker_finishes_what_it_has_in_hand_and_asked_twice_gives_it_back(
    workplace: MakePlace, broker_server: BrokerServer
) -> None:
    place = workplace(**broker_of(broker_server), lease_seconds="600", stand_in_seconds_per_frame="0.3")
    render_id = place.submit()
    for signals in (1, 2):
        (worker,) = start(place, 1, drain_seconds="600")
        wake(place)
        worker.wait_until(
            lambda worker=worker: any(line["kind"] == "upscale" for line in lines(worker, "work_started")),
            seconds=SECONDS,
            what="a segment is in hand",
        )
        for number in range(signals):
            time.sleep(0.5 * number)  # or they are one signal
            worker.send_signal(signal.SIGTERM)
        wait_until(lambda worker=worker: worker.status is not None, seconds=30, what="it ends")
        assert worker.status == os.EX_OK
    first, second = segments(place, render_id)
    assert (first.status, first.attempt) == (SegmentStatus.DONE, 1)
    assert (second.status, second.attempt, second.failures) == (SegmentStatus.WAITING, 1, 0)
    assert not running(place, render_id, frames=0)


def test_a_hanging_ffmpeg_is_a_failed_attempt(workplace: MakePlace, broker_server: BrokerServer) -> None:
    place = workplace(
        **broker_of(broker_server),
        lease_seconds="6",  # so that the sweeper soon finds what has rested
        stall_seconds="3",
        stand_in_seconds_per_frame="0.1",
        segment_seconds="10",
    )
    (worker,) = start(place, 1)
    render_id = place.submit()
    wake(place)
    worker.wait_until(
        lambda: running(place, render_id, frames=0) and ffmpegs_of(worker.pid),
        seconds=SECONDS,
        what="ffmpeg runs",
    )
    for pid in ffmpegs_of(worker.pid):
        os.kill(pid, signal.SIGSTOP)
    place.wait_completed(render_id)
    (segment,) = segments(place, render_id)
    assert (segment.attempt, segment.failures) == (2, 1)
    check_whole(place, render_id)


def test_an_input_that_no_attempt_can_read_fails_its_render_and_no_other(
    workplace: MakePlace, broker_server: BrokerServer, tmp_path: Path
) -> None:
    # The second pause would be the longer one; the sweeper soon finds what has rested.
    place = workplace(**broker_of(broker_server), max_attempts="2", lease_seconds="6")
    start(place, 1, "--queues", "cpu")
    poisoned, healthy = place.submit(), place.submit()
    wake(place)
    wait_until(lambda: segments(place, poisoned), seconds=SECONDS, what="it is prepared")
    garbage = tmp_path / "garbage"
    garbage.write_bytes(os.urandom(20_000))
    place.storage.put_file(_input_of(place, poisoned), garbage, content_type="video/mp4")
    start(place, 1, "--queues", "gpu")
    wait_until(lambda: place.status(poisoned).is_final, seconds=SECONDS, what="the poisoned one ends")
    place.wait_completed(healthy)
    row = render_row(place, poisoned)
    assert row.status is RenderStatus.FAILED
    assert row.error and row.error.startswith("The video")
    assert max(segment.attempt for segment in segments(place, poisoned)) <= 2
    check_whole(place, healthy)


def test_segments_of_three_workers_make_the_same_video_as_one_and_a_hundred_wake_ups_no_second_one(
    workplace: MakePlace, broker_server: BrokerServer
) -> None:
    place = workplace(
        **broker_of(broker_server),
        quality="lossless",
        segment_seconds="0.2",
        stand_in_seconds_per_frame="0.1",
    )
    workers = start(place, 3)
    spread = place.submit()
    wake(place, units=100)
    place.wait_completed(spread)
    parts = segments(place, spread)
    assert len(parts) == 10
    assert {part.attempt for part in parts} == {1}
    assert len({part.worker for part in parts}) == 3
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    start(place, 1, segment_seconds="10", stand_in_seconds_per_frame="0")
    whole = place.submit()
    wake(place)
    place.wait_completed(whole)
    assert len(segments(place, whole)) == 1
    frames = [
        decode(check_whole(place, render_id), width=4 * CLIP_WIDTH, height=4 * CLIP_HEIGHT)
        for render_id in (spread, whole)
    ]
    assert np.array_equal(*frames)


def _input_of(place: Workplace, render_id: str) -> str:
    with place.database.read() as session:
        return session.get_one(Render, render_id).file.storage_key


ENDINGS = ("kill -9 $$", "exit 1", "exit 0", "cat >/dev/null; echo garbage >&2; exit 69")


def test_an_encoder_that_fails_ends_its_render_and_the_next_one_completes(
    workplace: MakePlace, broker_server: BrokerServer, tmp_path: Path
) -> None:
    """However it fails: killed, as by the system when memory runs out, or with an exit status."""
    ending = tmp_path / "ending"
    encoder = tmp_path / "ffmpeg"
    encoder.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *libx264*) if [ -e {ending} ]; then eval "$(cat {ending})"; fi ;; esac\n'
        f'exec {find_programs().ffmpeg} "$@"\n'
    )
    encoder.chmod(0o755)
    place = workplace(
        **broker_of(broker_server),
        max_attempts="2",
        segment_seconds="10",
        sandbox="off",
        lease_seconds="3",  # so that the sweeper soon finds what has rested
    )
    (worker,) = start(place, 1, ffmpeg=str(encoder), ffprobe=str(find_programs().ffprobe))
    for command in ENDINGS:
        ending.write_text(command)
        first = place.submit()
        wake(place)
        wait_until(lambda first=first: place.status(first).is_final, seconds=SECONDS, what="the render ends")
        row = render_row(place, first)
        assert (row.status, row.error) == (
            RenderStatus.FAILED,
            "The video could not be processed: upscaling a part of it failed 2 times.",
        ), command
        ending.unlink()
        second = place.submit()
        wake(place)
        place.wait_completed(second)
    assert worker.status is None, "it is the same worker"


def test_a_worker_that_hangs_ends_itself_and_another_one_takes_over(
    workplace: MakePlace, broker_server: BrokerServer
) -> None:
    """Without waiting for a lease to run out, and with its work charged."""
    place = workplace(**broker_of(broker_server), lease_seconds="600", segment_seconds="10")
    (hanging,) = start(place, 1, stall_seconds="2", stand_in_seconds_per_frame="1000")
    render_id = place.submit()
    wake(place)
    wait_until(lambda: hanging.status is not None, seconds=SECONDS, what="it ends itself")
    assert hanging.status == EXIT_HANGS
    assert lines(hanging, "device_hangs")
    assert "most recent call first" in hanging.log.read_text()
    (segment,) = segments(place, render_id)
    assert (segment.status, segment.failures, segment.expiries) == (SegmentStatus.WAITING, 1, 0)
    start(place, 1)
    wake(place)
    place.wait_completed(render_id)


@pytest.mark.parametrize("step", ["framecrc", "segments.ffconcat"])
def test_an_ffmpeg_that_stands_still_while_a_video_is_read_or_joined_is_a_failed_attempt(
    workplace: MakePlace, broker_server: BrokerServer, tmp_path: Path, step: str
) -> None:
    met = tmp_path / "met"
    program = tmp_path / "ffmpeg"
    program.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *{step}*) if [ ! -e {met} ]; then touch {met}; exec sleep 600; fi ;; esac\n'
        f'exec {find_programs().ffmpeg} "$@"\n'
    )
    program.chmod(0o755)
    place = workplace(**broker_of(broker_server), stall_seconds="2", sandbox="off", lease_seconds="3")
    start(place, 1, ffmpeg=str(program), ffprobe=str(find_programs().ffprobe))
    render_id = place.submit()
    wake(place)
    place.wait_completed(render_id)
    assert met.exists()
