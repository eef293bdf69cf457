"""The clock of this machine, for answers. Rows have the database's own: see `database_now` and `read_clock`."""

from collections.abc import Callable
from datetime import UTC, datetime


def system_now() -> datetime:
    """The time of the machine's clock, in UTC."""
    return datetime.now(UTC)


_source: Callable[[], datetime] = system_now


def now() -> datetime:
    """The present moment in UTC."""
    return _source()


def set_source(source: Callable[[], datetime]) -> None:
    """Make `now` of this process return the time of `source`: for a server with repeatable answers."""
    global _source  # noqa: PLW0603
    _source = source
