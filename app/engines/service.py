"""The engines that requests may name: the built-in ones, and those that operators added to workers that run."""

import threading
import time
from collections.abc import Iterable, Mapping

from sqlalchemy.orm import Session

from app.engines import queries
from app.engines.tables import AddedEngine
from app.platform.database import Database
from app.platform.errors import InvalidRequest, Unavailable
from app.platform.quoting import received
from models.catalog import ENGINES, AddedWeights, Engine

FRESH_SECONDS = 2.0


class KnownEngines:
    """The engines of this moment, read again once they are a few seconds old."""

    def __init__(self, database: Database, *, silent_for: float) -> None:
        """An added engine that no worker reported for `silent_for` seconds is not known."""
        self._database = database
        self._silent_for = silent_for
        self._lock = threading.Lock()
        self._engines = ENGINES
        self._fresh_until = 0.0

    def all(self) -> Mapping[str, Engine]:
        """By id, the built-in ones first. During an outage of the database those known before."""
        with self._lock:
            if time.monotonic() >= self._fresh_until:
                try:
                    with self._database.read() as session:
                        rows = queries.list_engines(session, silent_for=self._silent_for)
                        self._engines = {**ENGINES, **{row.id: _engine(row) for row in rows}}
                except Unavailable:
                    pass
                self._fresh_until = time.monotonic() + FRESH_SECONDS
            return self._engines


def require_engine(engine_id: str, engines: Mapping[str, Engine] = ENGINES) -> Engine:
    """Returns the engine of that id. Raises InvalidRequest for one that is not among these."""
    engine = engines.get(engine_id)
    if engine is None:
        *others, last = (f'"{name}"' for name in engines)
        raise InvalidRequest(f"`engine` must be {', '.join(others)} or {last}{received(engine_id)}")
    return engine


def stored_engine(session: Session, engine_id: str) -> Engine:
    """Returns the engine of a render that was accepted, even if no worker has it now. Raises InvalidRequest."""
    if engine_id in ENGINES:
        return ENGINES[engine_id]
    row = queries.find_engine(session, engine_id)
    return require_engine(engine_id) if row is None else _engine(row)


def report_engines(session: Session, engines: Iterable[Engine], *, silent_for: float) -> list[str]:
    """Records the added engines of a worker, and returns the ids of those that it may serve.

    Not those of which other workers that run have other weights: a video's segments would differ.
    """
    return [
        engine.id
        for engine in engines
        if isinstance(engine.source, AddedWeights)
        and queries.report_engine(
            session,
            AddedEngine(
                id=engine.id,
                name=engine.name,
                description=engine.description,
                cost_multiplier=engine.cost_multiplier,
                licence=engine.licence,
                data_sha256=engine.source.data_sha256,
            ),
            silent_for=silent_for,
        )
    ]


def _engine(row: AddedEngine) -> Engine:
    multiplier = row.cost_multiplier
    return Engine(
        id=row.id,
        name=row.name,
        description=row.description,
        cost_multiplier=int(multiplier) if multiplier.is_integer() else multiplier,
        source=AddedWeights(data_sha256=row.data_sha256),
        licence=row.licence,
    )
