"""Workers fetch the ranges of an input that a segment needs: each byte once for a machine, with the same results."""

import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from app.platform.errors import StorageError
from app.platform.media.programs import find_programs
from app.platform.settings import Settings
from app.platform.storage.contract import Storage
from app.platform.work_kinds import WorkQueue
from app.renders.statuses import RenderStatus
from app.renders.tables import Render
from tests.integration.worker.conftest import Workplace
from tests.integration.worker.worker_in_process import WorkerInProcess
from worker.byte_ranges import ByteRange
from worker.shared_inputs import LOCK_SUFFIX
from worker.video import input_ranges
from worker.video.input_ranges import InputRanges
from worker.video.plan import SegmentPlan
from worker.workspace import Workspace

CONTENT = bytes(range(1, 251)) * 40


class Source:
    """An input of CONTENT, and which ranges of it were fetched; None: all of it."""

    def __init__(self) -> None:
        self.fetched: list[ByteRange | None] = []

    def fetch(self, _key: str, path: Path) -> None:
        self.fetched.append(None)
        path.write_bytes(CONTENT)

    def fetch_ranges(self, path: Path, ranges: Sequence[ByteRange]) -> None:
        with path.open("r+b") as file:
            for start, stop in ranges:
                self.fetched.append((start, stop))
                file.seek(start)
                file.write(CONTENT[start:stop])


def part(own: Workspace, source: Source, *ranges: ByteRange) -> Path:
    wanted = InputRanges(size_bytes=len(CONTENT), ranges=ranges)
    path = own.fetch_part_of_input(file_id="a", wanted=wanted, fetch_ranges=source.fetch_ranges)
    content = path.read_bytes()
    assert len(content) == len(CONTENT)
    assert all(content[start:stop] == CONTENT[start:stop] for start, stop in ranges)
    return path


def whole(own: Workspace, source: Source, **more: Any) -> Path:
    return own.fetch_input(file_id="a", storage_key="a", fetch=source.fetch, **more)


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if path.suffix != LOCK_SUFFIX}


def test_each_byte_is_fetched_once_for_all_workers_of_a_machine(tmp_path: Path) -> None:
    source = Source()
    one, other = (Workspace(tmp_path, cache_bytes=10**6) for _ in range(2))
    path = part(one, source, (0, 100), (500, 600))
    assert path.read_bytes()[100:500] == bytes(400)
    part(other, source, (50, 150), (500, 600), (9000, 10000))
    assert part(one, source, (50, 150)) == path
    assert source.fetched == [(0, 100), (500, 600), (100, 150), (9000, 10000)]
    assert whole(other, source, fetch_ranges=source.fetch_ranges).read_bytes() == CONTENT
    assert source.fetched[4:] == [(150, 500), (600, 9000)], "the rest"
    part(one, source, (200, 300))
    assert whole(one, source).read_bytes() == CONTENT
    assert len(source.fetched) == 6, "the whole is there"
    assert files(tmp_path / "inputs") == {"a"}


@pytest.mark.parametrize("forgets", [False, True])
def test_what_is_not_whole_is_not_taken_for_it(tmp_path: Path, forgets: bool) -> None:
    source = Source()
    own = Workspace(tmp_path, cache_bytes=10**6)
    part(own, source, (0, 100))
    if forgets:
        own.forget_part_of_input("a")
        assert files(tmp_path / "inputs") == set()
    assert (
        whole(own, source, **({"fetch_ranges": source.fetch_ranges} if forgets else {})).read_bytes()
        == CONTENT
    )
    assert source.fetched == [(0, 100), None]
    own.forget_part_of_input("a")
    part(own, source, (0, 100))
    assert len(source.fetched) == 2, "the whole is not forgotten"


def test_ranges_whose_fetching_failed_are_fetched_again(tmp_path: Path) -> None:
    source = Source()
    own = Workspace(tmp_path, cache_bytes=10**6)
    part(own, source, (0, 100))

    def fail(_path: Path, _ranges: Sequence[ByteRange]) -> None:
        raise StorageError("away")

    with pytest.raises(StorageError):
        whole(own, source, fetch_ranges=fail)
    wanted = InputRanges(size_bytes=len(CONTENT), ranges=((0, 300),))
    with pytest.raises(StorageError):
        own.fetch_part_of_input(file_id="a", wanted=wanted, fetch_ranges=fail)
    part(own, source, (0, 300))
    assert source.fetched == [(0, 100), (100, 300)]


def test_holes_take_no_room_and_the_record_goes_with_its_file(tmp_path: Path) -> None:
    source = Source()
    own = Workspace(tmp_path, cache_bytes=20_000)
    huge = InputRanges(size_bytes=10**12, ranges=((0, 100),))
    own.fetch_part_of_input(file_id="huge", wanted=huge, fetch_ranges=source.fetch_ranges)
    own.fetch_input(file_id="b", storage_key="b", fetch=source.fetch)
    assert files(tmp_path / "inputs") == {"huge", "huge.ranges", "b"}
    own.fetch_input(file_id="c", storage_key="c", fetch=source.fetch)
    assert files(tmp_path / "inputs") == {"b", "c"}, "used longest ago"
    own.fetch_part_of_input(file_id="huge", wanted=huge, fetch_ranges=source.fetch_ranges)
    own.fetch_input(file_id="d", storage_key="d", fetch=source.fetch)
    own.drop_inputs()
    assert files(tmp_path / "inputs") == files(own.path / "inputs") == {"d"}


