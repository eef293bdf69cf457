"""Users and their API keys."""

import hmac
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.accounts import queries as account_queries
from app.accounts.limits import Limits, changed_limits
from app.accounts.queries import StoredKey
from app.accounts.scopes import DEFAULT_SCOPES, Scope
from app.accounts.tables import ApiKey, User
from app.platform import clock, secrets
from app.platform.database import ColumnReader, read_clock
from app.platform.errors import Conflict, Forbidden, InvalidRequest, NotFound, Unauthorized
from app.platform.json_values import timestamp
from app.platform.pagination import Page
from app.platform.secrets import Secrets

# Of one user, at a time.
MOST_USABLE_KEYS = 50
# Limits on what is made with one key in all: two keys would do twice as much. The others limit single videos, or all
# that the user has.
LIMITS_ON_TOTALS = ("requests", "max_queued_renders", "max_cost_per_month")

HINT_LENGTH = len(secrets.API_KEY_PREFIX) + 4


@dataclass(frozen=True, kw_only=True)
class CreatedKey:
    """A new key. `key` is returned once; only its keyed hash is stored."""

    row: ApiKey
    key: str = field(repr=False)


def authenticate(reader: ColumnReader, *, key: str | None, keys: Secrets) -> StoredKey:
    """The stored key, with its user. Raises Unauthorized for a missing, unknown, revoked or expired one."""
    if not key:
        raise Unauthorized
    digest = _digest(key, keys)
    row = account_queries.find_key_by_digest(reader, digest=digest)
    # The index finds it by a keyed hash, which a client cannot choose; this comparison takes constant time.
    if row is None or not hmac.compare_digest(row.digest, digest):
        raise Unauthorized
    if row.expires_at is not None and row.expires_at <= clock.now():
        raise Unauthorized("This API key has expired.")
    return row


def create_user(session: Session, *, name: str) -> User:
    """Create a user. Raises Conflict when the name is taken, also by a concurrent transaction."""
    try:
        with session.begin_nested():
            return account_queries.add_user(session, user_id=secrets.new_id(), name=name)
    except IntegrityError as error:
        raise Conflict(f"There is already a user named {name!r}.") from error


def create_key(
    session: Session,
    *,
    user_name: str,
    key_name: str,
    keys: Secrets,
    scopes: Collection[Scope] = DEFAULT_SCOPES,
    expires_at: datetime | None = None,
) -> CreatedKey:
    """Create a key. Raises NotFound when there is no such user, InvalidRequest when `expires_at` is past."""
    user = get_user_by_name(session, name=user_name)
    return create_key_of(session, user, key_name=key_name, keys=keys, scopes=scopes, expires_at=expires_at)


def create_key_of(
    session: Session,
    user: User,
    *,
    key_name: str,
    keys: Secrets,
    scopes: Collection[Scope],
    limits: Limits | None = None,
    expires_at: datetime | None = None,
) -> CreatedKey:
    """Create a key of that user. Raises InvalidRequest when `expires_at` is past."""
    check_expiry(expires_at)
    key = secrets.new_api_key()
    row = account_queries.add_key(
        session,
        key_id=secrets.new_id(),
        user=user,
        name=key_name,
        hint=hint_of(key),
        digest=_digest(key, keys),
        scopes=scopes,
        limits=None if limits is None else changed_limits(None, limits),
        expires_at=expires_at,
    )
    return CreatedKey(row=row, key=key)


def create_own_key(
    session: Session,
    *,
    user_id: str,
    maker_id: str,
    key_name: str,
    keys: Secrets,
    scopes: Collection[Scope],
    expires_at: datetime | None = None,
) -> CreatedKey:
    """Create a key of the user by the user's key `maker_id`, which permits nothing that this one does not: it has none
    but its scopes, expires no later (by default at the same time) and has the same limits.

    Raises Unauthorized when the maker has been revoked or has expired meanwhile, Forbidden for a scope that it lacks
    and when it has a limit that two keys would exceed together, InvalidRequest for a time that is past or too late,
    Conflict when the user has too many keys.
    """
    account_queries.lock_user(session, user_id=user_id)
    now = clock.now()
    maker = account_queries.find_key(session, key_id=maker_id)
    if maker is None or not account_queries.valid_keys(session, key_ids=[maker_id], now=now):
        raise Unauthorized
    _require_scopes(scopes, of=maker, what="it can make no key that has it")
    for name in LIMITS_ON_TOTALS:
        if name in (maker.limits or {}):
            raise Forbidden(
                f"This key has a limit of its own, `{name}`, which another key would double: "
                "only an administrator can make one."
            )
    if maker.expires_at is not None:
        expires_at = expires_at or maker.expires_at
        if expires_at > maker.expires_at:
            raise InvalidRequest(
                f"`expires_at` must be no later than {timestamp(maker.expires_at)}: "
                "the key of this request expires then."
            )
    usable = account_queries.count_usable_keys(session, user_id=user_id, now=now)
    if usable >= MOST_USABLE_KEYS:
        raise Conflict(
            f"You have {usable} keys that are neither revoked nor expired; at most {MOST_USABLE_KEYS} are allowed. "
            "Revoke those that you no longer need."
        )
    return create_key_of(
        session,
        maker.user,
        key_name=key_name,
        keys=keys,
        scopes=scopes,
        limits=Limits.stored(maker.limits),
        expires_at=expires_at,
    )


