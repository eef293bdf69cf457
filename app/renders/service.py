"""Renders: created, retried, found."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from fractions import Fraction

from sqlalchemy.orm import Session

from app.accounts.idempotency import IdempotentRequest
from app.engines.service import stored_engine
from app.files import queries as file_queries
from app.files.service import SpooledUpload, find_file_to_use, stored_upload
from app.files.tables import File
from app.platform.database import ColumnReader, Database, read_clock
from app.platform.errors import Conflict, NotFound
from app.platform.media.info import MediaInfo, VideoProperties
from app.platform.secrets import new_id
from app.platform.storage.contract import Storage
from app.platform.tracing import current_trace_parent
from app.renders import queries as render_queries
from app.renders import webhook_events
from app.renders.options import RenderOptions
from app.renders.progress import RenderView, view_render, view_renders
from app.renders.statuses import RenderStatus
from app.renders.stored_options import columns_of, options_of
from app.renders.tables import Render
from app.usage.allowances import Requester, check_render_quota
from app.usage.queries import PIXELS_PER_GIGAPIXEL
from models.catalog import Engine

NO_RENDER = "Render not found"


def cost_in_gigapixels(output: VideoProperties, *, engine: Engine) -> float:
    """The output's frames times its pixels, in units of 1e9, times the engine's multiplier. Unrounded."""
    return output.total_pixels * engine.cost_multiplier / PIXELS_PER_GIGAPIXEL


def create_render(
    session: Session,
    *,
    file: File,
    options: RenderOptions,
    requester: Requester,
    request_id: str | None = None,
    retry_of: str | None = None,
    warnings: Sequence[str] = (),
) -> Render:
    """A queued render of the requester's file.

    Raises InvalidRequest if the options leave nothing of it, LimitExceeded if its output would be over a limit,
    TooManyRequests if it exceeds the requester's allowance.
    `request_id` and `warnings` are those of its request, `retry_of` is the failed render that it retries.
    """
    source, output = _input_and_output(options, file.video, file.video_begins_at or Fraction(0), requester)
    cost = cost_in_gigapixels(output, engine=options.engine)
    check_render_quota(session, requester, cost=cost)
    now = read_clock(session)
    render = Render(
        id=new_id(),
        user_id=file.user_id,
        file=file,
        status=RenderStatus.QUEUED,
        created_at=now,
        warnings=[*warnings],
        cost=cost,
        input=source,
        output=output,
        request_id=request_id,
        trace_parent=current_trace_parent(),
        api_key_id=requester.key_id,
        cancel_at=None if options.cancel_after is None else now + timedelta(seconds=options.cancel_after),
        retry_of=retry_of,
        **columns_of(options),
    )
    session.add(render)
    session.flush()
    webhook_events.write_event(session, render_id=render.id, status=RenderStatus.QUEUED)
    return render


def _input_and_output(
    options: RenderOptions, video: VideoProperties, begins_at: Fraction, requester: Requester
) -> tuple[VideoProperties, VideoProperties]:
    """What is rendered, and the expected output. Raises InvalidRequest and LimitExceeded as `create_render` does."""
    source = options.source(video, begins_at=begins_at)
    pictures = options.pictures(video, begins_at=begins_at)
    options.check_output(pictures, requester.allowance.media)
    return source, options.output(pictures)


def render_file(
    database: Database,
    *,
    file_id: str,
    options: RenderOptions,
    requester: Requester,
    request_id: str,
    warnings: Sequence[str],
    idempotent: IdempotentRequest,
) -> Render:
    """A queued render of the user's file. Raises NotFound, AlreadyMade, and what `create_render` does."""
    with database.write() as session:
        render = create_render(
            session,
            file=find_file_to_use(session, file_id=file_id, user_id=requester.id),
            options=options,
            requester=requester,
            request_id=request_id,
            warnings=warnings,
        )
        idempotent.record(session, made_id=render.id)
    return render


