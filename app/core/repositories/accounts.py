"""Users and API keys."""

from collections.abc import Collection, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import clock
from app.core.scopes import Scope
from app.core.secrets import is_id
from app.core.tables import ApiKey, User


def add_user(session: Session, *, user_id: str, name: str) -> User:
    user = User(id=user_id, name=name, created_at=clock.now())
    session.add(user)
    session.flush()
    return user


def find_user(session: Session, *, name: str) -> User | None:
    return session.scalar(select(User).where(User.name == name))


def has_users(session: Session) -> bool:
    return session.scalar(select(User.id).limit(1)) is not None


def add_key(
    session: Session,
    *,
    key_id: str,
    user: User,
    name: str,
    hint: str,
    digest: str,
    scopes: Collection[Scope],
) -> ApiKey:
    key = ApiKey(
        id=key_id,
        user=user,
        name=name,
        hint=hint,
        digest=digest,
        created_at=clock.now(),
        revoked_at=None,
        scopes=[scope.value for scope in Scope if scope in scopes],
    )
    session.add(key)
    session.flush()
    return key


def find_key_by_digest(session: Session, *, digest: str) -> ApiKey | None:
    """The valid key with this keyed hash."""
    return session.scalar(select(ApiKey).where(ApiKey.digest == digest, ApiKey.revoked_at.is_(None)))


def find_key(session: Session, *, key_id: str) -> ApiKey | None:
    return session.get(ApiKey, key_id) if is_id(key_id) else None


def list_keys(session: Session, *, user_name: str | None = None) -> Sequence[tuple[ApiKey, User]]:
    query = select(ApiKey, User).join(User).order_by(ApiKey.created_at)
    if user_name is not None:
        query = query.where(User.name == user_name)
    return [(key, user) for key, user in session.execute(query)]
