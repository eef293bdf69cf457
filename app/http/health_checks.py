"""Checks of the parts that the API depends on, and counts from them: for readiness probes and metrics."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TypeVar

import structlog
from anyio import CapacityLimiter, to_thread

from app.destinations.tables import Destination
from app.estimates.remaining import RemainingWork, remaining_work
from app.http.resources import Resources
from app.http.shared_call import SharedCall
from app.http.spool_space import SpoolSpace
from app.platform.database import Database
from app.platform.database_engine import UNREACHABLE
from app.platform.deliveries import Backlog, read_backlog
from app.platform.errors import DatabaseUnavailable, RegenError, Unavailable
from app.platform.work_kinds import WorkQueue
from app.webhooks.tables import WebhookDelivery
from app.work.queue_metrics import WorkMetrics, work_metrics
from app.work.workers import Workforce, count_workers

# A probe is answered within 5 s, whatever hangs.
CHECK_SECONDS = 4.0
# Probes within this time share an answer, and so do scrapes.
PROBE_FRESH_SECONDS = 1.0
FIGURES_FRESH_SECONDS = 5.0
# Counting takes at most a tenth of the database's time, for any number of rows.
FIGURES_REST_FACTOR = 10.0
# A probe that does not ask for the shared parts waits no longer than this for the database.
GLANCE_SECONDS = 0.25

# Threads that read SQLite at once: they share one interpreter, so more would only compete for it.
SQLITE_READERS = 2

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Part(StrEnum):
    DATABASE = "database"
    MIGRATIONS = "migrations"
    STORAGE = "storage"
    BROKER = "broker"


class PartState(StrEnum):
    """`unknown`: it cannot be checked, because a part that it depends on has failed."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


FAULTS = {
    Part.DATABASE: "The database cannot be reached.",
    Part.MIGRATIONS: "The database lacks migrations. Apply them with: regen db upgrade",
    Part.STORAGE: "The storage cannot be used.",
    Part.BROKER: "The broker cannot be reached.",
}


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """Figures of the database and the broker; None for one that did not answer."""

    work: WorkMetrics | None
    workers: Workforce | None
    remaining: Sequence[RemainingWork] | None
    webhooks: Backlog | None
    destinations: Backlog | None
    messages: Mapping[WorkQueue, int] | None


class HealthChecks:
    """Checks the parts in parallel threads, each for a bounded time, once for all concurrent requests."""

    def __init__(self, resources: Resources) -> None:
        database, broker = resources.database, resources.broker
        self._checks = {
            Part.DATABASE: _check_of(database.check, Part.DATABASE),
            Part.MIGRATIONS: _check_of(lambda: _check_migrations(database), Part.MIGRATIONS),
            Part.STORAGE: _check_of(resources.storage.check, Part.STORAGE),
            Part.BROKER: _check_of(broker.check, Part.BROKER),
        }
        self._database_hangs = False
        self._readers = CapacityLimiter(SQLITE_READERS) if database.is_sqlite else None
        count = partial(SharedCall, limit_seconds=CHECK_SECONDS, fresh_seconds=FIGURES_FRESH_SECONDS)
        count_rows = partial(count, rest_factor=FIGURES_REST_FACTOR)
        self._work = count_rows(lambda: _read_figures(database), name="count-work")
        self._estimated = count_rows(lambda: _read_estimated(database), name="sum-work")
        self._workers = count_rows(
            lambda: _count_workers(database, lease_seconds=resources.settings.lease_seconds),
            name="count-workers",
            fresh_seconds=PROBE_FRESH_SECONDS,
        )
        self._messages = count(
            lambda: {queue: broker.waiting(queue) for queue in WorkQueue}, name="count-messages"
        )

    async def parts(self) -> Mapping[Part, PartState]:
        """The state of every part, within 5 s. Failures are logged."""
        answers = await asyncio.gather(*(_ask(check) for check in self._checks.values()))
        states: dict[Part, PartState] = {}
        for part, (_nothing, fault) in zip(self._checks, answers, strict=True):
            if fault is None:
                states[part] = PartState.OK
            elif part is Part.MIGRATIONS and states[Part.DATABASE] is PartState.FAILED:
                states[part] = PartState.UNKNOWN
            else:
                states[part] = PartState.FAILED
                log.warning("part_failed", part=part.value, error=fault.message, detail=fault.detail)
        return states

    async def workers(self) -> Workforce | None:
        """The workers in the database, within 5 s; None if it does not answer."""
        answer = await _ask(self._workers)
        return answer[0]

    async def workers_at_a_glance(self) -> Workforce | None:
        """As `workers`, at once: None when the database takes longer than GLANCE_SECONDS."""
        answer = await _ask(self._workers, within_seconds=GLANCE_SECONDS)
        return answer[0]

    async def database_answers(self) -> bool:
        """Whether the database can be reached, within 5 s. Concurrent requests share one check."""
        _nothing, fault = await _ask(self._checks[Part.DATABASE])
        return fault is None

    async def ask_database(self, question: Callable[[], T]) -> T:
        """Returns the result of a query, which must only read, run in a thread, within 4 s.

        Raises DatabaseUnavailable when it takes longer. Until the database answers again no further query
        starts, so that no more threads hang.
        """
        if self._database_hangs and not await self.database_answers():
            raise DatabaseUnavailable(UNREACHABLE, detail="it did not answer others either")
        self._database_hangs = False
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                return await to_thread.run_sync(question, abandon_on_cancel=True, limiter=self._readers)
        except TimeoutError as error:
            self._database_hangs = True
            raise DatabaseUnavailable(UNREACHABLE, detail=f"no answer within {CHECK_SECONDS:g} s") from error

    async def figures(self) -> Measurements:
        """The counts that database and broker return within 5 s."""
        asked = _ask(self._work), _ask(self._messages), _ask(self._estimated), self.workers()
        answers = await asyncio.gather(*asked)
        (work, work_fault), (messages, messages_fault), (estimated, estimated_fault), workers = answers
        faults = {
            "work": work_fault,
            "messages": messages_fault,
            "remaining work and deliveries": estimated_fault,
        }
        for what, fault in faults.items():
            if fault is not None:
                log.warning("figures_missing", what=what, error=fault.message, detail=fault.detail)
        remaining, webhooks, destinations = estimated or (None, None, None)
        return Measurements(
            work=work,
            workers=workers,
            remaining=remaining,
            webhooks=webhooks,
            destinations=destinations,
            messages=messages,
        )


