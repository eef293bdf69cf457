"""What the database's failures are to us: passing ones, which clients may try again after, and faults of set-up."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as NoFreeConnection

from app.platform.errors import ConfigurationError, DatabaseUnavailable

UNREACHABLE = "The database cannot be reached just now."

# A server that answered, and will go on answering so until somebody changes the settings or the server. libpq hands
# down no code for what befalls a connection that is being made, only English words, as long as the server speaks it.
REFUSALS = (
    "password authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "does not exist",
    "is not permitted to log in",
    "permission denied",
    "certificate",
    "does not support SSL",
    "invalid connection option",
)


@contextmanager
def told_to_clients() -> Iterator[None]:
    """Turns what will pass into DatabaseUnavailable; the rest is left as it is.

    That is a server that is away, restarts, is full or cut a connection off, and a transaction that was the victim
    of a deadlock, a time limit or an administrator.
    """
    try:
        yield
    except (DBAPIError, NoFreeConnection) as error:
        if not _will_pass(error):
            raise
        raise DatabaseUnavailable(UNREACHABLE, detail=str(error)) from error


@contextmanager
def told_to_operators(url: URL) -> Iterator[None]:
    """As `told_to_clients`, in sentences for who set the database up: where it is, and what it answered."""
    try:
        yield
    except (DBAPIError, NoFreeConnection) as error:
        is_connecting = isinstance(error, DBAPIError) and error.statement is None
        if not (is_connecting or _will_pass(error)):
            raise
        answer = _last_words(error)
        if any(words in answer for words in REFUSALS):
            raise ConfigurationError(
                f"The database {_place(url)} refuses: {answer}. "
                "Check REGEN_DATABASE_URL and REGEN_DATABASE_PASSWORD.",
                detail=str(error),
            ) from error
        raise DatabaseUnavailable(
            f"The database {_place(url)} cannot be used just now: {answer}.", detail=str(error)
        ) from error


def _will_pass(error: DBAPIError | NoFreeConnection) -> bool:
    if isinstance(error, NoFreeConnection):
        return True
    return error.connection_invalidated or isinstance(error, OperationalError)


def _last_words(error: DBAPIError | NoFreeConnection) -> str:
    """The driver's own message without what leads up to it, which only repeats where the server is."""
    words = str(error.orig if isinstance(error, DBAPIError) else error).strip().splitlines()[0]
    for prefix in ("FATAL:", " failed:"):
        words = words.rpartition(prefix)[2].strip()
    return words.rstrip(".")


def _place(url: URL) -> str:
    """Without the password, whatever else the URL says."""
    if url.host is None:
        return str(url.database)
    return f"{url.database or ''} at {url.host}:{url.port or 5432}".strip()
