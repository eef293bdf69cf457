"""A render's playlist, with a key or by a signed link, and its parts, by signed links alone."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated, Any, TypeVar

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from app.accounts.scopes import Scope
from app.http.access import Access
from app.http.dependencies import AccessDependency, HealthChecksDependency, ResourcesDependency
from app.http.errors import documented
from app.http.health_checks import HealthChecks
from app.http.resources import Resources
from app.platform.errors import KeyNotFound, NotFound
from app.platform.playlist_links import check_signature, signed_query
from app.playlists import hls
from app.playlists.service import GONE, NO_PART, Fragment, Watchable, find_watchable, make_fragment, make_init
from app.playlists.stored_tracks import StoredTracks, read_places

FRAGMENT_TYPE = "video/mp4"
# What is made of a segment and later of the same stretch of the result is the same.
KEPT_SECONDS = 3600
# More digits than any number of segments.
LONGEST_NUMBER = 9

_EXAMPLE = """#EXTM3U
#EXT-X-VERSION:7
#EXT-X-TARGETDURATION:4
#EXT-X-MEDIA-SEQUENCE:0
#EXT-X-PLAYLIST-TYPE:EVENT
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-START:TIME-OFFSET=0
#EXT-X-MAP:URI="stream/init.mp4?expires=1795505662&signature=5f0c"
#EXTINF:4.000000,
stream/0.m4s?expires=1795505662&signature=5f0c
"""
_PLAYLIST: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A media playlist of HLS, of the segments that are finished, up to the first that is not.",
        "content": {hls.CONTENT_TYPE: {"schema": {"type": "string"}, "example": _EXAMPLE}},
    }
}

T = TypeVar("T")

router = APIRouter(tags=["renders"])
parts_router = APIRouter()


@router.get(
    "/v1/renders/{render_id}/stream.m3u8",
    response_class=Response,
    responses={**_PLAYLIST, **documented(404, 409)},
)
async def get_playlist(
    render_id: str,
    access: AccessDependency,
    watch: HealthChecksDependency,
    expires: Annotated[
        str | None, Query(max_length=20, description="Of the signed link in `streamURL`, which needs no key.")
    ] = None,
    signature: Annotated[str | None, Query(max_length=64, description="Of the signed link.")] = None,
) -> Response:
    """A render of yours as a video that grows while it renders, for players of HLS. It ends with the whole, or where
    the render failed or was canceled."""
    resources = access.resources
    if signature is None:
        watchable = await access.run(_find_own, access, render_id=render_id)
    else:
        _check(resources, render_id, expires or "", signature)
        watchable = await watch.ask_database(partial(_find, resources, render_id))
    query = signed_query(
        render_id,
        key=resources.secrets.playlist_key,
        lifetime_seconds=resources.settings.url_lifetime_seconds,
    )
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(watchable.playlist(query), media_type=hls.CONTENT_TYPE, headers=headers)


# Each form of a name has a route of its own: no other name is a route, which the mock's rules look up.
@parts_router.get(f"/v1/renders/{{render_id}}/stream/{hls.INIT_NAME}", include_in_schema=False)
@parts_router.get(
    f"/v1/renders/{{render_id}}/stream/{{position}}{hls.FRAGMENT_SUFFIX}", include_in_schema=False
)
async def get_part(
    request: Request,
    render_id: str,
    resources: ResourcesDependency,
    watch: HealthChecksDependency,
    expires: str = "",
    signature: str = "",
) -> Response:
    """The init segment or a fragment. No API key: the signature is the permission."""
    _check(resources, render_id, expires, signature)
    make = _maker_of(request.path_params.get("position"))
    tracks: StoredTracks = request.app.state.stored_tracks
    try:
        watchable, fragment = await _make(render_id, make, resources, watch, tracks)
    except KeyNotFound:
        # The render was completed after its row was read, and its segments removed.
        try:
            watchable, fragment = await _make(render_id, make, resources, watch, tracks)
        except KeyNotFound as error:
            raise NotFound(GONE) from error
    return StreamingResponse(
        _body(fragment, resources, user_id=watchable.render.user_id),
        media_type=FRAGMENT_TYPE,
        headers={
            "Cache-Control": f"private, max-age={KEPT_SECONDS}",
            "Content-Length": str(fragment.size_bytes),
            "X-Content-Type-Options": "nosniff",
        },
    )


MakePart = Callable[[Any, Watchable, StoredTracks], Fragment]


def _maker_of(number: str | None) -> MakePart:
    """Of the fragment of this number, without one of the init segment. Raises NotFound for what is no number."""
    if number is None:
        return make_init
    if not (number.isascii() and number.isdigit()) or len(number) > LONGEST_NUMBER:
        raise NotFound(NO_PART)
    position = int(number)
    return lambda reader, watchable, tracks: make_fragment(reader, watchable, position, tracks)


async def _make(
    render_id: str, make: MakePart, resources: Resources, watch: HealthChecks, tracks: StoredTracks
) -> tuple[Watchable, Fragment]:
    watchable = await watch.ask_database(partial(_find, resources, render_id))

    def work() -> Fragment:
        with resources.database.read_columns() as reader:
            return make(reader, watchable, tracks)

    return watchable, await _in_slot(resources, watchable.render.user_id, work)


async def _body(fragment: Fragment, resources: Resources, *, user_id: str) -> AsyncIterator[bytes]:
    """Each piece is read in a slot of its own: a client that reads slowly holds none meanwhile."""
    if fragment.header:
        yield fragment.header
    pieces = read_places(resources.storage, fragment.places)
    while (piece := await _in_slot(resources, user_id, partial(next, pieces, None))) is not None:
        yield piece


async def _in_slot(resources: Resources, user_id: str, work: Callable[[], T]) -> T:
    slots = resources.playback_slots
    async with slots.slot(user_id):
        return await to_thread.run_sync(work, limiter=slots.threads)


def _check(resources: Resources, render_id: str, expires: str, signature: str) -> None:
    check_signature(render_id, expires=expires, signature=signature, key=resources.secrets.playlist_key)


def _find_own(access: Access, *, render_id: str) -> Watchable:
    with access.resources.database.read_columns() as reader:
        user = access.require(reader, Scope.READ)
        return find_watchable(reader, render_id=render_id, user_id=user.id)


def _find(resources: Resources, render_id: str) -> Watchable:
    with resources.database.read_columns() as reader:
        return find_watchable(reader, render_id=render_id)