def render_upload(
    upload: SpooledUpload,
    *,
    info: MediaInfo,
    options: RenderOptions,
    requester: Requester,
    request_id: str,
    warnings: Sequence[str],
    storage: Storage,
    database: Database,
    idempotent: IdempotentRequest,
) -> Render:
    """Store the upload as a file, with a queued render of it in the same transaction.

    Raises AlreadyMade, StorageError, InvalidRequest and LimitExceeded, usually before anything is stored, and
    TooManyRequests.
    """
    # Refused before anything is stored.
    _input_and_output(options, info.video, info.video_begins_at, requester)
    with stored_upload(upload, info=info, requester=requester, storage=storage, database=database) as (
        session,
        file,
    ):
        render = create_render(
            session,
            file=file,
            options=options,
            requester=requester,
            request_id=request_id,
            warnings=warnings,
        )
        idempotent.record(session, made_id=render.id)
    return render


def find_made_render(database: Database, idempotent: IdempotentRequest) -> Render | None:
    """The result of an earlier request with the same key. Raises NotFound if it was deleted since, and Conflict."""
    with database.read() as session:
        made_id = idempotent.lookup(session)
        if made_id is None:
            return None
        return get_render(session, render_id=made_id, user_id=idempotent.user_id)


def list_renders(
    session: Session,
    *,
    user_id: str | None,
    limit: int,
    cursor: str | None,
    status: RenderStatus | None,
    engine: Engine | None,
) -> tuple[list[RenderView], str | None]:
    """A page of the user's renders, the newest first, and the cursor of the next. Raises InvalidRequest.

    Without `user_id`: of all users' renders.
    """
    page = render_queries.list_renders(
        session,
        user_id=user_id,
        limit=limit,
        cursor=cursor,
        status=status,
        engine=None if engine is None else engine.id,
    )
    return view_renders(session, page.rows) if page.rows else [], page.cursor


def retry_render(
    session: Session, *, render_id: str, requester: Requester, request_id: str | None = None
) -> Render:
    """A new render with the request of a failed one of the requester's.

    Raises NotFound for an unknown render and another user's, Conflict for one that has not failed or whose file is
    gone, LimitExceeded when limits have become tighter.
    """
    failed = get_render(session, render_id=render_id, user_id=requester.id)
    if failed.status is not RenderStatus.FAILED:
        raise Conflict("Only a failed render can be retried.")
    file = file_queries.find_file_to_use(session, file_id=failed.file_id, user_id=requester.id)
    if file is None:
        raise Conflict("The uploaded file is gone: upload it again.")
    return create_render(
        session,
        file=file,
        options=options_of(failed, engine=stored_engine(session, failed.engine)),
        requester=requester,
        request_id=request_id,
        retry_of=failed.id,
    )


def retry_own_render(
    database: Database,
    *,
    render_id: str,
    requester: Requester,
    request_id: str,
    idempotent: IdempotentRequest,
) -> Render:
    """As `retry_render`, or the result of an earlier request with the same key."""
    with database.write() as session:
        made_id = idempotent.lookup(session, lock=True)
        if made_id is not None:
            return get_render(session, render_id=made_id, user_id=requester.id)
        render = retry_render(session, render_id=render_id, requester=requester, request_id=request_id)
        idempotent.record(session, made_id=render.id)
    return render


def find_render(reader: ColumnReader, *, render_id: str, user_id: str) -> RenderView:
    """Raises NotFound for an unknown render and for another user's."""
    render = render_queries.find_stored_render(reader, render_id=render_id, user_id=user_id)
    if render is None:
        raise NotFound(NO_RENDER)
    return view_render(reader, render)


def get_render(session: Session, *, render_id: str, user_id: str) -> Render:
    """The user's render with its file. Raises NotFound for an unknown render and for another user's."""
    render = render_queries.find_render(session, render_id=render_id, user_id=user_id)
    if render is None:
        raise NotFound(NO_RENDER)
    return render


def find_renders(session: Session, *, render_ids: Collection[str], user_id: str) -> dict[str, RenderView]:
    """Those of the user's renders that exist, by id, at the cost of one."""
    rows = render_queries.find_renders(session, render_ids=render_ids, user_id=user_id)
    return {view.render.id: view for view in view_renders(session, rows)} if rows else {}
