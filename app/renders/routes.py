"""Renders: created, listed, followed, canceled, retried, and deleted."""

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

import structlog
from anyio import to_thread
from anyio.lowlevel import checkpoint
from fastapi import Header, Query, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette import types as asgi

from app.accounts.idempotency import AlreadyMade, IdempotentRequest
from app.accounts.scopes import Scope
from app.engines.service import stored_engine
from app.files.accept_video import accept_new_video
from app.http.access import Access, CurrentUser
from app.http.dependencies import (
    AccessDependency,
    EnginesDependency,
    HealthChecksDependency,
    IdempotencyDependency,
    PageDependency,
    PublicUrlDependency,
    ResourcesDependency,
    UserDependency,
)
from app.http.errors import documented
from app.http.forms import received_form
from app.http.openapi import LOCATION
from app.http.resources import Resources
from app.http.router import BodyRouter
from app.http.shared_slots import ClientConnection
from app.http.uvicorn_protocol import ABORT
from app.renders import service as render_service
from app.renders import tables, transitions
from app.renders.created_answer import answer_with_render, show_render
from app.renders.events import EventLine, EventName
from app.renders.schemas import (
    UPSCALE_REQUEST,
    EngineQuery,
    Render,
    RenderBody,
    RenderEnd,
    RenderProgress,
    RendersBody,
    StatusQuery,
    UpscaleForm,
)
from app.renders.streams import RenderSnapshot, RenderStreams, Subscription, read_snapshot
from app.webhooks.urls import require_permitted

# After so long a browser reconnects when a stream breaks off.
RECONNECT_MS = 2000
# Proxies close connections that are silent for a minute, some sooner.
PING_SECONDS = 15
# A client that reads nothing for so long counts as disconnected.
SEND_SECONDS = 30.0
LINE_END = "\n"

_EXAMPLE = (
    "event: status\nid: processing-0\n"
    'data: {"id":"VxIlYTomwGfEp0D3","status":"processing","progress":0.0,"framesDone":0,"frames":50}\n\n'
)
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events `status`, `progress` and, last, `end`.",
        "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}},
    },
    204: {
        "description": "The render has ended, and `Last-Event-ID` shows that the client knows: do not reconnect."
    },
}

router = BodyRouter(tags=["renders"])
log = structlog.get_logger(__name__)


@router.post(
    "/v1/upscale", responses={200: LOCATION, **documented(404, 409, 413, 415)}, openapi_extra=UPSCALE_REQUEST
)
async def upscale(
    request: Request,
    user: UserDependency,
    resources: ResourcesDependency,
    base_url: PublicUrlDependency,
    idempotent: IdempotencyDependency,
    engines: EnginesDependency,
) -> RenderBody:
    """Upscale a video four times.

    Send `file`, or the `file_id` of an uploaded file. If the server's operator allows it, `file_url` may name
    a video for the server to fetch. Without `file` the same fields may come urlencoded too.
    """
    async with received_form(request, UpscaleForm, user=user, resources=resources) as form:
        asked = UpscaleForm.read(form, resources.settings, engines)
        networks = resources.settings.outbound_allowed_networks
        if asked.webhook_url is not None:
            require_permitted(asked.webhook_url, allowed_networks=networks)
        if asked.destination is not None:
            require_permitted(asked.destination, allowed_networks=networks, field="destination")
        if asked.form.needs_able_worker:
            await to_thread.run_sync(resources.forecast.require_encoder, asked.form)
        idempotent.content += form.content
        find_made = partial(render_service.find_made_render, resources.database, idempotent)
        render = await to_thread.run_sync(find_made)
        if render is None:
            try:
                render = await _make_render(
                    request, asked, form.warnings, user=user, resources=resources, idempotent=idempotent
                )
            except AlreadyMade:
                render = await to_thread.run_sync(find_made)
                assert render is not None
    return await answer_with_render(render, idempotent=idempotent, resources=resources, base_url=base_url)


