"""PostgreSQL's own faults: what they become, and that the next request finds a working server again."""

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from psycopg.errors import DeadlockDetected
from sqlalchemy import select, text

from app import migrations
from app.accounts import queries as account_queries
from app.accounts.tables import User
from app.cli.doctor.findings import FindingState
from app.cli.doctor.services import check_database
from app.platform.database import Database
from app.platform.database_engine import TRIED_AFTER_SECONDS, PoolLimits
from app.platform.errors import ConfigurationError, RegenError, Unavailable
from app.platform.settings import Settings
from tests.servers.postgres import PostgresServer
from tests.servers.process import free_port, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def database(migrated_postgres_url: str) -> Iterator[Database]:
    with opened(migrated_postgres_url) as database:
        yield database


@contextmanager
def opened(url: str, **settings: object) -> Iterator[Database]:
    database = Database.from_settings(Settings(database_url=url, **settings))
    try:
        yield database
    finally:
        database.close()


def show(database: Database, name: str) -> object:
    with database.write() as session:
        return session.scalar(text(f"SHOW {name}"))


def add_user(database: Database, name: str) -> None:
    with database.write() as session:
        account_queries.add_user(session, user_id=name, name=name)


def names(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.scalars(select(User.name)))


class TestWhatIsSetUpWrong:
    def refusal(self, url: str, kind: type[RegenError], password: str, **settings: object) -> str:
        with opened(url, **settings) as database, pytest.raises(kind) as error:
            database.check()
        assert password not in f"{error.value} {error.value.detail} {error.value.__cause__!r}"
        return error.value.message

    def test_a_wrong_password(self, postgres_server: PostgresServer) -> None:
        url = postgres_server.url("regen", password="not the password".replace(" ", "%20"))
        message = self.refusal(url, ConfigurationError, "not the password")
        assert 'password authentication failed for user "regen"' in message
        assert "REGEN_DATABASE_PASSWORD" in message

    def test_no_password(self, postgres_server: PostgresServer) -> None:
        url = f"postgresql://regen@127.0.0.1:{postgres_server.port}/regen"
        assert "no password" in self.refusal(url, ConfigurationError, postgres_server.password)

    def test_a_database_that_does_not_exist(self, postgres_server: PostgresServer) -> None:
        message = self.refusal(postgres_server.url("nothing"), ConfigurationError, postgres_server.password)
        assert 'database "nothing" does not exist' in message
        assert f"nothing at 127.0.0.1:{postgres_server.port}" in message

    @pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
    def test_an_encoding_other_than_utf8(self, postgres_server: PostgresServer, encoding: str) -> None:
        url = postgres_server.create_database(encoding=encoding)
        try:
            message = self.refusal(url, ConfigurationError, postgres_server.password)
            assert f"has the encoding {encoding}" in message
            assert "ENCODING 'UTF8'" in message
            with opened(url) as database, pytest.raises(ConfigurationError, match=encoding):
                migrations.upgrade(database)
            with opened(url) as database, pytest.raises(ConfigurationError, match=encoding):
                migrations.require_usable(database)
            (finding,) = check_database(Settings(database_url=url))
            assert finding.state is FindingState.MISSING
            assert encoding in finding.found
        finally:
            postgres_server.drop_database(url)

    def test_an_option_that_does_not_exist(self, postgres_server: PostgresServer) -> None:
        url = f"{postgres_server.url('regen')}?colour=blue"
        assert "colour" in self.refusal(url, ConfigurationError, postgres_server.password)

    def test_nobody_listens(self) -> None:
        url = f"postgresql://regen:hunter2@127.0.0.1:{free_port()}/regen"
        assert "Connection refused" in self.refusal(url, Unavailable, "hunter2")

    def test_a_server_that_accepts_and_never_answers(self) -> None:
        """Given up after the time in the URL, which wins over our own."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            url = f"postgresql://regen:hunter2@127.0.0.1:{port}/regen?connect_timeout=2"
            assert "timeout" in self.refusal(url, Unavailable, "hunter2")


def test_the_password_may_stand_in_a_setting_of_its_own(postgres_server: PostgresServer) -> None:
    url = f"postgresql://regen@127.0.0.1:{postgres_server.port}/postgres"
    with opened(url, database_password=postgres_server.password) as database:
        database.check()


def test_how_connections_are_made(database: Database, postgres_server: PostgresServer) -> None:
    with database.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        parameters = driver.info.get_parameters()
        if sys.platform == "linux":
            with socket.socket(fileno=driver.fileno()) as wire:
                options = [
                    wire.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{name}"))
                    for name in ("KEEPIDLE", "KEEPINTVL", "KEEPCNT", "USER_TIMEOUT")
                ]
                assert wire.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                wire.detach()
            assert options == [6, 3, 3, 15_000]
    assert (parameters["connect_timeout"], parameters["application_name"]) == ("5", "regen")
    assert show(database, "statement_timeout") == "15s"
    assert show(database, "idle_in_transaction_session_timeout") == "10s"


def test_sessions_are_read_committed_whatever_the_server_prefers(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    with postgres_server.administration() as connection:
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    with opened(postgres_url) as database:
        assert show(database, "transaction_isolation") == "read committed"


def test_reading_leaves_no_transaction_behind_and_changes_nothing(
    database: Database, postgres_server: PostgresServer
) -> None:
    with database.read() as session:
        session.scalars(select(User)).all()
        with pytest.raises(Exception, match="read-only transaction"):
            account_queries.add_user(session, user_id="1", name="one")
    assert names(database) == set()
    add_user(database, "one")
    assert states(postgres_server, database) == ["idle"]


def states(server: PostgresServer, database: Database) -> list[str]:
    """What the database's connections are doing."""
    with server.administration() as connection:
        rows = connection.execute(
            "SELECT state FROM pg_stat_activity WHERE datname = %s", [database.engine.url.database]
        )
        return [state for (state,) in rows]


