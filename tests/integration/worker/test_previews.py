"""Previews made in this process, on a database and a storage of their own, with and without faults."""

import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import update

from app.accounts import queries as account_queries
from app.files.tables import File
from app.platform.errors import AccessRefused, Canceled, PermanentError, StorageError, TransientError
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits
from app.platform.media.output_size import OutputSize
from app.platform.media.probe import probe_video
from app.platform.media.rectangles import Area
from app.platform.media.work_options import WorkOptions
from app.platform.secrets import new_id
from app.platform.settings import Settings
from app.platform.storage.contract import Storage
from app.previews.service import PreviewJob, PreviewLedger, create_preview, delete_preview
from app.previews.tables import Preview
from app.renders.statuses import RenderStatus
from app.renders.tables import Render
from app.work.drain import Drain
from app.work.outage_retry import OutageRetry
from models.catalog import DEFAULT_ENGINE, ENGINES
from tests.integration.rows import a_file
from tests.integration.worker.conftest import CLIP_HEIGHT, CLIP_RATE, CLIP_WIDTH, Workplace
from worker import preview_maker, previews
from worker.inference.frames import FrameFormat
from worker.inference.mixing import PictureOptions
from worker.loaded_upscaler import Networks, UpscalerKey
from worker.local import upscale_file
from worker.pictures import to_rgb
from worker.preview_maker import CROPPED_WARNING, REDUCED_WARNING, PreviewResult, choose_crop
from worker.previews import Previewer

SECONDS = 60


class Studio:
    """A previewer, and what it works on. `storage` may be replaced by one that fails."""

    def __init__(self, place: Workplace, storage: Storage | None = None) -> None:
        self.place = place
        render_id = place.submit()
        with place.database.read() as session:
            self.file_id = session.get_one(Render, render_id).file_id
        self.drain = Drain(grace_seconds=60)
        self.ledger = PreviewLedger(
            database=place.database, worker="worker-1", lease_seconds=30, max_attempts=3
        )
        self.previewer = Previewer(
            settings=place.settings,
            ledger=self.ledger,
            storage=storage or place.storage,
            runner=FfmpegRunner.for_work(place.settings),
            outage_retry=OutageRetry(seconds=0),
            drain=self.drain,
        )

    def ask(self, at_seconds: Fraction = Fraction(0), crop: Area | None = None, **options: Any) -> str:
        with self.place.database.write() as session:
            return create_preview(
                session,
                file=session.get_one(File, self.file_id),
                engine=ENGINES[DEFAULT_ENGINE],
                at_seconds=at_seconds,
                crop=crop,
                limits=MediaLimits.from_settings(self.place.settings),
                max_open=100,
                **options,
            ).id

    def read(self, preview_id: str) -> Preview | None:
        with self.place.database.read() as session:
            return session.get(Preview, preview_id)

    def wake(self) -> None:
        """Whatever rests has rested."""
        with self.place.database.write() as session:
            session.execute(update(Preview).values(retry_at=None))

    def stored(self) -> list[str]:
        return sorted(stored.key for stored in self.place.storage.list("previews/"))

    def pictures(self, preview: Preview | None, directory: Path) -> list[NDArray[np.uint8]]:
        """Before and after, as rows x columns x 3."""
        assert preview is not None
        found = []
        for number, key in enumerate((preview.before_key, preview.after_key)):
            assert key is not None
            path = directory / f"{preview.id}-{number}.png"
            self.place.storage.fetch(key, path)
            found.append(pixels(path))
        return found