async def _make_render(
    request: Request,
    asked: UpscaleForm,
    warnings: Sequence[str],
    *,
    user: CurrentUser,
    resources: Resources,
    idempotent: IdempotentRequest,
) -> tables.Render:
    """A committed render of the file, or of the video in the request. Raises AlreadyMade."""
    if asked.file_id is not None:
        make = partial(
            render_service.render_file,
            resources.database,
            file_id=asked.file_id,
            options=asked,
            requester=user,
            request_id=request.state.request_id,
            warnings=warnings,
            idempotent=idempotent,
        )
        return await to_thread.run_sync(make)
    async with accept_new_video(
        asked.file,
        asked.file_url,
        connection=ClientConnection(request=request),
        user=user,
        resources=resources,
        idempotent=idempotent,
    ) as (upload, info):
        make = partial(
            render_service.render_upload,
            upload,
            info=info,
            options=asked,
            requester=user,
            request_id=request.state.request_id,
            warnings=warnings,
            storage=resources.storage,
            database=resources.database,
            idempotent=idempotent,
        )
        return await to_thread.run_sync(make)


@router.get("/v1/renders")
def list_renders(
    user: UserDependency,
    resources: ResourcesDependency,
    base_url: PublicUrlDependency,
    page: PageDependency,
    status: StatusQuery = None,
    engine: EngineQuery = None,
) -> RendersBody:
    """Your renders, the newest first."""
    with resources.database.read() as session:
        views, cursor = render_service.list_renders(
            session,
            user_id=user.id,
            limit=page.limit,
            cursor=page.cursor,
            status=status,
            engine=None if engine is None else stored_engine(session, engine),
        )
    return RendersBody.of(views, cursor, resources=resources, base_url=base_url)


@router.get("/v1/renders/{render_id}", response_model=RenderBody, responses=documented(404))
# How the hosted API's getting-started page writes it.
@router.get("/renders/{render_id}", include_in_schema=False)
async def get_render(render_id: str, access: AccessDependency) -> Response:
    """A render of yours. Its URLs are signed afresh with every answer."""
    # The most frequent request: one call in a thread, one transaction, serialized once.
    return await access.run(_read_render, access, render_id=render_id, base_url=access.base_url)


def _read_render(access: Access, *, render_id: str, base_url: str) -> Response:
    with access.resources.database.read_columns() as reader:
        user = access.require(reader, Scope.READ)
        view = render_service.find_render(reader, render_id=render_id, user_id=user.id)
    body = RenderBody.of(view, resources=access.resources, base_url=base_url)
    return Response(body.model_dump_json(by_alias=True, exclude_none=True), media_type="application/json")


@router.post("/v1/renders/{render_id}/cancel", responses=documented(404, 409))
def cancel_render(
    render_id: str, user: UserDependency, resources: ResourcesDependency, base_url: PublicUrlDependency
) -> RenderBody:
    """Cancel a render of yours that is not completed: it is `failed` at once, with the error "Canceled"."""
    with resources.database.write() as session:
        render = transitions.cancel_render(session, render_id=render_id, user_id=user.id)
    return show_render(render, resources, base_url)


@router.post("/v1/renders/{render_id}/retry", responses={200: LOCATION, **documented(404, 409, 413)})
async def retry_render(
    request: Request,
    render_id: str,
    user: UserDependency,
    resources: ResourcesDependency,
    base_url: PublicUrlDependency,
    idempotent: IdempotencyDependency,
) -> RenderBody:
    """Retry a failed render of yours with the same request: makes a new render, which names it in `retryOf`."""
    retry = partial(
        render_service.retry_own_render,
        resources.database,
        render_id=render_id,
        requester=user,
        request_id=request.state.request_id,
        idempotent=idempotent,
    )
    render = await to_thread.run_sync(retry)
    return await answer_with_render(render, idempotent=idempotent, resources=resources, base_url=base_url)


