"""Transactions and the clock, on both databases."""

import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, text

from app.accounts import queries as account_queries
from app.accounts.service import create_user
from app.accounts.tables import User
from app.files import queries as file_queries
from app.platform.database import Database, database_now
from app.platform.errors import ConfigurationError, Conflict, Unavailable
from app.renders import queries as render_queries

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def test_what_raises_is_rolled_back(database: Database) -> None:
    with pytest.raises(RuntimeError, match="half-way"), database.write() as session:
        account_queries.add_user(session, user_id="1", name="one")
        raise RuntimeError("half-way")
    with database.read() as session:
        assert session.scalars(select(User)).all() == []


def test_a_name_that_is_taken_leaves_the_rest_of_the_transaction_alone(database: Database) -> None:
    with database.write() as session:
        create_user(session, name="one")
        with pytest.raises(Conflict, match="already a user named 'one'"):
            create_user(session, name="one")
        create_user(session, name="two")
    with database.read() as session:
        assert {user.name for user in session.scalars(select(User))} == {"one", "two"}


@on_sqlite
def test_writers_wait_for_each_other_and_lose_nothing(database: Database) -> None:
    """Each reads the count and writes the next: without BEGIN IMMEDIATE some of them would read the same."""

    def add(_number: int) -> None:
        with database.write() as session:
            count = len(session.scalars(select(User)).all())
            time.sleep(0.01)
            account_queries.add_user(session, user_id=str(count), name=f"user {count}")

    threads = [threading.Thread(target=add, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        assert {user.id for user in session.scalars(select(User))} == {str(number) for number in range(12)}


@on_sqlite
def test_commits_survive_a_power_cut(database: Database) -> None:
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000


def test_the_databases_clock_is_utc_and_takes_an_offset(database: Database) -> None:
    with database.read() as session:
        now, later, sooner = session.execute(
            select(database_now(), database_now(plus_seconds=90.5), database_now(plus_seconds=-3600))
        ).one()
    assert later - now == timedelta(seconds=90.5)
    assert now - sooner == timedelta(hours=1)
    assert abs(now - datetime.now(UTC)) < timedelta(seconds=5)


@pytest.mark.parametrize("strange", ["", "no-such-id", "\0", "a\0b", "\udcff", "١٢٣", "x" * 100_000])
def test_an_id_that_cannot_be_one_is_not_found(database: Database, strange: str) -> None:
    """What PostgreSQL's text cannot hold is asked for like anything else."""
    with database.read() as session:
        assert render_queries.find_render(session, render_id=strange, user_id="1") is None
        assert file_queries.find_file(session, file_id=strange, user_id="1") is None
        assert account_queries.find_key(session, key_id=strange) is None


def test_a_database_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "regen.db").mkdir()
    database = Database(f"sqlite:///{tmp_path / 'regen.db'}")
    with pytest.raises(Unavailable, match="unable to open database file"):
        database.check()
    with pytest.raises(Unavailable), database.read() as session:
        session.execute(text("SELECT 1"))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://regen:hunter2@secret@127.0.0.1/regen",
        "postgresql://regen:hunter2@127.0.0.1:port/regen",
        "mysql://regen:hunter2@127.0.0.1/regen",
        "hunter2",
        "",
    ],
)
def test_what_is_no_database_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError, match="must look like postgresql://") as refusal:
        Database(url)
    assert "hunter2" not in f"{refusal.value} {refusal.value.detail}"
    assert refusal.value.__cause__ is None