def test_a_pool_that_is_used_up_is_unavailable_and_recovers(migrated_postgres_url: str) -> None:
    limits = {"database_pool_size": 1, "database_pool_overflow": 1, "database_pool_timeout_seconds": 0.1}
    with opened(migrated_postgres_url, **limits) as database:
        with database.connect(), database.connect():
            with pytest.raises(Unavailable), database.read() as session:
                session.execute(text("SELECT 1"))
            with pytest.raises(Unavailable, match="cannot be used just now"):
                database.check()
        assert names(database) == set()


def test_a_server_that_is_restarted_costs_the_transactions_under_way_and_nothing_else() -> None:
    server = PostgresServer()
    try:
        server.start()
        with opened(server.url("postgres")) as database:
            assert outcome_when(database, server.restart) == "unavailable"
            assert outcome_when(database, lambda: None) == "committed"
            assert outcome_when(database, lambda: (server.kill(), server.start())) == "unavailable"
            server.stop()
            with pytest.raises(Unavailable, match="cannot be reached"), database.read() as session:
                session.execute(text("SELECT 1"))
            server.start()
            with database.read() as session:
                assert session.scalar(text("SELECT 1")) == 1
    finally:
        server.close()


def test_connections_that_ended_while_they_were_idle_cost_nothing(
    database: Database, postgres_server: PostgresServer
) -> None:
    assert names(database) == set()
    with postgres_server.administration() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [database.engine.url.database],
        )
    time.sleep(TRIED_AFTER_SECONDS)
    add_user(database, "a")
    assert names(database) == {"a"}


def test_a_connection_that_was_in_use_a_moment_ago_is_not_tried(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    try_it = database.engine.dialect.do_ping
    monkeypatch.setattr(
        database.engine.dialect, "do_ping", lambda connection: tried.append(connection) or try_it(connection)
    )
    for _ in range(10):
        names(database)
    assert len(tried) < 5  # none, on a machine that does not stand still for a second
    before = len(tried)
    time.sleep(TRIED_AFTER_SECONDS)
    names(database)
    assert len(tried) == before + 1


def outcome_when(database: Database, happens: Callable[[], object]) -> str:
    """How a transaction ends within which that happens."""
    try:
        with database.write() as session:
            session.execute(text("SELECT 1"))
            happens()
            session.execute(text("SELECT 1"))
    except Unavailable:
        return "unavailable"
    return "committed"


@pytest.mark.parametrize("how", ["pg_cancel_backend", "pg_terminate_backend"])
def test_what_an_administrator_ends_is_unavailable(
    database: Database, postgres_server: PostgresServer, how: str
) -> None:
    def end_it() -> None:
        wait_until(lambda: "active" in states(postgres_server, database), what="the query runs")
        with postgres_server.administration() as connection:
            connection.execute(
                f"SELECT {how}(pid) FROM pg_stat_activity WHERE datname = %s", [database.engine.url.database]
            )

    administrator = threading.Thread(target=end_it)
    administrator.start()
    with pytest.raises(Unavailable), database.write() as session:
        session.execute(text("SELECT pg_sleep(60)"))
    administrator.join()
    assert names(database) == set()


def test_a_statement_that_takes_too_long_is_given_up(migrated_postgres_url: str) -> None:
    """Also one that waits for a row which somebody else holds."""
    with opened(f"{migrated_postgres_url}?options=-c%20statement_timeout=200ms") as database:
        add_user(database, "one")
        with database.write() as holder:
            holder.execute(select(User).with_for_update())
            with pytest.raises(Unavailable) as error, database.write() as session:
                session.execute(select(User).with_for_update())
        assert "statement timeout" in str(error.value.detail)
        assert names(database) == {"one"}


def test_a_transaction_that_was_forgotten_lets_its_locks_go(migrated_postgres_url: str) -> None:
    url = f"{migrated_postgres_url}?options=-c%20idle_in_transaction_session_timeout=200ms"
    with opened(url) as database:
        add_user(database, "one")
        with pytest.raises(Unavailable), database.write() as forgotten:
            forgotten.execute(select(User).with_for_update())
            with database.write() as session:  # waits until the server has ended the other one
                session.execute(select(User).with_for_update())
            forgotten.execute(text("SELECT 1"))


def test_the_victim_of_a_deadlock_may_try_again(database: Database) -> None:
    add_user(database, "one")
    add_user(database, "two")
    both_hold_one = threading.Barrier(2)
    ends: list[object] = []

    def lock(first: str, second: str) -> None:
        try:
            with database.write() as session:
                session.execute(select(User).where(User.id == first).with_for_update())
                both_hold_one.wait(10)
                session.execute(select(User).where(User.id == second).with_for_update())
        except Unavailable as error:
            ends.append(getattr(error.__cause__, "orig", None))
        else:
            ends.append("committed")

    threads = [threading.Thread(target=lock, args=pair) for pair in (("one", "two"), ("two", "one"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "committed" in ends
    assert any(isinstance(end, DeadlockDetected) for end in ends)


def test_the_default_pool_is_that_of_the_settings() -> None:
    assert PoolLimits() == PoolLimits.from_settings(Settings())
