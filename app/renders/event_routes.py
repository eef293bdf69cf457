"""A render's progress as a stream of server-sent events."""

from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import Annotated, Any

import structlog
from anyio import to_thread
from anyio.lowlevel import checkpoint
from fastapi import APIRouter, Header, Query, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from app.http.dependencies import PublicUrlDependency, ResourcesDependency, UserDependency, WatchDependency
from app.http.errors import documented
from app.http.protocol import ABORT
from app.renders import service as render_service
from app.renders.event_schemas import RenderEnd
from app.renders.events import EventLine, EventName, progress_of
from app.renders.streams import RenderStreams, Sight, Subscription
from app.renders.views import view_of

# After so long a browser comes back when a stream breaks off.
RECONNECT_MS = 2000
# Proxies close what is silent for a minute, some sooner.
PING_SECONDS = 15
# A client that takes nothing for so long has gone, or as good as.
SEND_SECONDS = 30.0
LINE_END = "\n"

_EXAMPLE = (
    "event: status\nid: processing-0\n"
    'data: {"id":"VxIlYTomwGfEp0D3","status":"processing","progress":0.0,"framesDone":0,"frames":50}\n\n'
)
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events `status`, `progress` and, as the last one, `end`.",
        "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}},
    },
    204: {
        "description": "The render has ended, and `Last-Event-ID` says that the client knows: do not come back."
    },
}

router = APIRouter()
log = structlog.get_logger(__name__)


class RenderEventStream(EventSourceResponse):
    """The stream of one subscription, which it gives back however it ends."""

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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            log.info("stream_dropped", after_seconds=SEND_SECONDS)
            abort = scope.get("extensions", {}).get(ABORT)
            if abort is not None:
                abort()
                # The server hears of it in its next round, and then does not miss the rest of the answer.
                await checkpoint()
        finally:
            self._give_back()


@router.get(
    "/v1/renders/{render_id}/events",
    status_code=HTTPStatus.OK,  # which OpenAPI cannot tell from the class
    response_class=RenderEventStream,
    responses={**_STREAM, **documented(400, 401, 403, 404, 429, 503)},
)
async def watch_render(
    request: Request,
    render_id: str,
    user: UserDependency,
    resources: ResourcesDependency,
    watch: WatchDependency,
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

    def look() -> Sight:
        with resources.database.read() as session:
            view = render_service.find_render(session, render_id=render_id, user_id=user.id)
        return Sight(view=view, eta_seconds=resources.forecast.eta_seconds(view))

    async def end_of(sight: Sight) -> RenderEnd:
        if sight.view is None:
            return RenderEnd(deleted=True)
        view = sight.view
        return RenderEnd(
            render=await to_thread.run_sync(lambda: view_of(view, resources=resources, base_url=base_url))
        )

    first = await watch.ask_database(look)
    line = EventLine(last_event_id or last_event_id_given)
    if line.has_seen_end(first):
        return Response(status_code=HTTPStatus.NO_CONTENT)
    streams: RenderStreams = request.app.state.streams
    subscription = streams.subscribe(user_id=user.id, render_id=render_id, key_id=user.key_id)
    return RenderEventStream(
        _events(line, first, subscription, end_of),
        give_back=lambda: streams.unsubscribe(subscription, user_id=user.id),
    )


async def _events(
    line: EventLine, first: Sight, subscription: Subscription, end_of: Callable[[Sight], Any]
) -> AsyncIterator[ServerSentEvent]:
    yield ServerSentEvent(retry=RECONNECT_MS, sep=LINE_END)
    sight: Sight | None = first
    while sight is not None:
        news = line.next(sight)
        if news is not None:
            name, event_id = news
            body = await end_of(sight) if name is EventName.END else progress_of(sight)
            data = body.model_dump_json(by_alias=True, exclude_none=True)
            yield ServerSentEvent(data, event=name.value, id=event_id, sep=LINE_END)
            if name is EventName.END:
                return
        sight = await subscription.next()
