"""Users and their API keys."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core import clock, secrets
from app.core.errors import Conflict, NotFound, Unauthorized
from app.core.repositories import accounts
from app.core.scopes import DEFAULT_SCOPES, Scope
from app.core.secrets import Secrets
from app.core.tables import ApiKey, User

HINT_LENGTH = len(secrets.API_KEY_PREFIX) + 4


@dataclass(frozen=True, kw_only=True)
class NewKey:
    """A key that was just made. `key` is shown once; only its keyed hash is kept."""

    row: ApiKey
    key: str = field(repr=False)


def authenticate(session: Session, *, key: str | None, keys: Secrets) -> User:
    """The user of a valid key. Raises Unauthorized for a missing, unknown or revoked one."""
    return authenticate_key(session, key=key, keys=keys).user


def authenticate_key(session: Session, *, key: str | None, keys: Secrets) -> ApiKey:
    """As `authenticate`: the row of the key itself, which says what it may do."""
    row = accounts.find_key_by_digest(session, digest=_digest(key, keys)) if key else None
    if row is None:
        raise Unauthorized
    return row


def create_user(session: Session, *, name: str) -> User:
    """Raises Conflict when there is a user of that name, also when another transaction makes them just now."""
    try:
        with session.begin_nested():
            return accounts.add_user(session, user_id=secrets.new_id(), name=name)
    except IntegrityError as error:
        raise Conflict(f"There is already a user named {name!r}.") from error


def create_key(
    session: Session,
    *,
    user_name: str,
    key_name: str,
    keys: Secrets,
    scopes: Collection[Scope] = DEFAULT_SCOPES,
) -> NewKey:
    """Raises NotFound when there is no such user."""
    user = accounts.find_user(session, name=user_name)
    if user is None:
        raise NotFound(f"There is no user named {user_name!r}.")
    key = secrets.new_api_key()
    row = accounts.add_key(
        session,
        key_id=secrets.new_id(),
        user=user,
        name=key_name,
        hint=key[:HINT_LENGTH],
        digest=_digest(key, keys),
        scopes=scopes,
    )
    return NewKey(row=row, key=key)


def create_first_key(session: Session, *, keys: Secrets) -> NewKey | None:
    """A user named `default` with one key, when there is no user at all yet.

    Of several processes that start at once, one makes it; the others wait for that one's commit and get None.
    """
    if accounts.has_users(session):
        return None
    try:
        create_user(session, name="default")
    except Conflict:
        return None
    return create_key(session, user_name="default", key_name="first key", keys=keys)


def list_keys(session: Session, *, user_name: str | None = None) -> Sequence[tuple[ApiKey, User]]:
    return accounts.list_keys(session, user_name=user_name)


def revoke_key(session: Session, *, key_id: str) -> ApiKey:
    """The key is refused from now on. Raises NotFound when there is no such key."""
    key = accounts.find_key(session, key_id=key_id)
    if key is None:
        raise NotFound(f"There is no key with the id {key_id!r}.")
    if key.revoked_at is None:
        key.revoked_at = clock.now()
    return key


def _digest(key: str, keys: Secrets) -> str:
    return secrets.api_key_digest(key, keys=keys)
