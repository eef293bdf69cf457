"""A worker's loop in the test's own process, on a workplace."""

from collections.abc import Callable

from sqlalchemy.orm import selectinload

from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits
from app.platform.settings import Settings
from app.platform.storage.contract import Storage
from app.renders.tables import Render
from app.work.drain import Drain
from app.work.ledger import WorkLedger
from app.work.loop import WorkLoop
from app.work.outage_retry import OutageRetry
from app.work.queries import Job, ReadyUnits
from tests.integration.worker.conftest import Workplace
from worker.loaded_upscaler import Networks
from worker.work_units import WorkUnits
from worker.workspace import Workspace


class WorkerInProcess:
    """Put together as a worker process is; outages are not waited out. `close` it.

    `settings` and `storage` are the workplace's own unless given.
    """

    def __init__(
        self,
        place: Workplace,
        *,
        name: str = "one",
        settings: Settings | None = None,
        storage: Storage | None = None,
        max_attempts: int = 3,
        cache_bytes: int = 10**9,
        outage_retry: OutageRetry | None = None,
    ) -> None:
        settings = settings or place.settings
        self.place = place
        networks = Networks(settings)
        self.ledger = WorkLedger(
            database=place.database,
            worker=name,
            lease_seconds=30,
            max_attempts=max_attempts,
            precisions=tuple(networks.precisions),
        )
        self.workspace = Workspace(settings.work_dir, cache_bytes=cache_bytes)
        self.units = WorkUnits(
            settings=settings,
            ledger=self.ledger,
            storage=storage or place.storage,
            workspace=self.workspace,
            runner=FfmpegRunner.for_work(settings),
            limits=MediaLimits.from_settings(settings),
            networks=networks,
            outage_retry=outage_retry or OutageRetry(seconds=0),
            drain=Drain(grace_seconds=60),
            wake=self.wake,
            on_device_hang=lambda: None,
        )

    def wake(self, ready: ReadyUnits) -> None:
        """Called when segments are released."""

    def work(self, claim: Callable[..., Job | None] | None = None) -> None:
        """Do what there is to do, or what `claim` returns."""
        WorkLoop(
            ledger=self.ledger,
            units=self.units.by_kind(),
            drain=self.units.drain,
            outage_retry=self.units.outage_retry,
            wake=lambda _ready: None,
            stop=lambda: None,
            is_well=lambda: True,
            claim=claim,
        )()

    def render(self, render_id: str) -> Render:
        with self.place.database.read() as session:
            return session.get_one(Render, render_id, options=[selectinload(Render.segments)])

    def close(self) -> None:
        self.workspace.close()
