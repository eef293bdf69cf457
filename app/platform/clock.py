"""The time that rows and answers show. Leases run on the database's own clock instead: see `database_now`."""

from collections.abc import Callable
from datetime import UTC, datetime


def system_now() -> datetime:
    """What the machine's own clock says, in UTC."""
    return datetime.now(UTC)


_source: Callable[[], datetime] = system_now


def now() -> datetime:
    """The present moment in UTC."""
    return _source()


def set_source(source: Callable[[], datetime]) -> None:
    """Have `now` ask that instead of the machine, in this whole process: for a server whose answers repeat."""
    global _source  # noqa: PLW0603
    _source = source
