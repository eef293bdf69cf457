"""Which connections to PostgreSQL keep the plans of statements that come often, and what a migration does to these."""

import struct
from collections.abc import Iterator

import pytest
from sqlalchemy import select, text

from app.accounts.tables import User
from app.platform.database import ONE, Database
from app.platform.database_engine import PREPARE_AT, PoolLimits, PreparedStatements
from app.platform.errors import Unavailable
from app.renders.statuses import SegmentStatus
from app.renders.tables import Segment
from tests.servers.postgres import PostgresServer
from tests.servers.relay import relay_to

NAMES = select(User.id, User.name)
# The first of a new connection's answers that tells which process of the server it is with.
BACKEND_KEY_DATA = b"K\0\0\0\x0c"


def open_one(url: str, prepared_statements: PreparedStatements = "auto") -> Database:
    """With one connection, which all sessions use in turn."""
    return Database(url, pool=PoolLimits(size=1), prepared_statements=prepared_statements)


@pytest.fixture
def database(migrated_postgres_url: str) -> Iterator[Database]:
    database = open_one(migrated_postgres_url)
    yield database
    database.close()


def read_names(database: Database, *, times: int = 1) -> None:
    for _ in range(times):
        with database.read() as session:
            session.execute(NAMES).all()
        with database.read_columns() as connection:
            connection.execute(NAMES).all()


def count_prepared(database: Database, words: str = "users.name") -> int:
    with database.read() as session:
        query = text("SELECT count(*) FROM pg_prepared_statements WHERE position(:words in statement) > 0")
        return session.scalars(query, {"words": words}).one()


def test_a_statement_that_comes_often_is_prepared_and_stays_so(database: Database) -> None:
    read_names(database, times=PREPARE_AT)
    assert count_prepared(database) == 1
    read_names(database)
    with database.write() as session:
        session.execute(NAMES).all()
    assert count_prepared(database) == 1


@pytest.mark.parametrize(("wish", "count"), [("auto", 0), ("on", 1), ("off", 0)])
def test_behind_a_pooler_nothing_is_prepared_unless_asked_for(
    migrated_postgres_url: str, postgres_server: PostgresServer, wish: PreparedStatements, count: int
) -> None:
    def as_a_pooler(answer: bytes) -> bytes:
        """It tells its client a process of its own invention."""
        head, found, rest = answer.partition(BACKEND_KEY_DATA)
        return head + found + struct.pack("!I", 1) + rest[4:] if found else answer

    with relay_to(postgres_server.port) as relay:
        relay.down = as_a_pooler
        url = migrated_postgres_url.replace(str(postgres_server.port), str(relay.port))
        database = open_one(url, wish)
        read_names(database, times=PREPARE_AT)
        assert count_prepared(database) == count
        database.close()


def test_a_column_that_changes_its_type_costs_one_transaction(
    database: Database, migrated_postgres_url: str
) -> None:
    read_names(database, times=PREPARE_AT)
    migration = open_one(migrated_postgres_url)
    with migration.write() as session:
        session.execute(text("ALTER TABLE users ALTER COLUMN name TYPE text"))
    migration.close()
    with pytest.raises(Unavailable):
        read_names(database)
    read_names(database, times=PREPARE_AT)
    assert count_prepared(database) == 1


def test_a_plan_for_any_parameters_finds_waiting_segments_by_their_index(database: Database) -> None:
    waiting = select(Segment.id).where(Segment.render_id == "1", Segment.status == SegmentStatus.WAITING)
    with database.read() as session:
        session.execute(text("SET plan_cache_mode = force_generic_plan"))
        session.execute(text("SET enable_seqscan = off"))
        for _ in range(PREPARE_AT + 1):
            session.execute(waiting.order_by(Segment.position).limit(ONE)).all()
        prepared = text("SELECT name FROM pg_prepared_statements WHERE position('segments' in statement) > 0")
        name = session.scalars(prepared).one()
        plan = session.scalars(text(f"EXPLAIN EXECUTE {name}('1')")).all()
    assert "ix_segments_waiting" in "\n".join(plan)