def test_threads_and_workers_that_need_parts_of_one_input_share_them(tmp_path: Path) -> None:
    source = Source()
    workers = [Workspace(tmp_path, cache_bytes=10**6) for _ in range(2)]
    together = threading.Barrier(8, timeout=10)

    def fetch(number: int) -> None:
        together.wait()
        part(workers[number % 2], source, (0, 50), (100 * number, 100 * number + 100))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(fetch, range(1, 9)))
    assert sorted(one for one in source.fetched if one) == [
        (0, 50),
        *((n * 100, n * 100 + 100) for n in range(1, 9)),
    ]
    for own in workers:
        assert len(files(own.path / "inputs")) == 1


class Remote:
    """The workplace's storage, as if it were far away: nothing is linked."""

    links_files = False

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def fetch(self, key: str, path: Path, *, in_parts: bool = True) -> None:
        path.write_bytes(b"".join(self._storage.read(key)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


class Site:
    """Two machines: one reads videos and joins results, the other upscales."""

    def __init__(self, place: Workplace, remote: Remote, root: Path) -> None:
        self.place, self.remote = place, remote
        self._settings = Settings(**{**place.settings.model_dump(), "data_dir": root})
        self._first = WorkerInProcess(place, storage=remote)  # type: ignore[arg-type]
        self._first.ledger.queues = frozenset({WorkQueue.CPU})

    def render(self, between: Callable[[str], None] = lambda _render_id: None) -> tuple[bytes, Render]:
        """The output of one render, and its row. `between` is called before its segments are upscaled."""
        render_id = self.place.submit()
        self._first.work()
        between(render_id)
        other = WorkerInProcess(self.place, storage=self.remote, settings=self._settings)  # type: ignore[arg-type]
        other.ledger.queues = frozenset({WorkQueue.GPU})
        other.work()
        other.close()
        self._first.work()
        row = other.render(render_id)
        assert row.status is RenderStatus.COMPLETED, row.error
        assert row.output_key is not None
        return b"".join(self.place.storage.read(row.output_key)), row

    def close(self) -> None:
        self._first.close()


@pytest.fixture
def site(
    workplace: Callable[..., Workplace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    for name, value in (
        ("LEAST_BYTES", 0),
        ("OPENING_BYTES", 2000),
        ("LEAST_GAP_BYTES", 0),
        ("PACKETS_AFTER", 4),
        ("MOST_SHARE", 1),
    ):
        monkeypatch.setattr(input_ranges, name, value)
    place = workplace(segment_seconds="0.4", sandbox="off")
    place.clip = tmp_path / "clip.mp4"
    source = "testsrc2=size=64x36:rate=25,noise=alls=30:allf=t"
    command = ["-f", "lavfi", "-i", source, "-frames:v", "30", "-g", "10", "-pix_fmt", "yuv420p", "-bf", "1"]
    subprocess.run([find_programs().ffmpeg, "-v", "error", *command, place.clip], check=True)
    one = Site(place, Remote(place.storage), tmp_path / "other")
    yield one
    one.close()


def fetched_bytes(what: str) -> float:
    return REGISTRY.get_sample_value("regen_input_bytes_fetched_total", {"what": what}) or 0


Change = Callable[[int, InputRanges], InputRanges | None]


def render_counted(site: Site, change: Change) -> tuple[bytes, float, float]:
    """The output, and the bytes that were fetched by whole files and by ranges. No segment failed."""
    before = fetched_bytes("whole"), fetched_bytes("ranges")
    output, row = site.render(partial(change_ranges, site.place, change))
    assert [segment.failures for segment in row.segments] == [0, 0, 0, 0]
    return output, fetched_bytes("whole") - before[0], fetched_bytes("ranges") - before[1]


def test_a_wrong_part_costs_no_more_than_a_fetch_of_the_whole(site: Site) -> None:
    size_bytes = site.place.clip.stat().st_size

    def last_without_frames(number: int, wanted: InputRanges) -> InputRanges:
        return replace(wanted, ranges=wanted.ranges[:1]) if number == 3 else wanted

    _, whole_bytes, range_bytes = render_counted(site, last_without_frames)
    assert whole_bytes == 2 * size_bytes, "by each machine"
    assert 0 < range_bytes < size_bytes


@pytest.mark.slow
def test_what_is_made_from_parts_is_equal_to_the_last_byte(site: Site) -> None:
    size_bytes = site.place.clip.stat().st_size
    expected, *counts = render_counted(site, lambda _number, _wanted: None)
    assert counts == [2 * size_bytes, 0]
    output, *counts = render_counted(site, lambda _number, wanted: wanted)
    assert output == expected
    assert counts == [size_bytes, size_bytes], "each byte once for each machine"


def change_ranges(place: Workplace, change: Change, render_id: str) -> None:
    with place.database.write() as session:
        for number, row in enumerate(session.get_one(Render, render_id).segments):
            segment = SegmentPlan.from_json(row.plan)
            assert segment.input_ranges is not None
            row.plan = replace(segment, input_ranges=change(number, segment.input_ranges)).to_json()
