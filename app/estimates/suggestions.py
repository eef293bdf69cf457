"""Which engine suits a video's pictures, from a few of its frames. It is suggested and never chosen.

A file's frames are looked at once, for its first estimate; the figures are stored with it.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import anyio
import structlog
from anyio import to_thread

from app.files import queries as file_queries
from app.files.service import find_file
from app.files.tables import File
from app.http.access import CurrentUser
from app.http.resources import Resources
from app.http.shared_slots import ClientConnection
from app.http.spool_space import new_spool_path
from app.platform.byte_sizes import MIB
from app.platform.errors import FfmpegError, FfmpegMissing, FfmpegTimeout, RegenError
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.info import VideoProperties
from app.platform.media.picture_kind import PictureStatistics, measure_pictures
from models.catalog import DEFAULT_ENGINE, Engine, PictureKind

# An estimate waits no longer for it.
LONGEST_SECONDS = 5.0
# Of a file in a bucket so much is read from its start, and from its end, where an MP4 may have its index.
READ_BYTES = 8 * MIB
# Of what ffmpeg says of a file that it cannot read.
DETAIL_CHARACTERS = 300
# Of a video whose start alone was read, moments so far into that part lie safely in it.
SAFE_PART = Fraction(3, 4)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """An engine, and a sentence that says why."""

    engine: str
    reason: str


def suggest(statistics: PictureStatistics | None, engines: Mapping[str, Engine]) -> Suggestion | None:
    """The engine that is made for such pictures; None where there is none, or where they are of no clear kind."""
    kind = None if statistics is None else statistics.kind
    engine = next(
        (one for one in engines.values() if one.made_for is not None and one.made_for == kind), None
    )
    if statistics is None or engine is None:
        return None
    looks = (
        f"drawn: {statistics.flat:.0%} of their area is of one colour, between abrupt edges"
        if kind is PictureKind.DRAWN
        else f"photographed, or rendered in detail: {1 - statistics.flat:.0%} of their area changes its colour, "
        "most of it softly"
    )
    default = engines[DEFAULT_ENGINE]
    times = engine.cost_multiplier / default.cost_multiplier
    return Suggestion(
        engine=engine.id,
        reason=f"{statistics.frames} frames that were looked at seem {looks}. `{engine.id}` is made for such pictures; "
        f"it costs {times:g} times as much as `{default.id}` and takes longer. This is a guess: a preview shows it.",
    )


async def look_at_file(
    file_id: str, *, user: CurrentUser, resources: Resources, connection: ClientConnection
) -> PictureStatistics | None:
    """The statistics of a stored file's pictures; None if they cannot be had now. Raises NotFound."""

    def read() -> File:
        with resources.database.read() as session:
            return find_file(session, file_id=file_id, user_id=user.id)

    file = await to_thread.run_sync(read)
    if file.picture_statistics is not None:
        return PictureStatistics(**file.picture_statistics)
    measure = partial(_measure_stored, file, resources)
    statistics = await _look(measure, user=user, resources=resources, connection=connection)
    if statistics is not None:
        await to_thread.run_sync(_note, file_id, statistics, resources)
    return statistics


async def look_at_upload(
    path: Path,
    video: VideoProperties,
    *,
    user: CurrentUser,
    resources: Resources,
    connection: ClientConnection,
) -> PictureStatistics | None:
    """The same of an upload that is not kept."""
    measure = partial(_measure, path, video, video.duration_seconds)
    return await _look(measure, user=user, resources=resources, connection=connection)


async def _look(
    measure: Callable[[FfmpegRunner], PictureStatistics],
    *,
    user: CurrentUser,
    resources: Resources,
    connection: ClientConnection,
) -> PictureStatistics | None:
    slots, runner = resources.probe_slots, resources.runner
    limits = replace(runner.limits, wall_seconds=min(LONGEST_SECONDS, runner.limits.wall_seconds))
    with anyio.move_on_after(LONGEST_SECONDS):
        try:
            async with slots.slot(user.id):
                run = runner.under(limits).within_one_limit()
                return await connection.run(partial(measure, run), stop=run.stop, threads=slots.threads)
        except RegenError as error:
            # No estimate fails because of it.
            log.info("pictures_not_looked_at", error=error.message, detail=error.detail)
    return None


def _measure(
    path: Path, video: VideoProperties, seconds: Fraction, runner: FfmpegRunner
) -> PictureStatistics:
    try:
        return measure_pictures(runner, path, video=video, seconds=seconds)
    except (FfmpegMissing, FfmpegTimeout):
        raise
    except FfmpegError as error:
        # Another attempt would find as little.
        log.info("pictures_unreadable", error=error.message, detail=(error.detail or "")[:DETAIL_CHARACTERS])
        return PictureStatistics()


def _measure_stored(file: File, resources: Resources, runner: FfmpegRunner) -> PictureStatistics:
    path = new_spool_path(resources.settings.spool_dir)
    part = Fraction(1)
    try:
        if resources.storage.links_files:
            resources.storage.fetch(file.storage_key, path)
        else:
            with resources.spool_space.reserved(min(file.size_bytes, 2 * READ_BYTES)):
                part = _fetch_ends(file, path, resources)
        return _measure(path, file.video, file.video.duration_seconds * part, runner)
    finally:
        path.unlink(missing_ok=True)


def _fetch_ends(file: File, path: Path, resources: Resources) -> Fraction:
    """Write the start and the end of a stored file, with a hole between them. Returns how much of it may be shown."""
    size = file.size_bytes
    starts = [0] if size <= 2 * READ_BYTES else [0, size - READ_BYTES]
    with path.open("xb") as copy:
        path.chmod(0o600)
        for start in starts:
            copy.seek(start)
            length = size if len(starts) == 1 else READ_BYTES
            for block in resources.storage.read(file.storage_key, offset=start, length=length):
                copy.write(block)
    return Fraction(1) if len(starts) == 1 else SAFE_PART * Fraction(READ_BYTES, size)


def _note(file_id: str, statistics: PictureStatistics, resources: Resources) -> None:
    try:
        with resources.database.write() as session:
            file_queries.note_pictures(session, file_id, asdict(statistics))
    except RegenError as error:
        # The next estimate looks again.
        log.info("pictures_not_noted", error=error.message, detail=error.detail)
