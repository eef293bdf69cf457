"""The time that rows and answers show. Leases run on the database's own clock instead: see `database_now`."""

from datetime import UTC, datetime


def now() -> datetime:
    """The present moment in UTC."""
    return datetime.now(UTC)
