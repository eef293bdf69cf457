"""What a user may do with a key, as far as it is counted: sizes, numbers, money.

The server's settings, what an administrator set for the user, and what was set for the key are put together here, and
nowhere else.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.accounts import queries as account_queries
from app.platform import clock
from app.platform.errors import LimitExceeded, TooManyRequests
from app.platform.media.limits import MediaLimits
from app.platform.rate_rules import parse_rule
from app.platform.settings import Settings
from app.usage import queries as usage_queries

# When a place among queued renders will be free depends on workers: a guess, and how often to ask.
QUEUE_RETRY_SECONDS = 30
MAKE_ROOM = "Delete files and renders that are not needed any more."

RateRule = Annotated[str, Field(max_length=200), AfterValidator(lambda rule: parse_rule(rule) and rule)]


class Limits(BaseModel):
    """What an administrator set for a user or a key. What is left out is not limited by it."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [{"requests": "100/minute"}]})

    requests: RateRule | None = Field(
        None, description="Requests in a stretch of time, as `100/minute` or `10/second;1000/hour`."
    )
    max_upload_bytes: int | None = Field(None, strict=True, ge=1, description="Largest upload.")
    max_input_pixels: int | None = Field(
        None, strict=True, ge=1, description="Most pixels in one input frame."
    )
    max_duration_seconds: int | None = Field(None, strict=True, ge=1, description="Longest input.")
    max_output_pixels: int | None = Field(
        None, strict=True, ge=1, description="Most pixels in one output frame."
    )
    max_output_frames: int | None = Field(None, strict=True, ge=1, description="Most frames in one output.")
    max_queued_renders: int | None = Field(
        None, strict=True, ge=0, description="Most renders that are queued."
    )
    max_storage_bytes: int | None = Field(
        None, strict=True, ge=0, description="Most bytes of uploads and results that are kept."
    )
    max_cost_per_month: float | None = Field(
        None,
        ge=0,
        strict=True,
        allow_inf_nan=False,
        description="Most gigapixels times multiplier in a month (UTC).",
    )

    @classmethod
    def stored(cls, column: Mapping[str, Any] | None) -> Self:
        """Those of a row of users or keys."""
        return cls.model_validate(column or {})


@dataclass(frozen=True, kw_only=True)
class Room:
    """How much of what adds up there may be: of a user's in all, or of what was made with one key."""

    max_queued_renders: int | None = None
    max_storage_bytes: int | None = None
    max_cost_per_month: float | None = None


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """The limits on what is done with a key.

    `media` and `max_upload_bytes`, those on single videos, are the tightest of the server's, the user's and the key's.
    `requests` and `key_requests` are the rules of the user and of the key; `room` is the user's, `key_room` the key's:
    both hold.
    """

    media: MediaLimits
    max_upload_bytes: int = sys.maxsize
    requests: str | None = None
    key_requests: str | None = None
    room: Room = field(default_factory=Room)
    key_room: Room = field(default_factory=Room)


def user_limits(stored: Mapping[str, Any] | None, settings: Settings) -> Limits:
    """A user's limits: their own, else the server's."""
    own = Limits.stored(stored)
    defaults = {
        "requests": settings.rate_limit,
        "max_queued_renders": settings.max_queued_renders_per_user,
        "max_storage_bytes": settings.max_storage_bytes_per_user,
        "max_cost_per_month": settings.max_cost_per_month_per_user,
    }
    return own.model_copy(
        update={name: value for name, value in defaults.items() if getattr(own, name) is None}
    )


def allowance_of(
    settings: Settings, *, user: Mapping[str, Any] | None, key: Mapping[str, Any] | None = None
) -> Allowance:
    """What is allowed with a key: `user` and `key` are the limits that the two rows hold."""
    return _allowance(user_limits(user, settings), Limits.stored(key), settings)


def changed_limits(stored: Mapping[str, Any] | None, given: Limits) -> dict[str, Any] | None:
    """As a row keeps them: those that are given, also as None, replace the stored ones of their names."""
    changed = Limits.stored(stored).model_copy(update=given.model_dump(exclude_unset=True))
    return changed.model_dump(exclude_none=True) or None


def _allowance(user: Limits, own: Limits, settings: Settings) -> Allowance:
    media = MediaLimits.from_settings(settings)
    tightened = {
        name: _tightest(getattr(media, name), getattr(user, name), getattr(own, name))
        for name in ("max_input_pixels", "max_duration_seconds", "max_output_pixels", "max_output_frames")
    }
    return Allowance(
        media=replace(media, **tightened),
        max_upload_bytes=_tightest(settings.max_upload_bytes, user.max_upload_bytes, own.max_upload_bytes),
        requests=user.requests,
        key_requests=own.requests,
        room=_room(user),
        key_room=_room(own),
    )


