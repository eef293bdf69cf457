"""A worker's directory on this machine: temporary directories of jobs, and the inputs that it reads."""

import contextlib
import fcntl
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.platform.liveness import DIRECTORY_PREFIX, LOCK_NAME
from app.work.outage_retry import is_disk_full
from worker.shared_inputs import FetchRanges, SharedInputs
from worker.video.input_ranges import InputRanges

# Of the name of an input of which this worker has some ranges.
PART_SUFFIX = "-part"


class Workspace:
    """Belongs to one process and is locked while it lives. Directories of workers that died are removed first.

    Inputs are cached beside the directories, for all workers of the machine: `cache_bytes` in all.
    """

    def __init__(self, parent: Path, *, cache_bytes: int) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        self._shared = SharedInputs(parent / "inputs", cache_bytes=cache_bytes)
        with (parent / "lock").open("w") as creation_lock:
            # Held until the new directory is locked: until then another worker would take it for abandoned.
            fcntl.flock(creation_lock, fcntl.LOCK_EX)
            _remove_abandoned(parent)
            self.path = Path(tempfile.mkdtemp(prefix=DIRECTORY_PREFIX, dir=parent))
            self._lock = (self.path / LOCK_NAME).open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._inputs = self.path / "inputs"
        self._inputs.mkdir()
        self._fetched: dict[str, Path] = {}
        # Guards `_fetched` and `_used_by_thread`.
        self._changing = threading.Lock()
        self._used_by_thread: dict[int, set[str]] = {}

    @property
    def capacity_bytes(self) -> int:
        """The size of the disk, full or not."""
        return shutil.disk_usage(self.path).total

    @property
    def free_bytes(self) -> int:
        return shutil.disk_usage(self.path).free

    @contextmanager
    def job_directory(self) -> Iterator[Path]:
        """A new temporary directory, removed afterwards.

        When the disk is full, all inputs that are not in use are removed, to free space for the next job.
        """
        # Errors ignored: a cancelled transfer may still write a file there.
        with tempfile.TemporaryDirectory(
            prefix="job-", dir=self.path, ignore_cleanup_errors=True
        ) as directory:
            try:
                yield Path(directory)
            except Exception as error:
                if is_disk_full(error):
                    self.drop_inputs()
                raise

    @contextmanager
    def using_inputs(self) -> Iterator[None]:
        """The inputs that this thread fetches within the block stay until its end."""
        thread = threading.get_ident()
        with self._changing:
            self._used_by_thread[thread] = set()
        try:
            yield
        finally:
            with self._changing:
                del self._used_by_thread[thread]

    def fetch_input(
        self,
        *,
        file_id: str,
        storage_key: str,
        fetch: Callable[[str, Path], None],
        cancelled: Callable[[], bool] = lambda: False,
        fetch_ranges: FetchRanges | None = None,
    ) -> Path:
        """Returns the input's path, after fetching it by `fetch` unless it is cached. Callers must not write to it.

        Where parts of it are cached, `fetch_ranges` fetches the rest. Waits while another worker of this machine
        fetches it. Raises Canceled once `cancelled` returns True.
        """
        with self._changing:
            if file_id in self._fetched:
                return self._use(file_id)
        # A cancelled fetch of the same input may still continue.
        part = self._inputs / f"{file_id}-{secrets.token_hex(4)}"
        # Not locked: a transfer that finds the disk full drops inputs, in its own thread.
        self._shared.fetch(
            file_id,
            part,
            fetch=lambda part: fetch(storage_key, part),
            cancelled=cancelled,
            fetch_ranges=fetch_ranges,
        )
        return self._take(part, file_id)

    def fetch_part_of_input(
        self,
        *,
        file_id: str,
        wanted: InputRanges,
        fetch_ranges: FetchRanges,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Path:
        """The path of a file of the input's length that has at least the wanted ranges of it, elsewhere zeros.

        Ranges that are not cached are fetched. Raises as `fetch_input` does, and OSError on a disk without hard links.
        """
        with self._changing:
            if file_id in self._fetched:
                return self._use(file_id)
        part = self._inputs / f"{file_id}-{secrets.token_hex(4)}"
        self._shared.fetch_part(file_id, part, wanted=wanted, fetch_ranges=fetch_ranges, cancelled=cancelled)
        return self._take(part, f"{file_id}{PART_SUFFIX}")

    def forget_part_of_input(self, file_id: str, *, cancelled: Callable[[], bool] = lambda: False) -> None:
        """The input is fetched anew when it is needed next, unless the whole is cached."""
        self._shared.forget_part(file_id, cancelled=cancelled)

    def drop_inputs(self) -> None:
        """Removes all inputs that no worker of this machine has in use."""
        with self._changing:
            self._drop_unused()
            self._shared.make_room(keep_bytes=0)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()

    def _take(self, part: Path, name: str) -> Path:
        """Keep the new file under that name, in place of one that another thread fetched meanwhile."""
        with self._changing:
            self._fetched[name] = part.replace(self._inputs / name)
            part.unlink(missing_ok=True)  # of two links to one file both stay
            return self._use(name)

    def _use(self, file_id: str) -> Path:
        path = self._fetched[file_id] = self._fetched.pop(file_id)  # the most recently used comes last
        self._used_by_thread.get(threading.get_ident(), set()).add(file_id)
        self._drop_unused()
        self._shared.make_room()
        return path

    def _drop_unused(self) -> None:
        for file_id in self._unused():
            self._fetched.pop(file_id).unlink()

    def _unused(self) -> list[str]:
        """The inputs that can be removed: never the last one."""
        used = set[str]().union(*self._used_by_thread.values())
        return [file_id for file_id in list(self._fetched)[:-1] if file_id not in used]


def _remove_abandoned(parent: Path) -> None:
    for directory in parent.glob(f"{DIRECTORY_PREFIX}*"):
        with contextlib.suppress(OSError), (directory / LOCK_NAME).open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