def pixels(path: Path) -> NDArray[np.uint8]:
    header = path.read_bytes()[16:24]
    width, height = int.from_bytes(header[:4]), int.from_bytes(header[4:])
    command = ["ffmpeg", "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(height, width, 3)


def frames_of(path: Path, frame_format: FrameFormat) -> list[NDArray[np.uint8]]:
    command = ["ffmpeg", "-v", "error", "-i", path, "-map", "0:v:0", "-fps_mode", "passthrough"]
    raw = subprocess.run(
        [*command, "-f", "rawvideo", "-pix_fmt", frame_format.pix_fmt, "pipe:1"],
        check=True,
        capture_output=True,
    ).stdout
    return list(np.frombuffer(raw, np.uint8).reshape(-1, frame_format.frame_bytes))


@pytest.fixture
def studio(workplace: Callable[..., Workplace]) -> Iterator[Callable[..., Studio]]:
    made: list[Studio] = []

    def make(storage: Callable[[Storage], Storage] | None = None, **settings: str) -> Studio:
        place = workplace(**settings)
        made.append(Studio(place, storage(place.storage) if storage else None))
        return made[-1]

    yield make
    for one in made:
        one.previewer.stop()


class Faulty:
    """A storage of which some methods are others."""

    def __init__(self, storage: Storage, **methods: Callable[..., Any]) -> None:
        self._storage = storage
        self.__dict__.update(methods)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


@pytest.mark.parametrize(
    ("size", "factor", "stabilise", "picture"),
    [
        (OutputSize(), Fraction(4), 0, PictureOptions()),
        (OutputSize(scale=2), Fraction(2), 0, PictureOptions(strength=0.4, grain=1)),
        (OutputSize(max_width=300), Fraction(5, 2), 0, PictureOptions()),
        (OutputSize(), Fraction(4), 3, PictureOptions(grain=1, is_stabilised=True)),
    ],
)
def test_it_shows_the_render_before_encoding(
    studio: Callable[..., Studio],
    tmp_path: Path,
    size: OutputSize,
    factor: Fraction,
    stabilise: int,
    picture: PictureOptions,
) -> None:
    """The network itself on a crop, and losslessly on the whole video; averaged with what is around it in time."""
    count, number = (6, 3) if stabilise else (2, 1)
    film = tmp_path / "film.mp4"
    source = Path(__file__).parents[2] / "media" / "bunny-240x136-25fps.mp4"
    cut = ["-ss", "1", "-i", source, "-vf", "crop=120:80", "-frames:v", str(count)]
    cut += ["-an", "-qp", "0", film]
    subprocess.run(["ffmpeg", "-v", "error", *cut], check=True)
    at = studio(stand_in_network="false")
    place = at.place
    with place.database.write() as session:
        file = session.get_one(File, at.file_id)
        file.width, file.height, file.storage_key = 120, 80, "files/film/input"
    info = probe_video(
        FfmpegRunner.for_work(place.settings), film, limits=MediaLimits.from_settings(place.settings)
    )
    networks = Networks(place.settings)
    plans = []

    def make_upscaler(plan: Any) -> Any:
        plans.append(plan)
        return networks.upscaler(
            UpscalerKey(engine_id=DEFAULT_ENGINE, source=plan.source, target=plan.target, picture=picture)
        )

    upscale_file(
        runner=FfmpegRunner.for_work(place.settings),
        source=film,
        info=info,
        destination=tmp_path / "render.mp4",
        options=WorkOptions(
            engine=DEFAULT_ENGINE, **asdict(size), output_quality="lossless", stabilise=stabilise
        ),
        settings=place.settings,
        make_upscaler=make_upscaler,
        work_directory=tmp_path,
        on_progress=lambda _progress: None,
    )
    rendered = frames_of(tmp_path / "render.mp4", plans[0].target)[number]
    original = frames_of(film, plans[0].source)[number]
    place.storage.put_file("files/film/input", film, content_type="video/mp4")
    crop = Area(x=41, y=33, width=31, height=22)
    options = {"strength": picture.strength, "grain": picture.grain, "stabilise": stabilise}
    preview_id = at.ask(Fraction(number, 25), crop, size=size, **options)

    assert at.previewer.make_next()
    assert not at.previewer.make_next()
    preview = at.read(preview_id)
    assert preview is not None
    assert (preview.status, preview.warnings, preview.crop_x) == (RenderStatus.COMPLETED, [], 41)
    before, after = at.pictures(preview, tmp_path)
    assert np.array_equal(before, to_rgb(original, plans[0].source, crop))
    expected = to_rgb(rendered, plans[0].target, crop.enlarged(factor, factor)).astype(int)
    # Where convolutions add up in another order a sample may be rounded the other way.
    assert np.abs(after - expected).max() <= 3
    assert (after != expected).mean() < 0.01
    # And it is no mere enlargement.
    rows, columns = (
        np.minimum(np.arange(enlarged) * factor.denominator // factor.numerator, side - 1)
        for enlarged, side in zip(after.shape[:2], before.shape[:2], strict=True)
    )
    assert np.abs(after - before[rows][:, columns].astype(int)).max() > 20


def test_what_a_cpu_shows(studio: Callable[..., Studio], tmp_path: Path) -> None:
    small = studio(preview_cpu_pixels="768")
    chosen, asked = (
        small.ask(Fraction(3, CLIP_RATE)),
        small.ask(crop=Area(x=0, y=0, width=64, height=48 * 2 // 3)),
    )
    too_much = small.ask(crop=Area(x=0, y=0, width=CLIP_WIDTH, height=CLIP_HEIGHT))
    while small.previewer.make_next():
        pass

    preview = small.read(chosen)
    assert preview is not None
    crop = preview.crop_x, preview.crop_y, preview.crop_width, preview.crop_height
    assert (crop, preview.warnings) == ((16, 12, 32, 24), [CROPPED_WARNING])
    before, after = small.pictures(preview, tmp_path)
    assert after.shape == (96, 128, 3)
    # The stand-in repeats samples, but for chroma, which goes through RGB.
    assert np.abs(after[2::4, 2::4].astype(int) - before).mean() < 4
    for preview_id, size in ((asked, (64, 32)), (too_much, (64, 48))):
        preview = small.read(preview_id)
        assert preview is not None
        assert (preview.status, preview.warnings) == (RenderStatus.COMPLETED, [])
        assert (preview.crop_width or CLIP_WIDTH, preview.crop_height or CLIP_HEIGHT) == size


def test_how_much_is_shown() -> None:
    frame = FrameFormat(width=1920, height=1080)
    settings = Settings()
    lite, full = ENGINES["regen-4x-lite"], ENGINES["regen-4x"]
    whole = Area(x=0, y=0, width=1920, height=1080)
    on_gpu = {"frame": frame, "settings": settings, "on_cpu": False}
    on_cpu = {"frame": frame, "settings": settings, "on_cpu": True}

    assert choose_crop(None, engine=full, **on_gpu) == (whole, [])  # type: ignore[arg-type]
    chosen, warnings = choose_crop(None, engine=lite, **on_cpu)  # type: ignore[arg-type]
    assert (chosen, warnings) == (Area(x=800, y=450, width=320, height=180), [CROPPED_WARNING])
    assert choose_crop(None, engine=full, **on_cpu)[0].pixels == 160 * 90  # type: ignore[arg-type]
    wanted = Area(x=100, y=100, width=640, height=360)
    assert choose_crop(wanted, engine=lite, **on_cpu) == (wanted, [])  # type: ignore[arg-type]
    reduced, warnings = choose_crop(wanted, engine=full, **on_cpu)  # type: ignore[arg-type]
    assert (reduced, warnings) == (Area(x=260, y=190, width=320, height=180), [REDUCED_WARNING])


class TestFaults:
    def test_three_failures_fail_it(
        self, studio: Callable[..., Studio], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_memory(*_: object, **__: object) -> None:
            raise TransientError("The device's memory did not suffice.")

        at = studio()
        monkeypatch.setattr(Networks, "upscaler", no_memory)
        preview_id = at.ask()
        for _attempt in range(3):
            assert at.previewer.make_next()
            at.wake()

        assert not at.previewer.make_next()
        row = at.read(preview_id)
        assert row is not None
        assert (row.status, row.error) == (
            RenderStatus.FAILED,
            "The preview could not be made: it failed 3 times.",
        )
        assert at.stored() == []

    def test_what_cannot_be_mended_is_said_at_once(
        self, studio: Callable[..., Studio], tmp_path: Path
    ) -> None:
        at = studio()
        (tmp_path / "text").write_text("This is no video.")
        with at.place.database.read() as session:
            key = session.get_one(File, at.file_id).storage_key
        at.place.storage.put_file(key, tmp_path / "text", content_type="video/mp4")
        preview_id = at.ask()

        assert at.previewer.make_next()
        row = at.read(preview_id)
        assert row is not None
        assert row.status is RenderStatus.FAILED
        assert row.error == "The file is not a video in a format this server reads."

    @pytest.mark.parametrize("method", ["fetch", "put_file"])
    def test_a_file_that_alone_is_refused_is_no_outage(
        self, studio: Callable[..., Studio], method: str
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise AccessRefused("Not for you.", detail="403")

        at = studio(lambda storage: Faulty(storage, **{method: refuse}))
        preview_id = at.ask()
        for _ in range(3):
            assert at.previewer.make_next()
            at.wake()
        row = at.read(preview_id)
        assert row is not None
        assert (row.status, row.failures) == (RenderStatus.FAILED, 3)

    def test_an_outage_is_nobodys_failure(
        self, studio: Callable[..., Studio], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        faults = iter([StorageError("The storage is away.")])

        def with_outage(storage: Storage) -> Any:
            def fetch(key: str, path: Path, *, in_parts: bool = True) -> None:
                for fault in faults:
                    raise fault
                storage.fetch(key, path, in_parts=in_parts)

            return Faulty(storage, fetch=fetch)

        at = studio(with_outage)
        monkeypatch.setattr(preview_maker, "MAX_PNG_PIXELS", 1)
        preview_id = at.ask()
        assert at.previewer.make_next()
        assert not at.previewer.make_next(), "it rests"
        at.wake()
        assert at.previewer.make_next()

        row = at.read(preview_id)
        assert row is not None
        assert (row.status, row.failures) == (RenderStatus.COMPLETED, 0)
        # The larger ones are JPEGs.
        assert at.stored() == [f"previews/{preview_id}/{side}-2.jpg" for side in ("after", "before")]
        assert at.place.storage.stat(at.stored()[0]).content_type == "image/jpeg"

    def test_what_is_deleted_in_hand_leaves_nothing_behind(self, studio: Callable[..., Studio]) -> None:
        at: Studio

        def deleting(storage: Storage) -> Any:
            def put_file(key: str, path: Path, *, content_type: str) -> None:
                storage.put_file(key, path, content_type=content_type)
                if "after" in key:
                    row = at.read(preview_id)
                    assert row is not None
                    delete_preview(at.place.database, storage, preview_id=preview_id, user_id=row.user_id)
                    storage.put_file(key, resurrect(path), content_type=content_type)

            def resurrect(path: Path) -> Path:
                path.write_bytes(b"late")
                return path

            return Faulty(storage, put_file=put_file)

        at = studio(deleting)
        preview_id = at.ask()

        assert at.previewer.make_next()
        assert at.read(preview_id) is None
        assert at.stored() == []

    def test_a_worker_that_ends_gives_it_back_although_its_device_computes(
        self, studio: Callable[..., Studio], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        computing, done = threading.Event(), threading.Event()

        def compute(*_: object, **__: object) -> None:
            computing.set()
            done.wait(SECONDS)
            raise TransientError("Too late.")

        at = studio(preview_interval_seconds="0.05")
        monkeypatch.setattr(Networks, "upscaler", compute)
        monkeypatch.setattr(previews, "STOP_SECONDS", 0.2)
        preview_id = at.ask()
        at.previewer.start()
        try:
            assert computing.wait(SECONDS)
            at.drain.request(at_once=True)
            at.previewer.stop()
            row = at.read(preview_id)
            assert row is not None
            assert (row.lease_expires_at, row.failures) == (None, 0)
            assert at.previewer.is_left_computing
            other = at.ledger.claim()
            assert other is not None
            assert other.claim.preview_id == preview_id
        finally:
            done.set()
        at.previewer._thread.join(SECONDS)
        row = at.read(preview_id)
        assert row is not None
        assert (row.attempt, row.failures, row.status) == (2, 0, RenderStatus.PROCESSING)


def test_a_preview_that_takes_long_gives_way_to_those_of_other_users(
    studio: Callable[..., Studio], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone it may take its time; put back too often while others wait, it ends."""
    monkeypatch.setattr(previews, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(previews, "ASK_SECONDS", 0.0)
    own = studio()
    with own.place.database.write() as session:
        other_user = account_queries.add_user(session, user_id=new_id(), name="somebody else").id
        other = a_file(other_user)
        other.storage_key = session.get_one(File, own.file_id).storage_key
        session.add(other)
        other_file = other.id
    asked: list[str] = []

    def ask_for_other() -> None:
        first_file, own.file_id = own.file_id, other_file
        asked.append(own.ask())
        own.file_id = first_file

    def make(
        _maker: object, job: PreviewJob, _source: Path, _directory: Path, *, cancelled: Callable[[], bool]
    ) -> PreviewResult:
        if job.claim.preview_id == slow:
            ask_for_other()
        if any(cancelled() for _ in range(3)):
            raise Canceled
        raise PermanentError("Seen to its end.")

    def error_of(preview_id: str) -> str | None:
        preview = own.read(preview_id)
        assert preview is not None
        return preview.error

    monkeypatch.setattr(preview_maker.PreviewMaker, "make", make)
    slow = ""
    alone = own.ask()
    assert own.previewer.make_next()
    assert error_of(alone) == "Seen to its end."

    slow = own.ask()
    for _ in range(previews.MOST_TURNS):
        assert own.previewer.make_next()
        given_back = own.read(slow)
        assert given_back is not None and given_back.lease_expires_at is None and not given_back.failures
        assert own.previewer.make_next()
        assert error_of(asked[-1]) == "Seen to its end."
        own.wake()
    assert own.previewer.make_next()
    assert error_of(slow) == previews.OTHERS_WAIT
