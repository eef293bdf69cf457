"""What a cluster's processes have asked of PostgreSQL and Redis so far."""

from dataclasses import dataclass

import psycopg

from bench.cluster import Cluster
from tests.servers.postgres import OWNER, SUPERUSER

# What a client says around its statements, not what it asks.
FRAME = ("BEGIN", "COMMIT", "ROLLBACK")


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Those of everybody but the one who counts. `connections` and `redis_clients` are as of now."""

    statements: int
    transactions: int
    database_seconds: float
    redis_commands: int
    connections: int
    redis_clients: int

    def __sub__(self, earlier: "Counts") -> "Counts":
        return Counts(
            statements=self.statements - earlier.statements,
            transactions=self.transactions - earlier.transactions,
            database_seconds=self.database_seconds - earlier.database_seconds,
            redis_commands=self.redis_commands - earlier.redis_commands,
            connections=self.connections - earlier.connections,
            redis_clients=self.redis_clients - earlier.redis_clients,
        )


def count(cluster: Cluster) -> Counts:
    """`transactions` are those with a COMMIT or ROLLBACK of their own: reads are rolled back."""
    name = cluster.database_url.rpartition("/")[2]
    with psycopg.connect(cluster.postgres.url("postgres", user=SUPERUSER), autocommit=True) as connection:
        rows = connection.execute(
            "SELECT query, sum(calls)::bigint, sum(total_exec_time) / 1000 FROM pg_stat_statements "
            "WHERE userid = %s::regrole AND dbid = (SELECT oid FROM pg_database WHERE datname = %s) GROUP BY query",
            (OWNER, name),
        ).fetchall()
        (connections,) = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s", (name,)
        ).fetchone() or (0,)
    with cluster.broker.client() as client:
        commands = client.info("stats")["total_commands_processed"]
        clients = client.info("clients")["connected_clients"] - 1
    ends = sum(calls for query, calls, _ in rows if query.startswith(("COMMIT", "ROLLBACK")))
    return Counts(
        statements=sum(calls for query, calls, _ in rows if not query.startswith(FRAME)),
        transactions=ends,
        database_seconds=float(sum(seconds for _, _, seconds in rows)),
        redis_commands=commands,
        connections=connections,
        redis_clients=clients,
    )