@router.delete(
    "/v1/renders/{render_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented(404, 409),
)
def delete_render(render_id: str, user: UserDependency, resources: ResourcesDependency) -> Response:
    """Delete a render of yours that has ended, with its results. The uploaded file stays."""
    transitions.delete_render(resources.database, resources.storage, render_id=render_id, user_id=user.id)
    return Response(status_code=HTTPStatus.NO_CONTENT)


class RenderEventStream(EventSourceResponse):
    """The stream of one subscription, which it always closes at its end."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[ServerSentEvent], *, give_back: Callable[[], None]) -> None:
        super().__init__(
            events,
            ping=PING_SECONDS,
            ping_message_factory=lambda: ServerSentEvent(comment="ping", sep=LINE_END),
            sep=LINE_END,
            send_timeout=SEND_SECONDS,
            headers={"Cache-Control": "no-store, no-transform"},
        )
        self._give_back = give_back

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            log.info("stream_dropped", after_seconds=SEND_SECONDS)
            abort = scope.get("extensions", {}).get(ABORT)
            if abort is not None:
                abort()
                # The server learns of it in its next round, and then does not miss the rest of the answer.
                await checkpoint()
        finally:
            self._give_back()


@router.get(
    "/v1/renders/{render_id}/events",
    status_code=HTTPStatus.OK,  # which OpenAPI cannot derive from the class
    response_class=RenderEventStream,
    responses={**_STREAM, **documented(404)},
)
async def watch_render(
    request: Request,
    render_id: str,
    user: UserDependency,
    resources: ResourcesDependency,
    watch: HealthChecksDependency,
    base_url: PublicUrlDependency,
    last_event_id: Annotated[
        str | None, Header(description="The `id` of the last event that the client has seen.", max_length=64)
    ] = None,
    last_event_id_given: Annotated[
        str | None,
        Query(
            alias="last_event_id",
            max_length=64,
            description="The same, for clients that cannot set the header.",
        ),
    ] = None,
) -> Response:
    """Follow a render of yours until it ends, by server-sent events."""
    find = partial(read_snapshot, resources, render_id=render_id, user_id=user.id)
    first = await watch.ask_database(find)
    line = EventLine(last_event_id or last_event_id_given)
    if line.has_seen_end(first):
        return Response(status_code=HTTPStatus.NO_CONTENT)
    streams: RenderStreams = request.app.state.streams
    subscription = streams.subscribe(user_id=user.id, render_id=render_id, key_id=user.key_id)
    return RenderEventStream(
        _events(line, first, subscription, resources, base_url),
        give_back=partial(streams.unsubscribe, subscription, user_id=user.id),
    )


async def _events(
    line: EventLine, first: RenderSnapshot, subscription: Subscription, resources: Resources, base_url: str
) -> AsyncIterator[ServerSentEvent]:
    # With the first event: some clients treat a block with only `retry` as an event without data.
    retry: int | None = RECONNECT_MS
    snapshot: RenderSnapshot | None = first
    while snapshot is not None:
        news = line.next(snapshot)
        if news is not None:
            name, event_id = news
            body: RenderProgress | RenderEnd
            if name is EventName.END:
                body = await to_thread.run_sync(_end_of, snapshot, resources, base_url)
            else:
                assert snapshot.view is not None
                body = RenderProgress.of(snapshot.view, eta_seconds=snapshot.eta_seconds)
            data = body.model_dump_json(by_alias=True, exclude_none=True)
            yield ServerSentEvent(data, event=name.value, id=event_id, retry=retry, sep=LINE_END)
            retry = None
            if name is EventName.END:
                return
        snapshot = await subscription.next()


def _end_of(snapshot: RenderSnapshot, resources: Resources, base_url: str) -> RenderEnd:
    if snapshot.view is None:
        return RenderEnd(deleted=True)
    return RenderEnd(render=Render.of(snapshot.view, resources=resources, base_url=base_url))
