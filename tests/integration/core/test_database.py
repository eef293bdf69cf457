"""Transactions, the clock and the migrations."""

import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import inspect, select, text

from app.core import migrations
from app.core.database import Database, database_now
from app.core.errors import Unavailable
from app.core.repositories import accounts
from app.core.tables import Table, User


def test_migrations_make_the_tables_and_take_them_away_again(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'regen.db'}")
    assert not migrations.is_at_head(database)
    migrations.upgrade(database)
    migrations.upgrade(database)
    assert migrations.is_at_head(database)
    assert migrations.drift(database) == []
    assert set(Table.metadata.tables) <= set(inspect(database.engine).get_table_names())
    migrations.downgrade(database)
    assert set(inspect(database.engine).get_table_names()) == {"alembic_version"}
    database.close()


def test_a_table_that_no_migration_made_counts_as_drift(database: Database) -> None:
    with database.write() as session:
        session.execute(text("CREATE TABLE stray (id INTEGER)"))
    assert any("stray" in line for line in migrations.drift(database))


def test_what_raises_is_rolled_back(database: Database) -> None:
    with pytest.raises(RuntimeError, match="half-way"), database.write() as session:
        accounts.add_user(session, user_id="1", name="one")
        raise RuntimeError("half-way")
    with database.read() as session:
        assert session.scalars(select(User)).all() == []


def test_writers_wait_for_each_other_and_lose_nothing(database: Database) -> None:
    """Each reads the count and writes the next: without BEGIN IMMEDIATE some of them would read the same."""

    def add(_number: int) -> None:
        with database.write() as session:
            count = len(session.scalars(select(User)).all())
            time.sleep(0.01)
            accounts.add_user(session, user_id=str(count), name=f"user {count}")

    threads = [threading.Thread(target=add, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        assert {user.id for user in session.scalars(select(User))} == {str(number) for number in range(12)}


def test_commits_survive_a_power_cut(database: Database) -> None:
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000


def test_the_databases_clock_is_utc_and_takes_an_offset(database: Database) -> None:
    with database.read() as session:
        now, later = session.execute(select(database_now(), database_now(plus_seconds=90.5))).one()
    assert later - now == timedelta(seconds=90.5)
    assert abs(now - datetime.now(UTC)) < timedelta(seconds=5)


def test_a_database_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "regen.db").mkdir()
    database = Database(f"sqlite:///{tmp_path / 'regen.db'}")
    with pytest.raises(Unavailable):
        database.check()
