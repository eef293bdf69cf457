"""What a key may do."""

from enum import StrEnum


class Scope(StrEnum):
    """`read`: look at what is its user's own; `write`: make and remove it; `admin`: look after the server."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


DEFAULT_SCOPES = frozenset({Scope.READ, Scope.WRITE})
