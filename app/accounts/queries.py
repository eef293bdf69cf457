"""Users and API keys."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, String, and_, bindparam, delete, func, or_, select, update
from sqlalchemy.orm import Session

from app.accounts.scopes import Scope
from app.accounts.tables import ApiKey, User
from app.platform.database import ColumnReader, database_now, fetch_rows, read_clock
from app.platform.pagination import Page, read_page
from app.platform.secrets import is_id

DIGEST = bindparam("digest", type_=String)


@dataclass(frozen=True)
class StoredKey:
    """The columns of an API key and of its user that a request needs."""

    id: str
    user_id: str
    digest: str = field(repr=False)
    scopes: list[str]
    limits: dict[str, Any] | None
    last_used_at: datetime | None
    expires_at: datetime | None
    user_name: str
    user_limits: dict[str, Any] | None


def add_user(session: Session, *, user_id: str, name: str) -> User:
    user = User(id=user_id, name=name, created_at=read_clock(session))
    session.add(user)
    session.flush()
    return user


def find_user(session: Session, *, name: str) -> User | None:
    return session.scalar(select(User).where(User.name == name))


def get_user(session: Session, *, user_id: str) -> User | None:
    return session.get(User, user_id) if is_id(user_id) else None


def list_users(session: Session, *, limit: int, cursor: str | None) -> Page[User]:
    """The newest first."""
    return read_page(session, select(User), User, limit=limit, cursor=cursor)


def keys_of(session: Session, *, user_id: str, limit: int, cursor: str | None) -> Page[ApiKey]:
    """The user's, the newest first."""
    query = select(ApiKey).where(ApiKey.user_id == user_id)
    return read_page(session, query, ApiKey, limit=limit, cursor=cursor)


def lock_user(session: Session, *, user_id: str) -> None:
    """Lock the user's row until the transaction ends, which serializes the checks of the user's quotas."""
    # KEY SHARE: rows that refer to the user can still be inserted.
    session.execute(select(User.id).where(User.id == user_id).with_for_update(key_share=True))


def has_users(session: Session) -> bool:
    return session.scalar(select(User.id).limit(1)) is not None


def oldest_user(session: Session) -> User | None:
    return session.scalar(select(User).order_by(User.created_at, User.id).limit(1))


def has_usable_key(session: Session, *, now: datetime) -> bool:
    return session.scalar(select(ApiKey.id).where(_is_usable(now)).limit(1)) is not None


def count_usable_keys(session: Session, *, user_id: str, now: datetime) -> int:
    query = select(func.count(ApiKey.id)).where(ApiKey.user_id == user_id, _is_usable(now))
    return session.scalars(query).one()


def users_with_keys(session: Session, *, now: datetime) -> Sequence[tuple[User, int]]:
    """All users, the newest first, each with the number of usable keys."""
    is_own = and_(ApiKey.user_id == User.id, _is_usable(now))
    query = select(User, func.count(ApiKey.id)).outerjoin(ApiKey, is_own).group_by(User.id)
    return [(user, count) for user, count in session.execute(query.order_by(User.created_at.desc(), User.id))]


def _is_usable(now: datetime) -> ColumnElement[bool]:
    return and_(ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now))


def add_key(
    session: Session,
    *,
    key_id: str,
    user: User,
    name: str,
    hint: str,
    digest: str,
    scopes: Collection[Scope],
    limits: dict[str, Any] | None = None,
    expires_at: datetime | None = None,
) -> ApiKey:
    key = ApiKey(
        id=key_id,
        user=user,
        name=name,
        hint=hint,
        digest=digest,
        created_at=read_clock(session),
        revoked_at=None,
        scopes=[scope.value for scope in Scope if scope in scopes],
        limits=limits,
        expires_at=expires_at,
    )
    session.add(key)
    session.flush()
    return key


def find_key_by_digest(reader: ColumnReader, *, digest: str) -> StoredKey | None:
    """The key with this keyed hash, unless it was revoked."""
    rows = fetch_rows(reader, _key_by_digest(), {DIGEST.key: digest})
    return StoredKey(*rows[0]) if rows else None


@cache
def _key_by_digest() -> Select[*tuple[Any, ...]]:
    """Built once: building it takes longer than executing it."""
    key, user = ApiKey.__table__.c, User.__table__.c
    return (
        select(
            *(key.id, key.user_id, key.digest, key.scopes, key.limits, key.last_used_at, key.expires_at),
            *(user.name, user.limits),
        )
        .join_from(ApiKey.__table__, User.__table__, key.user_id == user.id)
        .where(key.digest == DIGEST, key.revoked_at.is_(None))
    )


def note_use(session: Session, *, key_ids: Collection[str], now: datetime) -> None:
    """Set the last use of these keys to `now`, unless another process has written a later time."""
    session.execute(
        update(ApiKey)
        .where(ApiKey.id.in_(key_ids), or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < now))
        .values(last_used_at=now)
        .execution_options(synchronize_session=False)
    )


def find_key(session: Session, *, key_id: str) -> ApiKey | None:
    return session.get(ApiKey, key_id) if is_id(key_id) else None


def list_keys(session: Session, *, user_name: str | None = None) -> Sequence[tuple[ApiKey, User]]:
    query = select(ApiKey, User).join(User).order_by(ApiKey.created_at)
    if user_name is not None:
        query = query.where(User.name == user_name)
    return [(key, user) for key, user in session.execute(query)]


def valid_keys(session: Session, *, key_ids: Collection[str], now: datetime) -> set[str]:
    """The keys that are neither revoked nor expired."""
    return set(session.scalars(select(ApiKey.id).where(ApiKey.id.in_(key_ids), _is_usable(now))))


def usable_keys_like(session: Session, *, hints: Collection[str], now: datetime) -> Sequence[tuple[str, str]]:
    """Id and hint of the usable keys that begin like one of these."""
    query = select(ApiKey.id, ApiKey.hint).where(ApiKey.hint.in_(hints), _is_usable(now))
    return [(key_id, hint) for key_id, hint in session.execute(query)]


def forget_revoked(session: Session, *, revoked_for: float) -> None:
    """Delete keys that were revoked that many seconds ago. Renders and usage keep their ids, which nobody looks up."""
    session.execute(
        delete(ApiKey)
        .where(ApiKey.revoked_at < database_now(plus_seconds=-revoked_for))
        .execution_options(synchronize_session=False)
    )
