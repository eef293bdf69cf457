"""Failures of the database as typed errors, with sentences for users and for operators."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as NoFreeConnection

from app.platform.errors import ConfigurationError, DatabaseUnavailable

# SQLite's messages about a permanent fault of the file.
NO_SQLITE_DATABASE = frozenset({"file is not a database", "database disk image is malformed"})

UNREACHABLE = "The database cannot be reached just now."

# Refusals that last until an operator changes the settings or the server. libpq gives no error code for a failed
# connection attempt, only text, which is English unless the server is set to another language.
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
def client_errors() -> Iterator[None]:
    """Raises DatabaseUnavailable for a transient failure; every other error passes unchanged.

    Transient: the server is unavailable, restarts, has no free connection or closed one, or it aborted the
    transaction because of a deadlock, a time limit or an administrator.
    """
    try:
        yield
    except (DBAPIError, NoFreeConnection) as error:
        if not _is_transient(error):
            raise
        raise DatabaseUnavailable(UNREACHABLE, detail=str(error)) from error


@contextmanager
def operator_errors(url: URL) -> Iterator[None]:
    """As `client_errors`, with sentences for an operator: the database's address and answer.

    Raises ConfigurationError for a refusal that lasts until the settings or the server change.
    """
    try:
        yield
    except (DBAPIError, NoFreeConnection) as error:
        if isinstance(error, DBAPIError) and str(error.orig) in NO_SQLITE_DATABASE:
            raise ConfigurationError(
                f"{location(url)} is not an SQLite database, or is damaged. Restore it from a backup, or choose "
                "another with --data-dir or REGEN_DATA_DIR.",
                detail=str(error),
            ) from error
        is_connecting = isinstance(error, DBAPIError) and error.statement is None
        if not (is_connecting or _is_transient(error)):
            raise
        answer = _driver_message(error)
        if any(refusal in answer for refusal in REFUSALS):
            raise ConfigurationError(
                f"The database {location(url)} refuses access: {answer}. Check REGEN_DATABASE_URL and "
                "REGEN_DATABASE_PASSWORD.",
                detail=str(error),
            ) from error
        raise DatabaseUnavailable(
            f"The database {location(url)} cannot be used just now: {answer}.", detail=str(error)
        ) from error


def _is_transient(error: DBAPIError | NoFreeConnection) -> bool:
    if isinstance(error, NoFreeConnection):
        return True
    return error.connection_invalidated or isinstance(error, OperationalError)


def _driver_message(error: DBAPIError | NoFreeConnection) -> str:
    """The driver's message without its prefixes, which only repeat where the server is."""
    words = str(error.orig if isinstance(error, DBAPIError) else error).strip().splitlines()[0]
    for prefix in ("FATAL:", " failed:"):
        words = words.rpartition(prefix)[2].strip()
    return words.rstrip(".")


def location(url: URL) -> str:
    """The database's name and address, without the password and everything else of the URL."""
    if url.host is None:
        return str(url.database)
    return f"{url.database or ''} at {url.host}:{url.port or 5432}".strip()
