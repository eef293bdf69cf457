"""Each statement is compiled once in a process of tests, not anew for the database of each test: SQLAlchemy takes half
of such a test's processor time for it."""

from functools import partial
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.util import LRUCache

from app.platform import database_engine

MOST_STATEMENTS = 2000


def share() -> None:
    """Give all engines of the application one cache, and the mappers' caches one key for all dialects of a kind."""
    for dialect in (PGDialect_psycopg, SQLiteDialect_pysqlite):
        dialect.__eq__ = _is_of_same_kind  # type: ignore[method-assign, assignment]
        dialect.__hash__ = _hash_of_kind  # type: ignore[method-assign, assignment]
    cache: LRUCache[Any, Any] = LRUCache(MOST_STATEMENTS)
    with_cache = partial(create_engine, execution_options={"compiled_cache": cache})
    database_engine.create_engine = with_cache  # type: ignore[attr-defined]


def _is_of_same_kind(one: Dialect, other: object) -> bool:
    return type(one) is type(other)


def _hash_of_kind(dialect: Dialect) -> int:
    return hash(type(dialect))
