"""Users, keys and limits. Requests are snake_case, answers camelCase."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field

from app.accounts import limits
from app.accounts.scopes import DEFAULT_SCOPES, Scope
from app.http.body import Body, Number, RequestBody, Timestamp, only, with_example

LONGEST_NAME = 200  # the column's length
MOST_AT_WORK = 1_000_000


def _printable(name: str) -> str:
    name = name.strip()
    if not name or not name.isprintable():
        raise ValueError("a name has printable characters")
    return name


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("too far away") from error


Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME), AfterValidator(_printable)]
Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
Cap = Annotated[int, Field(ge=1, le=MOST_AT_WORK)]
Scopes = Annotated[list[Scope], Field(min_length=1, max_length=len(Scope))]

_LIMITS = {"requests": "100/minute", "max_queued_renders": 20, "max_cost_per_month": 500}
_SHOWN_LIMITS = {"requests": "100/minute", "maxQueuedRenders": 20, "maxCostPerMonth": 500}
_USER = {
    "id": "KY0U9paFGEwMiSN6",
    "name": "ann",
    "createdAt": "2026-11-22T07:33:38.047Z",
    "maxRunningRenders": 4,
    "limits": _SHOWN_LIMITS,
}
_KEY = {
    "id": "VxIlYTomwGfEp0D3",
    "userId": "KY0U9paFGEwMiSN6",
    "name": "build server",
    "hint": "regen_x3Jk",
    "scopes": ["read", "write"],
    "limits": {"requests": "10/second"},
    "createdAt": "2026-11-22T07:33:38.047Z",
    "expiresAt": "2027-11-22T00:00:00.000Z",
}


class Limits(RequestBody, limits.Limits):
    """The limits that an administrator set for a user or a key. An absent value sets no limit."""

    null_lifts = True
    model_config = only({"requests": "100/minute"})


class UserChange(RequestBody):
    """Absent fields stay unchanged, also within `limits`. Null lifts a limit: the server's applies, if it has one."""

    null_lifts = True
    model_config = only({"limits": {**_LIMITS, "max_storage_bytes": None}, "max_running_renders": 4})

    name: Name | None = None
    limits: Limits | None = None
    max_running_segments: Cap | None = Field(
        None, description="Maximum number of segments that run at once, instead of the server's cap."
    )
    max_running_renders: Cap | None = Field(
        None, description="Maximum number of renders that run at once, instead of the server's cap."
    )


class UserRequest(UserChange):
    null_lifts = False
    model_config = only({"name": "ann", "limits": _LIMITS})

    name: Name


class KeyChange(RequestBody):
    """Absent fields stay unchanged, also within `limits`. Null lifts a limit."""

    null_lifts = True
    model_config = only({"scopes": ["read"], "limits": {"requests": "10/second"}})

    name: Name | None = None
    scopes: Scopes | None = None
    limits: Limits | None = Field(
        None,
        description="They apply in addition to the user's. Numbers of renders and cost count this key alone.",
    )
    expires_at: Moment | None = Field(None, description="When the key expires.")


class KeyRequest(KeyChange):
    null_lifts = False
    model_config = only({"name": "build server", "expires_at": "2027-11-22T00:00:00Z"})

    name: Name = "key"
    scopes: Scopes = sorted(DEFAULT_SCOPES)


class OwnKeyRequest(RequestBody):
    model_config = only({"name": "build server", "expires_at": "2027-11-22T00:00:00Z"})

    name: Name = "key"
    scopes: Scopes = Field(
        sorted(DEFAULT_SCOPES), description="Only those that the key of the request has itself."
    )
    expires_at: Moment | None = Field(
        None,
        description="When the key expires, no later than the key of the request. Default: when that one does.",
    )


class ShownLimits(Body):
    """Absent limits do not apply."""

    requests: str | None = Field(None, description="Such as `100/minute` or `10/second;1000/hour`.")
    max_upload_bytes: int | None = None
    max_input_pixels: int | None = None
    max_duration_seconds: int | None = None
    max_output_pixels: int | None = None
    max_output_frames: int | None = None
    max_queued_renders: int | None = None
    max_storage_bytes: int | None = None
    max_cost_per_month: Number | None = None


# From a row, which stores only those that are set.
StoredLimits = Annotated[ShownLimits, BeforeValidator(limits.Limits.stored)]


class User(Body):
    id: str
    name: str
    created_at: Timestamp
    max_running_segments: int | None = Field(None, description="If it is not the server's.")
    max_running_renders: int | None = Field(None, description="If it is not the server's.")
    limits: StoredLimits = Field(description="The user's own limits; the server's apply to the others.")


class UserBody(Body):
    model_config = with_example({"user": _USER})

    user: User


class UsersBody(Body):
    """A page, the newest first."""

    model_config = with_example({"users": [_USER]})

    users: list[User]
    next_cursor: str | None = Field(None, description="For the next page; left out on the last.")


class Key(Body):
    id: str
    user_id: str
    name: str
    hint: str = Field(description="What it begins with.")
    scopes: list[str]
    limits: StoredLimits
    created_at: Timestamp
    last_used_at: Timestamp | None = Field(None, description="To within a minute or two.")
    expires_at: Timestamp | None = None
    revoked_at: Timestamp | None = None


class KeyBody(Body):
    model_config = with_example({"key": _KEY})

    key: Key


class CreatedKeyBody(Body):
    model_config = with_example({"key": _KEY, "secret": "regen_x3Jk..."})

    key: Key
    secret: str | None = Field(
        None, description="The key itself, shown only once: left out when the request is replayed."
    )


class KeysBody(Body):
    """A page, the newest first."""

    model_config = with_example({"keys": [_KEY]})

    keys: list[Key]
    next_cursor: str | None = Field(None, description="For the next page; left out on the last.")
