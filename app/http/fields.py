"""The fields of a request: empty ones count as absent, unknown ones are reported."""

import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from itertools import islice

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.platform.errors import InvalidRequest
from app.platform.quoting import printable, shortened

# The type of pydantic's error for an unknown name; its context has the `advice_on` it.
UNKNOWN_NAME = "unknown_name"
# Unknown names reported in one answer: a body may have any number of them.
MOST_TOLD = 8
# The least similarity of a misspelt name: difflib's ratio.
NEAR = 0.75


def is_empty(value: object) -> bool:
    """Whether a field with this value counts as absent: null, or a text of only white space."""
    return value is None or is_empty_text(value)


def is_empty_text(value: object) -> bool:
    return isinstance(value, str) and not value.strip()


def shown_name(name: str) -> str:
    """A client's own name as messages show it."""
    return f"`{printable(shortened(name)).replace('`', chr(39))}`"


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that is probably meant: written differently, as a part of it, or misspelt; None if none
    is similar."""
    plain = {_plain(one): one for one in known}
    given = _plain(name)
    if given in plain:
        return plain[given]
    holders = [one for one in plain.values() if given in one.split("_")]
    if len(holders) == 1:
        return holders[0]
    return next((plain[one] for one in get_close_matches(given, plain, n=1, cutoff=NEAR)), None)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", shortened(name).lower())


def advice_on(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name."""
    near = nearest_name(name, known)
    return f": did you mean `{near}`?" if near else "."


def unknown_name(name: str, known: Iterable[str], *, consequence: str = "") -> str:
    """The sentence about an unknown name."""
    return f"{shown_name(name)} is not a field of this request{consequence}{advice_on(name, known)}"


def ignored_names(request: Request, names: Collection[str], known: Iterable[str]) -> list[str]:
    """The warnings about unknown names. Raises InvalidRequest if the application refuses them."""
    refused = request.app.state.refuses_unknown_names()
    consequence = "" if refused else " and was ignored"
    told = [unknown_name(name, known, consequence=consequence) for name in islice(names, MOST_TOLD)]
    if len(names) > MOST_TOLD:
        told.append(f"{len(names) - MOST_TOLD} more names are not fields of this request.")
    if told and refused:
        raise InvalidRequest(*told)
    return told


# Paths at which a parameter means something even without a value.
FLAGGED_PATHS = frozenset({"/readyz"})


class EmptyParameters:
    """Removes parameters without a value from a request's query, so that they count as absent."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query: bytes = scope.get("query_string", b"")
        if query and scope["path"] not in FLAGGED_PATHS:
            # In place: routing writes to this scope for the middleware outside.
            scope["query_string"] = b"&".join(
                pair for pair in query.split(b"&") if not _EMPTY.fullmatch(pair)
            )
        await self.app(scope, receive, send)


_EMPTY = re.compile(rb"[^=]*(=(\+|%20)*)?")
