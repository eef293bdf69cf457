"""A worker's directory: inputs are fetched once, and nothing is left of workers that died."""

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


def workspace(parent: Path, storage: CountingStorage, cache_bytes: int = 250) -> Workspace:
    return Workspace(parent, storage=storage, cache_bytes=cache_bytes)  # type: ignore[arg-type]


def test_an_input_is_fetched_once(tmp_path: Path) -> None:
    storage = CountingStorage()
    own = workspace(tmp_path, storage)
    paths = {own.fetch_input(file_id="a", storage_key="key a") for _ in range(5)}
    assert storage.fetched == ["key a"]
    assert [path.read_bytes() for path in paths] == [b"x" * 100]


def test_the_input_used_longest_ago_makes_room(tmp_path: Path) -> None:
    storage = CountingStorage()
    own = workspace(tmp_path, storage)
    for name in ("a", "b", "a", "c"):
        own.fetch_input(file_id=name, storage_key=name)
    assert storage.fetched == ["a", "b", "c"]
    own.fetch_input(file_id="a", storage_key="a")
    assert storage.fetched == ["a", "b", "c"]
    own.fetch_input(file_id="b", storage_key="b")
    assert storage.fetched == ["a", "b", "c", "b"]


def test_an_input_larger_than_the_room_is_there_while_it_is_used(tmp_path: Path) -> None:
    own = workspace(tmp_path, CountingStorage(), cache_bytes=0)
    assert own.fetch_input(file_id="a", storage_key="a").exists()


def test_a_jobs_directory_goes_with_the_job(tmp_path: Path) -> None:
    own = workspace(tmp_path, CountingStorage())
    with pytest.raises(RuntimeError), own.job_directory() as directory:
        (directory / "part").write_bytes(b"x")
        raise RuntimeError
    assert not directory.exists()
    own.close()
    assert not own.path.exists()


def test_what_a_dead_worker_left_is_removed_and_a_living_ones_is_kept(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from worker.workspace import Workspace;"
        "own = Workspace(Path(sys.argv[1]), storage=None, cache_bytes=0); print(own.path, flush=True);"
        "os._exit(1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
    )
    abandoned = Path(done.stdout.strip())
    assert abandoned.is_dir(), done.stderr
    living = workspace(tmp_path, CountingStorage())
    another = workspace(tmp_path, CountingStorage())
    assert not abandoned.exists()
    assert living.path.is_dir()
    assert another.path.is_dir()
