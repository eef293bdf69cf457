"""A worker's directory: inputs are fetched once, and nothing is left of workers that died."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from worker.workspace import Workspace


class CountingStorage:
    """Objects of 100 bytes, and how often each was fetched."""

    def __init__(self) -> None:
        self.fetched: list[str] = []

    def fetch(self, key: str, path: Path) -> None:
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
