"""Worker processes on a database, a storage and a broker of a test's own."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from app import migrations
from app.accounts import queries as account_queries
from app.files.tables import File
from app.platform.database import Database
from app.platform.media.limits import MediaLimits
from app.platform.media.programs import find_programs
from app.platform.secrets import Secrets, new_id
from app.platform.settings import Settings
from app.platform.storage import open_storage
from app.platform.storage.contract import Storage
from app.renders.statuses import RenderStatus
from app.renders.tables import Render, Segment
from app.usage.allowances import Allowance
from app.work.ledger import WorkLedger
from tests.integration.rows import a_render
from tests.servers.forked import ForkedServerProcess
from tests.servers.process import ServerProcess, wait_until

CLIP_WIDTH, CLIP_HEIGHT, CLIP_FRAMES, CLIP_RATE = 64, 48, 20, 10
START_SECONDS = 60
RENDER_SECONDS = 120


@dataclass
class Workplace:
    """What workers share. Renders are submitted as the API does it, but for the wake-up."""

    root: Path
    clip: Path
    environment: dict[str, str]
    database: Database
    settings: Settings
    workers: list[ServerProcess] = field(default_factory=list)

    def start_worker(
        self, *arguments: str, forked: bool = True, forks_workers: bool = True, **settings: str
    ) -> ServerProcess:
        """`regen worker ARGUMENTS`, with further settings; returns at once. Not `forked`: by a Python of its own.
        `forks_workers`: as for ForkedServerProcess."""
        environment = self.environment | {f"REGEN_{name.upper()}": value for name, value in settings.items()}
        command = ["worker", "--data-dir", str(self.root / "data"), *arguments]
        log = self.root / f"worker-{len(self.workers)}.log"
        worker = (
            ForkedServerProcess(command, log=log, environment=environment, forks_workers=forks_workers)
            if forked
            else ServerProcess([sys.executable, "-m", "app.cli", *command], log=log, environment=environment)
        )
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        """End the workers that still run, all at the same time."""
        left = [worker for worker in self.workers if worker.status is None]
        for worker in left:
            worker.send_signal(signal.SIGCONT)
            # Twice is at once; it may have work in hand.
            worker.send_signal(signal.SIGTERM)
        for worker in left:
            worker.stop(seconds=60)
        self.database.close()

    @cached_property
    def storage(self) -> Storage:
        return open_storage(self.settings, Secrets.load(self.settings))

    def submit(self, *, request_id: str | None = None, **options: Any) -> str:
        """A queued render of the clip. Returns its id."""
        with self.database.write() as session:
            user = account_queries.add_user(session, user_id=new_id(), name=new_id())
            file = File(
                id=new_id(),
                user_id=user.id,
                name=self.clip.name,
                content_type="video/mp4",
                size_bytes=self.clip.stat().st_size,
                sha256=hashlib.sha256(self.clip.read_bytes()).hexdigest(),
                storage_key=f"files/{new_id()}/input",
                width=CLIP_WIDTH,
                height=CLIP_HEIGHT,
                frame_rate=Fraction(CLIP_RATE),
                duration_seconds=Fraction(CLIP_FRAMES, CLIP_RATE),
                frames=CLIP_FRAMES,
                created_at=datetime.now(UTC),
            )
            upload = self.root / file.id
            shutil.copy(self.clip, upload)
            self.storage.put_file(file.storage_key, upload, content_type="video/mp4")
            render = a_render(
                session,
                file,
                allowance=Allowance(media=MediaLimits.from_settings(self.settings)),
                request_id=request_id,
                **options,
            )
            return render.id

    def status(self, render_id: str) -> RenderStatus:
        with self.database.read() as session:
            return session.get_one(Render, render_id).status

    def wait_completed(self, render_id: str) -> None:
        def ended() -> bool:
            return self.status(render_id).is_final

        wait_until(ended, seconds=RENDER_SECONDS, what=f"{render_id} ends")
        assert self.status(render_id) is RenderStatus.COMPLETED, [worker.tail() for worker in self.workers]


def lines(worker: ServerProcess, event: str | None = None) -> list[dict[str, Any]]:
    """The lines of a worker's log, or those of one event."""
    # The last line may be half written; a command's own sentences are no JSON.
    texts = worker.log.read_text().splitlines(keepends=True)
    found = [json.loads(text) for text in texts if text.startswith("{") and text.endswith("\n")]
    return [line for line in found if event in (None, line["event"])]


def wait_ready(worker: ServerProcess, *, times: int = 1) -> None:
    worker.wait_until(
        lambda: len(lines(worker, "worker_ready")) >= times, seconds=START_SECONDS, what="the worker is ready"
    )


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So small that a render of it is done in a moment; each of its frames differs from all others."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    picture = f"testsrc2=size={CLIP_WIDTH}x{CLIP_HEIGHT}:rate={CLIP_RATE},scroll=horizontal={1 / CLIP_FRAMES}"
    arguments = ["-f", "lavfi", "-i", picture, "-frames:v", str(CLIP_FRAMES), "-pix_fmt", "yuv420p"]
    subprocess.run([find_programs().ffmpeg, "-v", "error", *arguments, path], check=True)
    return path


@pytest.fixture
def workplace(tmp_path: Path, clip: Path, migrated_database: Path) -> Iterator[Callable[..., Workplace]]:
    """Make one: `workplace(broker_url=..., lease_seconds="2")`. Its workers are ended afterwards."""
    made: list[Workplace] = []

    def make(**settings: str) -> Workplace:
        root = tmp_path / f"workplace-{len(made)}"
        if "database_url" not in settings:
            (root / "data").mkdir(parents=True)
            shutil.copy(migrated_database, root / "data" / "regen.db")
        made.append(make_workplace(root, clip, **settings))
        return made[-1]

    yield make
    for place in made:
        place.close()


def make_workplace(root: Path, clip: Path, **settings: str) -> Workplace:
    """One in the directory `root`, with further settings. Its database is migrated if need be. Close it."""
    values = {
        "stand_in_network": "true",
        "device": "cpu",
        "segment_seconds": "1",
        "log_format": "json",
        "secret_key": "a key for these tests and no others",
        **settings,
    }
    (root / "data").mkdir(parents=True, exist_ok=True)
    own = Settings(data_dir=root / "data", **values)  # type: ignore[arg-type]
    database = Database.from_settings(own)
    migrations.upgrade(database)
    others = {name: value for name, value in os.environ.items() if not name.startswith("REGEN_")}
    environment = others | {f"REGEN_{name.upper()}": value for name, value in values.items()}
    return Workplace(root=root, clip=clip, environment=environment, database=database, settings=own)


@pytest.fixture
def segment(
    make_ledger: Callable[..., WorkLedger],
    add_render: Callable[[], Render],
    prepare: Callable[..., Any],
    database: Database,
) -> Callable[[], Segment]:
    """The row, read afresh, of the one segment of a render in the works."""
    render = add_render()
    ledger = make_ledger()
    prepare(ledger, ledger.claim(), segments=1)

    def read() -> Segment:
        with database.read() as session:
            (row,) = session.get_one(Render, render.id).segments
            assert row.render is not None
            return row

    return read
