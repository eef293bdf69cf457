"""The product's own statements on PostgreSQL, sent by pgbench: what the database allows without the workers' Python.

Statements and values are read out of the server's log while the product's code runs, so they cannot drift from it.
"""

import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

import psycopg

from bench.cluster import DurablePostgres
from tests.servers.postgres import OWNER, SUPERUSER

LINE = re.compile(r"^\S+ \S+ \S+ \[\d+\] (\w+):  ", re.MULTILINE)
VALUE = re.compile(r"\$(\d+) = (NULL|'(?:[^']|'')*')")
# In place of the pool's ping, an empty statement, which pgbench leaves out.
PING = "SELECT 1"
LOCKED_SECONDS = 0.5


@dataclass(frozen=True)
class Statement:
    """One statement as it came to the server, with its values by number; None for NULL."""

    sql: str
    values: dict[int, str | None] = field(default_factory=dict)


class Recorder:
    """Records what the owner's connections to one database send. Made before they are opened."""

    def __init__(self, server: DurablePostgres, url: str) -> None:
        self._server, self._log = server, server.directory / "log"
        self._name = url.rpartition("/")[2]
        self._set("SET log_statement = 'all'")

    def record(self, call: Callable[[], object]) -> list[Statement]:
        start = self._log.stat().st_size
        call()
        return list(_statements(self._log.read_bytes()[start:].decode()))

    def record_while_locked(self, table: str, call: Callable[[], object]) -> list[Statement]:
        """What is sent while all rows of the table are locked, and after LOCKED_SECONDS no more."""
        url = self._server.url(self._name, user=SUPERUSER)

        def call_beside_the_lock() -> None:
            thread = Thread(target=call)
            with psycopg.connect(url) as connection:
                connection.execute(f"SELECT FROM {table} FOR NO KEY UPDATE")
                thread.start()
                time.sleep(LOCKED_SECONDS)
            thread.join()

        return self.record(call_beside_the_lock)

    def end(self) -> None:
        self._set("RESET log_statement")

    def _set(self, words: str) -> None:
        with self._server.administration() as connection:
            connection.execute(f"ALTER ROLE {OWNER} IN DATABASE {self._name} {words}")


def _statements(log: str) -> Iterator[Statement]:
    parts = LINE.split(log)[1:]
    last: Statement | None = None
    for kind, words in zip(parts[::2], parts[1::2], strict=True):
        if kind == "LOG" and (sql := re.match(r"(?:statement|execute \S+): (.*)", words, re.DOTALL)):
            yield (last := Statement(sql[1].strip()))
        elif kind == "DETAIL" and last is not None:
            for number, value in VALUE.findall(words):
                last.values[int(number)] = None if value == "NULL" else value[1:-1].replace("''", "'")


class Script:
    """A pgbench script. A value that `variables` names is that variable of pgbench, all others are constants."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.variables = dict(variables)
        self.lines: list[str] = []
        self._constants: dict[str, str] = {}

    def command(self, words: str) -> None:
        self.lines.append(f"\\{words}")

    def send(self, statement: Statement, *, end: str = ";") -> None:
        """`end` may be one of pgbench's commands that keep a result."""
        sql = re.sub(
            r"\$(\d+)",
            lambda found: self._variable(statement.values[int(found[1])]),
            statement.sql.strip(";"),
        )
        self.lines.append((sql or PING) + end)

    @property
    def definitions(self) -> list[str]:
        """The constants, as arguments of pgbench."""
        return [f"--define={name}={value}" for value, name in self._constants.items()]

    def _variable(self, value: str | None) -> str:
        # A variable of pgbench is neither NULL nor empty.
        if not value:
            return "NULL" if value is None else "''"
        named = self.variables.get(value)
        return f":{named or self._constants.setdefault(value, f'constant_{len(self._constants)}')}"


@dataclass(frozen=True)
class PgbenchRun:
    """Transactions of all clients together."""

    a_second: float
    seconds: list[float]
    """Each one's."""


def run_script(
    server: DurablePostgres, url: str, script: Script, *, clients: int, seconds: float, directory: Path
) -> PgbenchRun:
    """With prepared statements, over TCP."""
    (directory / "script.sql").write_text("\n".join(script.lines) + "\n")
    command: Sequence[str | Path] = [
        *(server.programs / "pgbench", "--no-vacuum", "--protocol=prepared", "--file=script.sql", "--log"),
        *(f"--client={clients}", f"--time={seconds:.0f}", *script.definitions, "--define=i=0", url),
    ]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rate = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
    assert rate is not None, done.stdout
    logs = list(directory.glob("pgbench_log.*"))
    taken = [int(line.split()[2]) / 1e6 for log in logs for line in log.read_text().splitlines()]
    for log in logs:
        log.unlink()
    return PgbenchRun(float(rate[1]), taken)


@contextmanager
def sampled_waits(
    server: DurablePostgres, url: str, *, every_seconds: float = 0.02
) -> Iterator[dict[str, int]]:
    """How often each of the owner's connections was found waiting, by kind of wait. Filled when the context ends;
    `busy` is without a wait, `idle` outside of a statement."""
    counts: dict[str, int] = {}
    is_over = False
    query = """SELECT CASE WHEN state NOT IN ('active') THEN 'idle' ELSE coalesce(
                      CASE WHEN wait_event IN ('WALWrite', 'WALSync') THEN 'disk' ELSE wait_event_type END, 'busy')
                      END, count(*)
               FROM pg_stat_activity WHERE usename = %s AND datname = %s GROUP BY 1"""

    def sample() -> None:
        with psycopg.connect(server.url("postgres", user=SUPERUSER), autocommit=True) as connection:
            while not is_over:
                for kind, count in connection.execute(query, [OWNER, url.rpartition("/")[2]]):
                    counts[kind] = counts.get(kind, 0) + count
                time.sleep(every_seconds)

    thread = Thread(target=sample)
    thread.start()
    try:
        yield counts
    finally:
        is_over = True
        thread.join()
