"""Migrations up, down and up again, by one process or several at once, and where a database stands."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, inspect, text

from app import migrations
from app.migrations import Position
from app.platform.database import Database
from app.platform.errors import ConfigurationError, Unavailable
from app.platform.tables import Table
from tests.servers.forked import ForkedServerProcess
from tests.servers.process import wait_until

on_postgresql = pytest.mark.parametrize("empty_url", ["postgresql"], indirect=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'regen.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def empty(empty_url: str) -> Iterator[Database]:
    """A database without any table."""
    database = Database(empty_url)
    yield database
    database.close()


def tables(database: Database) -> set[str]:
    return set(inspect(database.engine).get_table_names())


def test_up_down_and_up_again(empty: Database) -> None:
    assert migrations.position(empty) is Position.EMPTY
    for _ in range(2):
        migrations.upgrade(empty)
        assert migrations.position(empty) is Position.HEAD
        assert migrations.drift(empty) == []
        assert set(Table.metadata.tables) <= tables(empty)
        migrations.upgrade(empty)
        migrations.downgrade(empty)
        assert tables(empty) == {"alembic_version"}
        assert migrations.position(empty) is Position.EMPTY


def test_a_database_that_lacks_migrations_is_not_worked_on(empty: Database) -> None:
    for position in (Position.EMPTY, Position.BEHIND):
        assert migrations.position(empty) is position
        with pytest.raises(ConfigurationError, match="regen db upgrade"):
            migrations.require_usable(empty)
        migrations.upgrade(empty)
        migrations.require_usable(empty)
        migrations.downgrade(empty, "0001")
    assert migrations.revision(empty) == "0001"


def test_a_worker_migrates_what_is_there_and_refuses_what_is_empty(empty: Database) -> None:
    with pytest.raises(ConfigurationError, match="regen db upgrade"):
        migrations.upgrade_existing(empty)
    assert migrations.position(empty) is Position.EMPTY
    migrations.upgrade(empty)
    migrations.downgrade(empty, "0001")
    migrations.upgrade_existing(empty)
    assert migrations.position(empty) is Position.HEAD


def test_the_database_of_a_later_version_is_left_as_it_is_and_worked_on(empty: Database) -> None:
    migrations.upgrade(empty)
    with empty.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'from-a-later-version'"))
    migrations.upgrade(empty)
    assert migrations.position(empty) is Position.AHEAD
    assert migrations.revision(empty) == "from-a-later-version"
    migrations.require_usable(empty)
    with empty.read() as session:
        assert session.scalar(text("SELECT count(*) FROM renders")) == 0


def test_a_table_that_no_migration_made_counts_as_drift(database: Database) -> None:
    with database.write() as session:
        session.execute(text("CREATE TABLE stray (id INTEGER)"))
    assert any("stray" in line for line in migrations.drift(database))


def test_the_check_compares_with_a_database_of_ones_own(
    empty: Database, empty_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert migrations.main(["check"]) == 0
    assert migrations.main(["check", "--database-url", empty_url]) == 0
    migrations.downgrade(empty, "0001")
    assert migrations.main(["check", "--database-url", empty_url]) == 1
    assert "not up to date" in capsys.readouterr().err
    assert migrations.position(empty) is Position.BEHIND


def migrating_process(url: str, log: Path) -> ForkedServerProcess:
    return ForkedServerProcess(
        ["db", "upgrade", "--data-dir", log.parent],
        log=log,
        environment={**os.environ, "REGEN_DATABASE_URL": url},
    )


@pytest.mark.slow
def test_processes_that_migrate_at_once_take_turns(empty: Database, empty_url: str, tmp_path: Path) -> None:
    """One migrates, the others find it done. On PostgreSQL they are held up until all are under way."""
    if empty.is_sqlite:
        processes = [migrating_process(empty_url, tmp_path / f"{number}.log") for number in range(2)]
    else:
        with empty.connect(to_write=True) as connection, connection.begin():
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": migrations.ADVISORY_LOCK})
            processes = [migrating_process(empty_url, tmp_path / f"{number}.log") for number in range(4)]
            wait_until(lambda: waiting(connection) == 4, seconds=120, what="all of them wait for the lock")
    wait_until(lambda: all(one.status is not None for one in processes), seconds=60, what="all have migrated")
    ends = [(process.tail(), process.status) for process in processes]
    assert [status for _output, status in ends] == [0] * len(processes), ends
    assert all("is at the newest migration" in output for output, _status in ends)
    assert migrations.drift(empty) == []


def waiting(connection: Connection) -> int:
    """How many wait for an advisory lock. Asked by who holds it: a transaction that is idle for long is ended."""
    query = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    return int(connection.execute(query).scalar_one())


@on_postgresql
def test_a_migration_may_take_longer_than_other_statements(empty: Database, empty_url: str) -> None:
    hurried = Database(f"{empty_url}?options=-c%20statement_timeout=300ms")
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        with empty.connect(to_write=True) as connection, connection.begin():
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": migrations.ADVISORY_LOCK})
            holding.set()
            done.wait(0.6)

    holder = threading.Thread(target=hold)
    holder.start()
    holding.wait(10)
    migrations.upgrade(hurried)
    holder.join()
    assert migrations.position(hurried) is Position.HEAD
    hurried.close()


@on_postgresql
def test_a_migration_steps_back_from_a_table_that_is_in_use(
    empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that whoever comes after it need not wait for the long transaction as well."""
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(migrations, "LOCK_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(migrations, "LOCK_ATTEMPTS", 2)
    migrations.upgrade(empty)
    migrations.downgrade(empty, "0001")
    with empty.connect() as connection:
        connection.execute(text("SELECT count(*) FROM renders"))
        with pytest.raises(Unavailable) as error:
            migrations.upgrade(empty)
        assert "lock timeout" in error.value.message
        with empty.read() as session:
            assert session.scalar(text("SELECT count(*) FROM renders")) == 0
    migrations.upgrade(empty)
    assert migrations.position(empty) is Position.HEAD


def test_the_command_says_where_the_database_stands(empty_url: str, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from app.cli.application import application

    def regen(command: str) -> tuple[int, str]:
        environment = {"REGEN_DATABASE_URL": empty_url, "REGEN_DATA_DIR": str(tmp_path)}
        answer = CliRunner().invoke(application, ["db", command], env=environment)
        return answer.exit_code, answer.output

    status, said = regen("status")
    # A file is not made by looking at it; a database of a server is there, without a table.
    expected = "There is no database" if empty_url.startswith("sqlite") else "is empty"
    assert (status, expected in said) == (1, True)
    status, said = regen("upgrade")
    assert (status, "at the newest migration" in said) == (0, True)
    database = Database(empty_url)
    migrations.downgrade(database, "0001")
    status, said = regen("status")
    assert (status, "at migration 0001 and lacks later ones" in said) == (1, True)
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    status, said = regen("status")
    assert (status, "9999, of a later version" in said) == (0, True)
