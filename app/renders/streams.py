"""The open event streams of the process, and one poll of the rows for all of them.

The renders of one user that have streams in this process are polled together, once a second. Between polls a
stream holds neither a thread nor a database connection. Each stream keeps only the latest snapshot: a slow
reader misses those in between, and nothing accumulates.
"""

import asyncio
import contextvars
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial

import structlog

from app.accounts.queries import valid_keys
from app.http.health_checks import HealthChecks
from app.http.neighbours import Neighbours
from app.http.resources import Resources
from app.platform import clock
from app.platform.errors import RegenError, TooManyRequests, Unavailable
from app.renders.progress import RenderView
from app.renders.service import find_render, find_renders

POLL_SECONDS = 1.0
RETRY_SECONDS = 10

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class RenderSnapshot:
    """A render at one moment; `view` is None once it is deleted."""

    view: RenderView | None
    eta_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class UserSnapshot:
    """Renders of one user at one moment: those that exist, by id, and which keys are still valid."""

    renders: Mapping[str, RenderSnapshot]
    keys: Collection[str]


class Subscription:
    """One stream of a render's snapshots."""

    def __init__(self, *, render_id: str, key_id: str) -> None:
        self.render_id = render_id
        self.key_id = key_id
        self._latest: RenderSnapshot | None = None
        self._is_over = False
        self._news = asyncio.Event()

    async def next(self) -> RenderSnapshot | None:
        """Wait for the next snapshot; None when the stream ends without an `end` event."""
        await self._news.wait()
        self._news.clear()
        return None if self._is_over else self._latest

    def show(self, snapshot: RenderSnapshot) -> None:
        self._latest = snapshot
        self._news.set()

    def end(self) -> None:
        self._is_over = True
        self._news.set()


class RenderStreams:
    """The streams of one process."""

    def __init__(self, resources: Resources, watch: HealthChecks) -> None:
        self._resources = resources
        self._watch = watch
        self._most_per_user = resources.settings.max_event_streams_per_user
        self._open: dict[str, set[Subscription]] = defaultdict(set)
        self._neighbours = Neighbours.of(resources.settings, "streams")
        self._pollers: dict[str, asyncio.Task[None]] = {}
        self._is_ending = False

    def subscribe(self, *, user_id: str, render_id: str, key_id: str) -> Subscription:
        """A stream, which `unsubscribe` closes. Raises TooManyRequests when the user has too many open."""
        if self._is_ending:
            raise Unavailable("The server is stopping. Try again soon.")
        subscription = Subscription(render_id=render_id, key_id=key_id)
        with self._neighbours.exclusively() as others:
            elsewhere = sum(one.get(user_id, 0) for one in others)
            if len(self._open.get(user_id, ())) + elsewhere >= self._most_per_user:
                raise TooManyRequests(
                    f"At most {self._most_per_user} streams of events may be open at once. Close one.",
                    retry_after_seconds=RETRY_SECONDS,
                )
            self._open[user_id].add(subscription)
            self._tell()
        if user_id not in self._pollers:
            # Its log lines belong to no request.
            poller = asyncio.create_task(self._poll(user_id), context=contextvars.Context())
            self._pollers[user_id] = poller
        return subscription

    def unsubscribe(self, subscription: Subscription, *, user_id: str) -> None:
        """Close the stream. The last one of a user ends the polling."""
        self._open[user_id].discard(subscription)
        if not self._open[user_id]:
            del self._open[user_id]
            poller = self._pollers.pop(user_id, None)
            if poller is not None:
                poller.cancel()
        with self._neighbours.exclusively():
            self._tell()

    def _tell(self) -> None:
        self._neighbours.tell({user_id: len(streams) for user_id, streams in self._open.items()})

    def end(self) -> None:
        """End every stream and refuse new ones: the server stops."""
        self._is_ending = True
        for subscription in [one for some in self._open.values() for one in some]:
            subscription.end()

    async def _poll(self, user_id: str) -> None:
        is_told = False
        while True:
            await asyncio.sleep(POLL_SECONDS)
            watched = list(self._open[user_id])
            renders = {one.render_id for one in watched}
            keys = {one.key_id for one in watched}
            look = partial(
                _read_snapshots, self._resources, user_id=user_id, render_ids=renders, key_ids=keys
            )
            try:
                found = await self._watch.ask_database(look)
            except RegenError as error:
                # The streams stay open and continue when the database is back. One log line is enough.
                if not is_told:
                    log.warning("streams_wait", error=error.message, detail=error.detail)
                is_told = True
                continue
            except Exception:
                if not is_told:
                    log.exception("streams_wait")
                is_told = True
                continue
            is_told = False
            for one in watched:
                if one.key_id in found.keys:
                    one.show(found.renders.get(one.render_id, RenderSnapshot(view=None, eta_seconds=None)))
                else:
                    one.end()


def read_snapshot(resources: Resources, *, render_id: str, user_id: str) -> RenderSnapshot:
    """The render now. Raises NotFound for an unknown render and another user's."""
    with resources.database.read() as session:
        view = find_render(session, render_id=render_id, user_id=user_id)
    return RenderSnapshot(view=view, eta_seconds=resources.forecast.eta_seconds(view))


def _read_snapshots(
    resources: Resources, *, user_id: str, render_ids: Collection[str], key_ids: Collection[str]
) -> UserSnapshot:
    with resources.database.read() as session:
        views = find_renders(session, render_ids=render_ids, user_id=user_id)
        keys = valid_keys(session, key_ids=key_ids, now=clock.now())
    return UserSnapshot(
        renders={
            render_id: RenderSnapshot(view=view, eta_seconds=resources.forecast.eta_seconds(view))
            for render_id, view in views.items()
        },
        keys=keys,
    )