def require_room_for_render(
    session: Session,
    *,
    user_id: str,
    api_key_id: str | None,
    allowance: Allowance,
    cost: float,
    is_made: bool = True,
) -> None:
    """To be called in the transaction that makes a render of that cost, before it is made.

    Raises TooManyRequests when too many are queued, or the month's cost would be over its limit, and LimitExceeded when
    the user has more in storage than allowed: how large a result will be nobody knows yet. When there is such a limit
    the user's row is locked, so that of many requests at once no more pass than there is room for. `is_made` False only
    asks: for an estimate, also in a session that cannot write.
    """
    rooms = _rooms(allowance, api_key_id)
    if all(room == Room() for room, _key in rooms):
        return
    if is_made:
        account_queries.lock_user(session, user_id=user_id)
    now = clock.now()
    most_stored = _most_stored(allowance, api_key_id)
    if most_stored is not None:
        stored = usage_queries.stored_bytes(session, user_id=user_id, moment=now)
        if stored > most_stored:
            raise LimitExceeded(
                f"There are {stored:,} bytes in storage, of {most_stored:,} allowed. {MAKE_ROOM}"
            )
    for room, key_id in rooms:
        whose = "" if key_id is None else "made with this key "
        most = room.max_queued_renders
        if most is not None:
            queued = usage_queries.count_queued(session, user_id=user_id, api_key_id=key_id)
            if queued >= most:
                raise TooManyRequests(
                    f"{queued:,} renders {whose}are queued; at most {most:,} may be. Try again when one has begun.",
                    retry_after_seconds=QUEUE_RETRY_SECONDS,
                )
        if room.max_cost_per_month is not None:
            spent = usage_queries.cost_of_month(session, user_id=user_id, api_key_id=key_id, moment=now)
            if spent + cost > room.max_cost_per_month:
                raise TooManyRequests(
                    f"The renders {whose}of this month cost {spent:g}; with this one's {cost:g} that would be more "
                    f"than the {room.max_cost_per_month:g} allowed in a month.",
                    retry_after_seconds=seconds_to_next_month(now),
                )


def require_room_for_file(
    session: Session,
    *,
    user_id: str,
    api_key_id: str | None,
    allowance: Allowance,
    size_bytes: int,
    is_made: bool = True,
) -> None:
    """To be called in the transaction that makes a file, or an upload in parts that will become one, before it is made.

    Raises LimitExceeded when the user would have more in storage than allowed. Locks, and `is_made`, as in
    `require_room_for_render`. A key's limit holds for all that its user has: files do not say with which key they came.
    """
    most = _most_stored(allowance, api_key_id)
    if most is None:
        return
    if is_made:
        account_queries.lock_user(session, user_id=user_id)
    stored = usage_queries.stored_bytes(session, user_id=user_id, moment=clock.now())
    if stored + size_bytes > most:
        raise LimitExceeded(
            f"There are {stored:,} bytes in storage; with the {size_bytes:,} of this upload that would be more than "
            f"the {most:,} allowed. {MAKE_ROOM}"
        )


def seconds_to_next_month(now: datetime) -> int:
    """Until the month ends (UTC)."""
    first = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    next_month = (first + timedelta(days=32)).replace(day=1)
    return ceil((next_month - now).total_seconds())


def _rooms(allowance: Allowance, api_key_id: str | None) -> list[tuple[Room, str | None]]:
    """Each with the key that it is about; None for the user's own."""
    rooms: list[tuple[Room, str | None]] = [(allowance.room, None)]
    return rooms if api_key_id is None else [*rooms, (allowance.key_room, api_key_id)]


def _most_stored(allowance: Allowance, api_key_id: str | None) -> int | None:
    limits = [room.max_storage_bytes for room, _key in _rooms(allowance, api_key_id)]
    return min((limit for limit in limits if limit is not None), default=None)


def _room(limits: Limits) -> Room:
    return Room(
        max_queued_renders=limits.max_queued_renders,
        max_storage_bytes=limits.max_storage_bytes,
        max_cost_per_month=limits.max_cost_per_month,
    )


def _tightest(server: int, *others: int | None) -> int:
    return min([server, *(other for other in others if other is not None)])
