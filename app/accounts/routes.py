"""The key of the request, and the other keys of its user."""

from http import HTTPStatus

from fastapi import Response

from app.accounts import service as account_service
from app.accounts.schemas import CreatedKeyBody, Key, KeyBody, KeysBody, OwnKeyRequest
from app.http.dependencies import (
    IdempotencyDependency,
    PageDependency,
    ReaderDependency,
    ResourcesDependency,
    UserDependency,
)
from app.http.errors import documented
from app.http.router import BodyRouter

router = BodyRouter(tags=["account"])


@router.get("/v1/key")
def get_own_key(user: ReaderDependency, resources: ResourcesDependency) -> KeyBody:
    """The key that the request carries: its name, scopes, limits and expiry, and its user's id."""
    with resources.database.read() as session:
        return KeyBody(key=Key.model_validate(account_service.get_key(session, key_id=user.key_id)))


@router.get("/v1/keys")
def list_own_keys(user: UserDependency, resources: ResourcesDependency, page: PageDependency) -> KeysBody:
    """Your keys, including those revoked within the last 30 days, the newest first."""
    with resources.database.read() as session:
        found = account_service.keys_of(session, user_id=user.id, limit=page.limit, cursor=page.cursor)
    return KeysBody(keys=[Key.model_validate(row) for row in found.rows], next_cursor=found.cursor)


@router.post("/v1/keys", responses=documented(409))
def create_own_key(
    asked: OwnKeyRequest,
    user: UserDependency,
    resources: ResourcesDependency,
    idempotent: IdempotencyDependency,
) -> CreatedKeyBody:
    """Make another key of your own, which permits no more than the key of the request: none but its scopes, no later
    expiry, the same limits. `secret` is the key: no other answer shows it, and only its hash is kept.

    It stays valid when the key that made it is revoked. A key with a limit of its own on requests, queued renders or
    cost makes no other (403). You may have 50 that are neither revoked nor expired (409).
    """
    idempotent.add_body(asked)
    with resources.database.write() as session:
        made_id = idempotent.lookup(session, lock=True)
        if made_id is not None:
            return CreatedKeyBody(key=Key.model_validate(account_service.get_key(session, key_id=made_id)))
        made = account_service.create_own_key(
            session,
            user_id=user.id,
            maker_id=user.key_id,
            key_name=asked.name,
            keys=resources.secrets,
            scopes=asked.scopes,
            expires_at=asked.expires_at,
        )
        idempotent.record(session, made_id=made.row.id)
    return CreatedKeyBody(key=Key.model_validate(made.row), secret=made.key)


@router.delete("/v1/keys/{key_id}", status_code=HTTPStatus.NO_CONTENT, responses=documented(404))
def revoke_own_key(key_id: str, user: UserDependency, resources: ResourcesDependency) -> Response:
    """Revoke a key of your own from the next request on, also that of the request. It stays in the list for 30 days.

    A key with a scope that the key of the request lacks is answered 403. Keys that it made stay valid.
    """
    with resources.database.write() as session:
        account_service.revoke_own_key(session, asking_id=user.key_id, key_id=key_id)
    return Response(status_code=HTTPStatus.NO_CONTENT)