def _require_scopes(scopes: Collection[str], *, of: ApiKey, what: str) -> None:
    for scope in scopes:
        if scope not in of.scopes:
            raise Forbidden(f"The key of this request lacks the scope `{scope}`, so {what}.")


def check_expiry(expires_at: datetime | None) -> None:
    """Raises InvalidRequest for a time in the past."""
    if expires_at is not None and expires_at <= clock.now():
        raise InvalidRequest("`expires_at` must be in the future.")


def create_first_key(session: Session, *, keys: Secrets) -> CreatedKey | None:
    """Create a user named `default` with one key if there is no user yet.

    Of concurrent processes one creates it; the others wait for its commit and return None.
    """
    if account_queries.has_users(session):
        return None
    try:
        create_user(session, name="default")
    except Conflict:
        return None
    return create_key(session, user_name="default", key_name="first key", keys=keys)


def has_usable_key(session: Session) -> bool:
    """Whether any user has a key that is neither revoked nor expired."""
    return account_queries.has_usable_key(session, now=clock.now())


def get_key(session: Session, *, key_id: str) -> ApiKey:
    """Raises NotFound when there is no such key."""
    key = account_queries.find_key(session, key_id=key_id)
    if key is None:
        raise NotFound(_no_key(key_id))
    return key


def get_user(session: Session, *, user_id: str) -> User:
    """Raises NotFound when there is no such user."""
    user = account_queries.get_user(session, user_id=user_id)
    if user is None:
        raise NotFound(f"There is no user with the id {user_id!r}.")
    return user


def get_user_by_name(session: Session, *, name: str) -> User:
    """Raises NotFound when there is no such user."""
    user = account_queries.find_user(session, name=name)
    if user is None:
        raise NotFound(f"There is no user named {name!r}.")
    return user


def users_with_keys(session: Session) -> Sequence[tuple[User, int]]:
    """All users, newest first, each with the number of keys that are neither revoked nor expired."""
    return account_queries.users_with_keys(session, now=clock.now())


def keys_of(session: Session, *, user_id: str, limit: int, cursor: str | None) -> Page[ApiKey]:
    """A page of the user's keys, newest first. Raises NotFound and InvalidRequest."""
    get_user(session, user_id=user_id)
    return account_queries.keys_of(session, user_id=user_id, limit=limit, cursor=cursor)


def change_user(session: Session, *, user_id: str, changes: Mapping[str, Any]) -> User:
    """Set these columns; `limits` are merged with the stored ones. Raises NotFound, and Conflict for a taken name."""
    account_queries.lock_user(session, user_id=user_id)
    user = get_user(session, user_id=user_id)
    try:
        with session.begin_nested():
            _change(user, changes)
            session.flush()
    except IntegrityError as error:
        raise Conflict(f"There is already a user named {changes['name']!r}.") from error
    return user


def change_key(session: Session, *, key_id: str, changes: Mapping[str, Any]) -> ApiKey:
    """Set these columns; `limits` are merged with the stored ones. Raises NotFound and InvalidRequest."""
    check_expiry(changes.get("expires_at"))
    account_queries.lock_user(session, user_id=get_key(session, key_id=key_id).user_id)
    key = session.get_one(ApiKey, key_id, populate_existing=True)
    _change(key, changes)
    session.flush()
    return key


def _change(row: User | ApiKey, changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        setattr(row, name, changed_limits(row.limits, value) if name == "limits" else value)


def revoke_key(session: Session, *, key_id: str) -> ApiKey:
    """Revoke the key. Raises NotFound when there is no such key."""
    key = get_key(session, key_id=key_id)
    if key.revoked_at is None:
        key.revoked_at = read_clock(session)
    return key


def revoke_own_key(session: Session, *, asking_id: str, key_id: str) -> ApiKey:
    """Revoke a key of the user whose key `asking_id` asks for it.

    Raises NotFound when the user has no such key, and Forbidden when it has a scope that the asking one lacks:
    otherwise a leaked key could lock administrators out.
    """
    asking, key = get_key(session, key_id=asking_id), get_key(session, key_id=key_id)
    if key.user_id != asking.user_id:
        raise NotFound(_no_key(key_id))
    _require_scopes(key.scopes, of=asking, what="it can revoke no key that has it")
    return revoke_key(session, key_id=key.id)


def _no_key(key_id: str) -> str:
    return f"There is no key with the id {key_id!r}."


def hint_of(key: str) -> str:
    """Its first characters, by which its owner knows it."""
    return key[:HINT_LENGTH]


def _digest(key: str, keys: Secrets) -> str:
    return secrets.api_key_digest(key, keys=keys)
