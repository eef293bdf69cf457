"""Previews: one frame of a file, original and upscaled, made ahead of all renders."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from sqlalchemy.orm import Session

from app.accounts import queries as account_queries
from app.files.moments import moment_faults
from app.files.tables import File
from app.platform.database import Database, read_clock
from app.platform.errors import (
    InvalidRequest,
    LeaseLost,
    LimitExceeded,
    NotFound,
    PermanentError,
    TooManyRequests,
)
from app.platform.media.limits import MediaLimits
from app.platform.media.output_size import OutputSize
from app.platform.media.picture_options import Deinterlace
from app.platform.media.rectangles import Area
from app.platform.retry_policies import PREVIEW_FAILED, PREVIEW_OUTAGE
from app.platform.secrets import new_id
from app.platform.storage.contract import Storage, delete_under
from app.platform.storage.keys import preview_prefix
from app.previews import queries as preview_queries
from app.previews.queries import PreviewClaim
from app.previews.tables import Preview
from app.renders.statuses import RenderStatus
from models.catalog import Engine

# After so long a preview and its images are removed.
KEPT_SECONDS = 24 * 3600
CANCELED = "Canceled"
# The end of an open preview is unknown: this is how often to ask.
RETRY_SECONDS = 5
# How long a preview that gave way rests: long enough for a worker to claim one of another user.
GIVEN_WAY_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class PreviewJob:
    """Everything that a worker needs to make a preview. With `crop` None the worker chooses it.

    `factors`: by how much the columns and the rows of the frame are multiplied.
    """

    claim: PreviewClaim
    user_id: str
    file_id: str
    input_key: str
    engine: str
    at_seconds: Fraction
    crop: Area | None
    factors: tuple[Fraction, Fraction]
    strength: float = 1.0
    grain: float = 0.0
    stabilise: int = 0
    deinterlace: Deinterlace = Deinterlace.AUTO


def create_preview(  # noqa: PLR0913 - what a preview shows, and how
    session: Session,
    *,
    file: File,
    engine: Engine,
    at_seconds: Fraction,
    crop: Area | None,
    limits: MediaLimits,
    max_open: int,
    warnings: Sequence[str] = (),
    size: OutputSize | None = None,
    strength: float = 1.0,
    grain: float = 0.0,
    stabilise: int = 0,
    deinterlace: Deinterlace = Deinterlace.AUTO,
) -> Preview:
    """A queued preview of the file, which is locked until the session ends (`find_file_to_use`).

    Raises InvalidRequest for a moment after the video's end or a crop that is not within its frames, LimitExceeded when
    the result would be too large, TooManyRequests when the user has `max_open` that have not ended.
    """
    faults = moment_faults(file, at_seconds)
    if crop is not None and not _is_within(crop, file):
        faults.append(
            f"`crop` must lie within the frame, which is {file.video.width} x {file.video.height} pixels."
        )
    if faults:
        raise InvalidRequest(*faults)
    if crop is not None:
        _check_size(crop, engine=engine, limits=limits)
    # Locked so that concurrent requests do not exceed the limit together.
    account_queries.lock_user(session, user_id=file.user_id)
    if preview_queries.count_open(session, user_id=file.user_id) >= max_open:
        raise TooManyRequests(
            f"You have {max_open} previews that have not ended, which is the maximum. Try again when one has ended, "
            "or delete one.",
            retry_after_seconds=RETRY_SECONDS,
        )
    preview = Preview(
        id=new_id(),
        user_id=file.user_id,
        file=file,
        engine=engine.id,
        at_seconds=at_seconds,
        **asdict(size or OutputSize()),
        strength=strength,
        grain=grain,
        stabilise=stabilise,
        deinterlace=deinterlace,
        status=RenderStatus.QUEUED,
        warnings=[*warnings],
        created_at=read_clock(session),
        **_crop_columns(crop),
    )
    session.add(preview)
    session.flush()
    return preview


def find_preview(session: Session, *, preview_id: str, user_id: str) -> Preview:
    """The user's preview, with its file. Raises NotFound for an unknown preview and another user's."""
    preview = preview_queries.find_preview(session, preview_id=preview_id, user_id=user_id)
    if preview is None:
        raise NotFound("Preview not found")
    return preview


def delete_preview(database: Database, storage: Storage, *, preview_id: str, user_id: str) -> None:
    """Remove the user's preview and its images; one that has not ended is canceled.

    What a late worker may still store is an object without a row, which the clean-up finds. Raises NotFound as
    `find_preview`, StorageError when the images cannot be removed; then it can be deleted again.
    """
    with database.write() as session:
        find_preview(session, preview_id=preview_id, user_id=user_id)
        preview_queries.withdraw(session, preview_id=preview_id, error=CANCELED)
    delete_under(storage, preview_prefix(preview_id))
    with database.write() as session:
        preview_queries.delete(session, preview_id=preview_id)


def crop_of(preview: Preview) -> Area | None:
    if (
        preview.crop_x is None
        or preview.crop_y is None
        or preview.crop_width is None
        or preview.crop_height is None
    ):
        return None
    return Area(x=preview.crop_x, y=preview.crop_y, width=preview.crop_width, height=preview.crop_height)


class PreviewLedger:
    """One worker's interface to the previews. Each method is one short transaction, and raises Unavailable."""

    def __init__(
        self,
        *,
        database: Database,
        worker: str,
        lease_seconds: float,
        max_attempts: int,
        engines: Collection[str] = (),
    ) -> None:
        """`engines` are those with which it makes previews; empty for all."""
        self.lease_seconds = lease_seconds
        self._database = database
        self._worker = worker
        self._max_attempts = max_attempts
        self.engines = tuple(engines)

    def any_waits(self) -> bool:
        """Whether there is a preview to claim. Very cheap."""
        with self._database.read() as session:
            return preview_queries.any_waits(session, engines=self.engines)

    def others_wait(self, user_id: str) -> bool:
        """Whether another user has a preview to claim."""
        with self._database.read() as session:
            return preview_queries.any_waits(session, engines=self.engines, beside_user=user_id)

    def claim(self) -> PreviewJob | None:
        """Lease the oldest waiting preview. One whose leases expired too often ends here as failed."""
        with self._database.write() as session:
            while claim := preview_queries.claim(
                session, worker=self._worker, lease_seconds=self.lease_seconds, engines=self.engines
            ):
                row = preview_queries.get_preview(session, preview_id=claim.preview_id)
                assert row is not None
                if row.failures < self._max_attempts:
                    return PreviewJob(
                        claim=claim,
                        user_id=row.user_id,
                        file_id=row.file_id,
                        input_key=row.file.storage_key,
                        engine=row.engine,
                        at_seconds=row.at_seconds,
                        crop=crop_of(row),
                        factors=_size_of(row).factors(row.file.video.width, row.file.video.height),
                        strength=row.strength,
                        grain=row.grain,
                        stabilise=row.stabilise,
                        deinterlace=Deinterlace(row.deinterlace),
                    )
                preview_queries.fail(session, claim, error=_gave_up(row.failures))
        return None

    def renew(self, claim: PreviewClaim, *, frames_done: int = 0) -> bool:
        """Extend the lease. False when it is lost: the worker stops and reports nothing."""
        del frames_done  # a preview has only one
        with self._database.write() as session:
            return claim.lease.renew(session, seconds=self.lease_seconds)

    def completed(
        self,
        claim: PreviewClaim,
        *,
        crop: Area | None,
        before_key: str,
        after_key: str,
        warnings: Sequence[str],
    ) -> None:
        """Complete the preview; with `crop` None it shows the whole frame. Raises LeaseLost."""
        values: dict[str, Any] = {"before_key": before_key, "after_key": after_key}
        with self._database.write() as session:
            stored = preview_queries.warnings_of(session, preview_id=claim.preview_id)
            values["warnings"] = [*stored, *warnings]
            if not preview_queries.complete(session, claim, values={**values, **_crop_columns(crop)}):
                raise LeaseLost("The preview was given to another worker, or deleted.")

    def failed(self, claim: PreviewClaim, error: Exception) -> None:
        """Release the preview for another attempt after a pause. After the last attempt it fails, and after a
        PermanentError at once, with its message."""
        with self._database.write() as session:
            if isinstance(error, PermanentError):
                preview_queries.fail(session, claim, error=error.message)
                return
            failures = claim.lease.charge(session, "failures")
            if failures is None:
                return
            if failures >= self._max_attempts:
                preview_queries.fail(session, claim, error=_gave_up(failures))
            else:
                claim.lease.release(session, rest_seconds=PREVIEW_FAILED.pause(failures))

    def postponed(self, claim: PreviewClaim) -> None:
        """Release the preview after an outage: uncharged, for another attempt after a pause."""
        with self._database.write() as session:
            claim.lease.release(session, rest_seconds=PREVIEW_OUTAGE.pause(1))

    def gave_way(self, job: PreviewJob) -> None:
        """Release the preview in favour of other users': uncharged, and none of its user's is claimed before
        theirs."""
        with self._database.write() as session:
            job.claim.lease.release(session)
            preview_queries.rest(session, user_id=job.user_id, seconds=GIVEN_WAY_SECONDS)

    def hand_back(self, claim: PreviewClaim) -> None:
        """Release the preview when the worker stops: uncharged, for another attempt at once."""
        with self._database.write() as session:
            claim.lease.release(session)


def _size_of(preview: Preview) -> OutputSize:
    return OutputSize(scale=preview.scale, max_width=preview.max_width, max_height=preview.max_height)


def _gave_up(failures: int) -> str:
    return f"The preview could not be made: it failed {failures} times."


def _is_within(crop: Area, file: File) -> bool:
    return crop.x + crop.width <= file.video.width and crop.y + crop.height <= file.video.height


def _check_size(crop: Area, *, engine: Engine, limits: MediaLimits) -> None:
    width, height = crop.width * engine.scale, crop.height * engine.scale
    if width * height > limits.max_output_pixels or max(width, height) > limits.max_output_side:
        raise LimitExceeded(
            f"The preview would be {width} x {height}; at most {limits.max_output_pixels:,} pixels, and "
            f"{limits.max_output_side:,} to a side, are possible. Choose a smaller `crop`."
        )


def _crop_columns(crop: Area | None) -> dict[str, int | None]:
    return {
        "crop_x": None if crop is None else crop.x,
        "crop_y": None if crop is None else crop.y,
        "crop_width": None if crop is None else crop.width,
        "crop_height": None if crop is None else crop.height,
    }
