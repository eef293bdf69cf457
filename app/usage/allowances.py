"""The limits on requests, videos, renders, storage and cost for a user and a key.

This module alone combines the server's settings with the limits that an administrator set for the user and the key.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import ceil
from typing import Any

from sqlalchemy.orm import Session

from app.accounts import queries as account_queries
from app.accounts.limits import Limits
from app.platform import clock
from app.platform.errors import LimitExceeded, TooManyRequests
from app.platform.media.limits import MediaLimits
from app.platform.settings import Settings
from app.usage import queries as usage_queries

# When the queue has room again depends on the workers: this is a guess.
QUEUE_RETRY_SECONDS = 30
HOW_TO_FREE_STORAGE = "Delete files and renders that you no longer need."


@dataclass(frozen=True, kw_only=True)
class Quota:
    """Limits on totals: of a user, or of everything made with one key. None does not limit."""

    max_queued_renders: int | None = None
    max_storage_bytes: int | None = None
    max_cost_per_month: float | None = None


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """The limits that apply to requests with a key.

    `media` and `max_upload_bytes`, which limit single videos, are the tightest of the server's, the user's and the
    key's. `requests` and `key_requests` are rate limit rules of the user and of the key, `quota` and `key_quota` limits
    on totals; of both pairs, both apply.
    """

    media: MediaLimits
    max_upload_bytes: int = sys.maxsize
    requests: str | None = None
    key_requests: str | None = None
    quota: Quota = field(default_factory=Quota)
    key_quota: Quota = field(default_factory=Quota)


@dataclass(frozen=True, kw_only=True)
class Requester:
    """The user behind a request, the id of its key, None without one, and the limits that apply."""

    id: str
    key_id: str | None
    allowance: Allowance


def user_limits(stored: Mapping[str, Any] | None, settings: Settings) -> Limits:
    """The user's own limits, with the server's defaults for those that are not set."""
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
    """The allowance of a key. `user` and `key` are the `limits` columns of the two rows."""
    return _allowance(user_limits(user, settings), Limits.stored(key), settings)


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
        quota=_quota(user),
        key_quota=_quota(own),
    )


def check_render_quota(session: Session, requester: Requester, *, cost: float, is_made: bool = True) -> None:
    """Check the quotas for a new render of that cost; call it in the transaction that makes the render, before it.

    Raises TooManyRequests when too many renders are queued or the month's cost would exceed its limit, LimitExceeded
    when more is stored than allowed; the result's own size is not known yet. If a quota applies, the user's row is
    locked, so that concurrent requests cannot exceed it together. With `is_made` False nothing is locked: for an
    estimate, and in a read-only session.
    """
    quotas = _quotas(requester)
    if all(quota == Quota() for quota, _key in quotas):
        return
    if is_made:
        account_queries.lock_user(session, user_id=requester.id)
    now = clock.now()
    most_bytes = most_stored(requester)
    if most_bytes is not None:
        stored = usage_queries.stored_bytes(session, user_id=requester.id, moment=now)
        if stored > most_bytes:
            raise LimitExceeded(
                f"You have {stored:,} bytes in storage, of {most_bytes:,} allowed. {HOW_TO_FREE_STORAGE}"
            )
    for quota, key_id in quotas:
        whose = "" if key_id is None else "made with this key "
        most = quota.max_queued_renders
        if most is not None:
            queued = usage_queries.count_queued(session, user_id=requester.id, api_key_id=key_id)
            if queued >= most:
                raise TooManyRequests(
                    f"{queued:,} renders {whose}are queued; at most {most:,} may be. Try again when one has begun.",
                    retry_after_seconds=QUEUE_RETRY_SECONDS,
                )
        if quota.max_cost_per_month is not None:
            spent = usage_queries.cost_of_month(session, user_id=requester.id, api_key_id=key_id, moment=now)
            # A float's repr is the intended decimal: 0.1 + 0.2 does not exceed 0.3.
            if spent + Decimal(repr(cost)) > Decimal(repr(quota.max_cost_per_month)):
                raise TooManyRequests(
                    f"The renders {whose}of this month cost {float(spent):g}; with this one's {cost:g} that would be "
                    f"more than the {quota.max_cost_per_month:g} allowed in a month.",
                    retry_after_seconds=seconds_to_next_month(now),
                )


def check_file_quota(
    session: Session, requester: Requester, *, size_bytes: int, is_made: bool = True
) -> int | None:
    """Check the storage quota for a new file or upload in parts; call it in the transaction that makes it, before it.

    Returns the bytes that the quota leaves, before the new ones; None without a quota. Raises LimitExceeded when more
    would be stored than allowed. Locks and `is_made` are as in `check_render_quota`. A key's limit applies to all that
    its user stores, because a file's row does not name a key.
    """
    most = most_stored(requester)
    if most is None:
        return None
    if is_made:
        account_queries.lock_user(session, user_id=requester.id)
    stored = stored_now(session, user_id=requester.id)
    if stored + size_bytes > most:
        raise LimitExceeded(
            f"There are {stored:,} bytes in storage; with the {size_bytes:,} of this upload that would be more than "
            f"the {most:,} allowed. {HOW_TO_FREE_STORAGE}"
        )
    return most - stored


def most_stored(requester: Requester) -> int | None:
    """The tightest limit of storage, in bytes; None without one."""
    limits = [quota.max_storage_bytes for quota, _key in _quotas(requester)]
    return min((limit for limit in limits if limit is not None), default=None)


def stored_now(session: Session, *, user_id: str) -> int:
    """The bytes that count against a limit of storage."""
    return usage_queries.stored_bytes(session, user_id=user_id, moment=clock.now())


def seconds_to_next_month(now: datetime) -> int:
    """Seconds until the end of the month (UTC), rounded up."""
    first = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    next_month = (first + timedelta(days=32)).replace(day=1)
    return ceil((next_month - now).total_seconds())


def _quotas(requester: Requester) -> list[tuple[Quota, str | None]]:
    """The user's quota with None, and the key's with its id."""
    allowance, key_id = requester.allowance, requester.key_id
    quotas: list[tuple[Quota, str | None]] = [(allowance.quota, None)]
    return quotas if key_id is None else [*quotas, (allowance.key_quota, key_id)]


def _quota(limits: Limits) -> Quota:
    return Quota(
        max_queued_renders=limits.max_queued_renders,
        max_storage_bytes=limits.max_storage_bytes,
        max_cost_per_month=limits.max_cost_per_month,
    )


def _tightest(server: int, *others: int | None) -> int:
    return min([server, *(other for other in others if other is not None)])
