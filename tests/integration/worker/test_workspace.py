"""A worker's directory: inputs are fetched once, and nothing is left of workers that died."""

import errno
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.platform.errors import Canceled
from worker.workspace import Workspace


class CountingStorage:
    """Objects of 100 bytes, and how often each was fetched."""

    def __init__(self) -> None:
        self.fetched: list[str] = []

    def fetch(self, key: str, path: Path, *, in_parts: bool = True) -> None:
        self.fetched.append(key)
        path.write_bytes(b"x" * 100)


def workspace(parent: Path, cache_bytes: int = 250) -> Workspace:
    return Workspace(parent, cache_bytes=cache_bytes)


def test_an_input_is_fetched_once(tmp_path: Path) -> None:
    storage = CountingStorage()
    own = workspace(tmp_path)
    paths = {own.fetch_input(file_id="a", storage_key="key a", fetch=storage.fetch) for _ in range(5)}
    assert storage.fetched == ["key a"]
    assert [path.read_bytes() for path in paths] == [b"x" * 100]


def test_the_input_used_longest_ago_makes_room(tmp_path: Path) -> None:
    storage = CountingStorage()
    own = workspace(tmp_path)
    for name in ("a", "b", "a", "c"):
        own.fetch_input(file_id=name, storage_key=name, fetch=storage.fetch)
    assert storage.fetched == ["a", "b", "c"]
    own.fetch_input(file_id="a", storage_key="a", fetch=storage.fetch)
    assert storage.fetched == ["a", "b", "c"]
    own.fetch_input(file_id="b", storage_key="b", fetch=storage.fetch)
    assert storage.fetched == ["a", "b", "c", "b"]


def test_an_input_larger_than_the_room_is_there_while_it_is_used(tmp_path: Path) -> None:
    own = workspace(tmp_path, cache_bytes=0)
    fetch = CountingStorage().fetch
    assert own.fetch_input(file_id="a", storage_key="a", fetch=fetch).exists()


def test_a_full_disk_costs_the_inputs_that_are_not_in_use(tmp_path: Path) -> None:
    storage = CountingStorage()
    own = workspace(tmp_path)
    for name in ("a", "b"):
        own.fetch_input(file_id=name, storage_key=name, fetch=storage.fetch)
    with pytest.raises(OSError, match="no room"), own.job_directory():
        raise OSError(errno.ENOSPC, "no room")
    assert [path.name for path in (own.path / "inputs").iterdir()] == ["b"]


def test_a_fetch_that_finds_the_disk_full_makes_room_from_its_own_thread(tmp_path: Path) -> None:
    storage = CountingStorage()
    own = workspace(tmp_path)
    for name in ("a", "b"):
        own.fetch_input(file_id=name, storage_key=name, fetch=storage.fetch)

    def fetch(key: str, path: Path) -> None:
        transfer = threading.Thread(target=own.drop_inputs, daemon=True)
        transfer.start()
        transfer.join(timeout=5)
        assert not transfer.is_alive(), "it waits for the fetch that waits for it"
        storage.fetch(key, path)

    assert own.fetch_input(file_id="c", storage_key="c", fetch=fetch).exists()
    shared = {path.name for path in (tmp_path / "inputs").iterdir() if path.suffix != ".lock"}
    assert shared == {"b", "c"}, "a is not in use"


def test_threads_that_fetch_one_input_share_it(tmp_path: Path) -> None:
    storage = CountingStorage()
    own = workspace(tmp_path)
    both_wait = threading.Barrier(2)

    def fetch(_number: int) -> Path:
        both_wait.wait(timeout=5)
        return own.fetch_input(file_id="a", storage_key="a", fetch=storage.fetch)

    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(fetch, range(2)))) == 1
    assert storage.fetched == ["a"]
    assert [path.name for path in (own.path / "inputs").iterdir()] == ["a"]


def test_a_jobs_directory_goes_with_the_job(tmp_path: Path) -> None:
    own = workspace(tmp_path)
    with pytest.raises(RuntimeError), own.job_directory() as directory:
        (directory / "part").write_bytes(b"x")
        raise RuntimeError
    assert not directory.exists()
    own.close()
    assert not own.path.exists()


def test_what_a_dead_worker_left_is_removed_and_a_living_ones_is_kept(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from worker.workspace import Workspace;"
        "own = Workspace(Path(sys.argv[1]), cache_bytes=0); print(own.path, flush=True);"
        "os._exit(1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
    )
    abandoned = Path(done.stdout.strip())
    assert abandoned.is_dir(), done.stderr
    living = workspace(tmp_path)
    another = workspace(tmp_path)
    assert not abandoned.exists()
    assert living.path.is_dir()
    assert another.path.is_dir()


def test_workers_of_one_machine_fetch_an_input_once(tmp_path: Path) -> None:
    """Also while the first still fetches it. What one of them reads stays, whatever the others remove."""
    own, other = workspace(tmp_path, cache_bytes=0), workspace(tmp_path, cache_bytes=0)
    fetched: list[str] = []
    entered, leave = threading.Event(), threading.Event()

    def fetch(key: str, path: Path) -> None:
        fetched.append(key)
        entered.set()
        assert leave.wait(20)
        path.write_bytes(b"x" * 100)

    def fetch_by(place: Workspace) -> Path:
        return place.fetch_input(file_id="a", storage_key="a", fetch=fetch)

    with ThreadPoolExecutor() as pool:
        first = pool.submit(fetch_by, own)
        assert entered.wait(20)
        with pytest.raises(Canceled):
            other.fetch_input(file_id="a", storage_key="a", fetch=fetch, cancelled=lambda: True)
        second = pool.submit(fetch_by, other)
        leave.set()
        paths = [first.result(), second.result()]
    assert fetched == ["a"]
    own.close()
    other.drop_inputs()
    assert (paths[0].exists(), paths[1].read_bytes()) == (False, b"x" * 100)
    other.close()
    workspace(tmp_path, cache_bytes=0).drop_inputs()
    assert list((tmp_path / "inputs").iterdir()) == []


def test_a_worker_that_dies_while_it_fetches_leaves_the_input_to_the_next(tmp_path: Path) -> None:
    program = f"""
import os
from pathlib import Path
from worker.workspace import Workspace
def fetch(key, path):
    path.write_bytes(b"half")
    os.kill(os.getpid(), 9)
Workspace(Path({str(tmp_path)!r}), cache_bytes=1000).fetch_input(file_id="a", storage_key="a", fetch=fetch)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    storage = CountingStorage()
    path = workspace(tmp_path).fetch_input(file_id="a", storage_key="a", fetch=storage.fetch)
    assert (storage.fetched, path.read_bytes()) == (["a"], b"x" * 100)
