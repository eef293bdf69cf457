"""Database, storage and disk that go away in the middle of work, and come back: no attempt is lost by it."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Segment
from tests.integration.worker.conftest import Workplace, lines, make_workplace, wait_ready
from tests.integration.worker.faults import (
    SECONDS,
    check_whole,
    process_of,
    render_row,
    running,
    segments,
    wake,
)
from tests.servers.broker import BrokerServer
from tests.servers.postgres import PostgresServer
from tests.servers.process import ServerProcess, wait_until
from tests.servers.relay import Relay, relay_to
from tests.servers.s3 import S3Bucket, S3Server

MOST_SUBMISSIONS = 5


@dataclass(frozen=True, kw_only=True)
class Site:
    """Two workers on PostgreSQL and S3. The second one's way to the database can be cut, and everybody's to S3."""

    place: Workplace
    workers: list[ServerProcess]
    database_relay: Relay
    storage_relay: Relay

    def submit_and_wait_for_both(self) -> str:
        """A render of which each worker has a segment in hand."""
        for _submission in range(MOST_SUBMISSIONS):
            render_id = self.place.submit()
            wake(self.place, units=2)

            def is_decided(render_id: str = render_id) -> bool:
                return len(running(self.place, render_id)) == 2 or self.place.status(render_id).is_final

            wait_until(is_decided, seconds=SECONDS, what="both have work in hand")
            if not self.place.status(render_id).is_final:
                return render_id
            # On a busy machine one worker may have been done before the other began.
        raise AssertionError("the two workers are never at work at once")

    def wait_for_outage(self, *, before: int) -> None:
        """Until a worker has found out that it cannot tell or bring what it has done, and leases have run out."""
        over_at = time.monotonic() + 1.5 * self.place.settings.lease_seconds
        wait_until(
            lambda: self.outages() > before and time.monotonic() > over_at,
            seconds=SECONDS,
            what="the outage is noticed",
        )

    def outages(self) -> int:
        return sum(len(lines(worker, "outage_retried")) for worker in self.workers)

    def check_untouched(self, render_id: str) -> None:
        """Completed in one attempt each, as if nothing had been."""
        self.place.wait_completed(render_id)
        counts = [
            (part.attempt, part.failures, part.outages, part.expiries)
            for part in segments(self.place, render_id)
        ]
        assert counts == [(1, 0, 0, 0)] * 2
        check_whole(self.place, render_id)


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    clip: Path,
    postgres_server: PostgresServer,
    postgres_template: str,
    s3_server: S3Server,
) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    broker = BrokerServer(directory)
    broker.start()
    database_url = postgres_server.create_database(template=postgres_template)
    bucket = S3Bucket(server=s3_server, name=s3_server.create_bucket())
    with relay_to(postgres_server.port) as database_relay, relay_to(s3_server.port) as storage_relay:
        place = make_workplace(
            directory / "place",
            clip,
            **bucket.settings | {"s3_endpoint_url": f"http://127.0.0.1:{storage_relay.port}"},
            database_url=database_url,
            broker_url=broker.url,
            lease_seconds="2",
            drain_seconds="1",
            stand_in_seconds_per_frame="0.2",
        )
        relayed = database_url.replace(f":{postgres_server.port}/", f":{database_relay.port}/")
        workers = [place.start_worker(), place.start_worker(database_url=relayed)]
        for worker in workers:
            wait_ready(worker)
        try:
            yield Site(
                place=place, workers=workers, database_relay=database_relay, storage_relay=storage_relay
            )
        finally:
            storage_relay.resume()
            place.close()
            broker.close()
    postgres_server.drop_database(database_url)


def test_a_database_that_was_away_for_longer_than_a_lease_costs_nothing(
    site: Site, postgres_server: PostgresServer
) -> None:
    render_id = site.submit_and_wait_for_both()
    before = site.outages()
    postgres_server.stop()
    try:
        # The segments are done meanwhile, and cannot be reported.
        site.wait_for_outage(before=before)
    finally:
        postgres_server.start()
    site.check_untouched(render_id)


def test_a_worker_that_loses_only_its_database_is_replaced_and_comes_back(site: Site) -> None:
    render_id = site.submit_and_wait_for_both()
    site.database_relay.cut()
    site.place.wait_completed(render_id)
    counts = sorted((part.attempt, part.expiries, part.failures) for part in segments(site.place, render_id))
    assert counts == [(1, 0, 0), (2, 1, 0)]
    site.database_relay.restore()
    _first, second = site.workers
    second.wait_until(
        lambda: [line for line in lines(second, "work_abandoned") if line["render_id"] == render_id],
        seconds=SECONDS,
        what="it learns that its work is another's",
    )
    check_whole(site.place, render_id)


def test_a_storage_that_was_away_for_longer_than_a_lease_costs_nothing(
    site: Site, s3_server: S3Server
) -> None:
    render_id = site.submit_and_wait_for_both()
    before = site.outages()
    s3_server.kill()
    try:
        site.wait_for_outage(before=before)
    finally:
        s3_server.start()
    site.check_untouched(render_id)


def test_a_storage_that_stalls_holds_up_neither_the_lease_nor_the_end_of_a_worker(site: Site) -> None:
    render_id = site.submit_and_wait_for_both()
    site.storage_relay.pause()

    def uploading() -> list[Segment]:
        return running(site.place, render_id, frames=part_frames)

    part_frames = segments(site.place, render_id)[0].frames
    wait_until(lambda: len(uploading()) == 2, seconds=SECONDS, what="both segments wait to be stored")
    ends = {part.id: part.lease_expires_at for part in uploading()}

    def renewed() -> bool:
        lease = timedelta(seconds=2)
        return all(
            part.lease_expires_at and part.lease_expires_at > (ends[part.id] or part.created_at) + lease
            for part in segments(site.place, render_id)
        )

    wait_until(renewed, seconds=SECONDS, what="the leases outlive the stall")

    name = uploading()[0].worker or ""
    stopped = process_of(site.place, name)
    stopped.send_signal(signal.SIGTERM)
    wait_until(lambda: stopped.status is not None, seconds=30, what="the worker ends all the same")
    assert stopped.status == os.EX_OK, stopped.tail()
    # The other worker may have taken it up already.
    assert name not in {part.worker for part in uploading()}
    site.storage_relay.resume()
    site.place.wait_completed(render_id)
    counts = sorted((part.attempt, part.failures, part.expiries) for part in segments(site.place, render_id))
    assert counts == [(1, 0, 0), (2, 0, 0)]
    # The upload that was left behind may have been completed by what lay in the sockets.
    check_whole(site.place, render_id)


@pytest.fixture
def small_disk(workplace: Callable[..., Workplace], broker_server: BrokerServer) -> Iterator[Workplace]:
    """A place whose work directory is a small file system of its own."""
    place = workplace(
        broker_url=broker_server.url,
        broker_password=broker_server.password or "",
        lease_seconds="2",
        outage_patience_seconds="1",
    )
    place.settings.work_dir.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", place.settings.work_dir],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("only root can make a small disk, and not everywhere")
    yield place
    place.close()
    subprocess.run(["umount", place.settings.work_dir], check=True)


def test_work_that_finds_no_room_on_the_disk_goes_on_once_there_is(small_disk: Workplace) -> None:
    worker = small_disk.start_worker()
    wait_ready(worker)
    filler = small_disk.settings.work_dir / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    assert shutil.disk_usage(small_disk.settings.work_dir).free == 0
    render_id = small_disk.submit()
    wake(small_disk)
    worker.wait_until(lambda: lines(worker, "work_postponed"), seconds=SECONDS, what="there is no room")
    wait_until(lambda: render_row(small_disk, render_id).outages, what="it is counted")
    row = render_row(small_disk, render_id)
    assert (row.status, row.failures) == (RenderStatus.PENDING, 0)
    filler.unlink()
    small_disk.wait_completed(render_id)
    assert not lines(worker, "work_failed")
    assert {part.status for part in segments(small_disk, render_id)} == {SegmentStatus.DONE}
    check_whole(small_disk, render_id)