async def _ask(
    call: SharedCall[T], *, within_seconds: float | None = None
) -> tuple[T | None, RegenError | None]:
    """The call's answer, or None and the error."""
    try:
        return await call.answer(within_seconds=within_seconds), None
    except TimeoutError:
        return None, Unavailable(f"There was no answer within {call.limit_seconds:g} s.")
    except RegenError as error:
        return None, error
    except Exception as error:
        # A part's driver may raise anything.
        return None, Unavailable("The question itself failed.", detail=f"{type(error).__name__}: {error}")


def _check_of(ask: Callable[[], None], part: Part) -> SharedCall[None]:
    return SharedCall(
        ask, name=f"check-{part}", limit_seconds=CHECK_SECONDS, fresh_seconds=PROBE_FRESH_SECONDS
    )


def _check_migrations(database: Database) -> None:
    # Loading Alembic is slow, and nothing else in the API needs it.
    from app import migrations

    if not migrations.position(database).is_usable:
        raise Unavailable(FAULTS[Part.MIGRATIONS])


def _count_workers(database: Database, *, lease_seconds: float) -> Workforce:
    with database.read() as session:
        return count_workers(session, lease_seconds=lease_seconds)


def _read_figures(database: Database) -> WorkMetrics:
    with database.read() as session:
        return work_metrics(session)


def _read_estimated(database: Database) -> tuple[Sequence[RemainingWork], Backlog, Backlog]:
    with database.read() as session:
        return (
            remaining_work(session),
            read_backlog(session, WebhookDelivery),
            read_backlog(session, Destination),
        )


# Without these a process that has just started may be set up wrong; late wake-ups of workers do not matter.
NEEDED_AT_START = (Part.DATABASE, Part.MIGRATIONS, Part.STORAGE)

IS_STOPPING = "The server is stopping."
NO_ROOM = "There is no room for uploads: the spool's disk is full."


class Readiness:
    """A process is ready once it has reached everything that it needs, until it stops, while its spool has space."""

    def __init__(self, checks: HealthChecks, spool_space: SpoolSpace) -> None:
        self._checks = checks
        self._spool_space = spool_space
        self._has_started = False
        self._is_stopping = False

    def stop(self) -> None:
        """Mark the process as not ready from now on."""
        self._is_stopping = True

    async def faults(self) -> list[str]:
        """The reasons why this process cannot serve; none if it is ready. Within 5 s."""
        if self._is_stopping:
            return [IS_STOPPING]
        if not self._has_started:
            states = await self._checks.parts()
            missing = [FAULTS[part] for part in NEEDED_AT_START if states[part] is PartState.FAILED]
            if missing:
                return missing
            self._has_started = True
        return [] if self._spool_space.has_room else [NO_ROOM]
