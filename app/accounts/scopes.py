"""Permissions of a key."""

from enum import StrEnum


class Scope(StrEnum):
    """`read`: read its user's own things; `write`: make and remove them; `admin`: administer the server."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


DEFAULT_SCOPES = frozenset({Scope.READ, Scope.WRITE})
