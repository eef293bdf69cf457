"""Users and their keys, for those who run the server: every route needs a key with the scope `admin`."""

from http import HTTPStatus
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from sqlalchemy.orm import Session

from app.accounts import service as account_service
from app.accounts.idempotency import remember
from app.accounts.schemas import (
    KeyBody,
    KeyChange,
    KeysBody,
    NewKey,
    NewKeyBody,
    NewUser,
    UsageBody,
    UserBody,
    UserChange,
    UsersBody,
)
from app.accounts.views import key_of, usage_body, user_of
from app.http.dependencies import AdministratorDependency, PageDependency, ResourcesDependency
from app.http.errors import documented
from app.http.idempotency import IdempotencyDependency, make_once, once_of
from app.http.multipart import ReceivedForm
from app.platform.errors import InvalidRequest
from app.usage.allowances import Limits, allowance_of
from app.usage.routes import PeriodDependency
from app.usage.service import usage_of

router = APIRouter()

READ_ERRORS = documented(401, 403, 404, 503)
WRITE_ERRORS = documented(400, 401, 403, 404, 409, 503)
# Null stands for nothing in these.
NOT_NULL = ("name", "scopes")


@router.get("/v1/admin/users", response_model_exclude_none=True, responses=documented(400, 401, 403, 503))
def list_users(
    _admin: AdministratorDependency, resources: ResourcesDependency, page: PageDependency
) -> UsersBody:
    """All users, the newest first."""
    with resources.database.read() as session:
        rows, cursor = account_service.list_users(session, limit=page.limit, cursor=page.cursor)
        return UsersBody(users=[user_of(user) for user in rows], next_cursor=cursor)


@router.post(
    "/v1/admin/users", response_model_exclude_none=True, responses=documented(400, 401, 403, 409, 503)
)
async def create_user(
    request: Request,
    response: Response,
    asked: NewUser,
    admin: AdministratorDependency,
    resources: ResourcesDependency,
    idempotency: IdempotencyDependency,
) -> UserBody:
    """Add a user. They need a key before they can do anything."""
    once = once_of(idempotency, request, admin, _as_form(asked))

    def create() -> UserBody:
        with resources.database.write() as session:
            user = account_service.create_user(session, name=asked.name)
            account_service.change_user(session, user_id=user.id, changes=_changes(asked))
            remember(session, once, made_id=user.id)
            return UserBody(user=user_of(user))

    def show(session: Session, made_id: str) -> UserBody:
        return UserBody(user=user_of(account_service.get_user(session, user_id=made_id)))

    body, _is_new = await make_once(
        once, response, resources, make=lambda: to_thread.run_sync(create), show=show
    )
    return body


@router.get("/v1/admin/users/{user_id}", response_model_exclude_none=True, responses=READ_ERRORS)
def get_user(user_id: str, _admin: AdministratorDependency, resources: ResourcesDependency) -> UserBody:
    """A user, with the limits that are their own."""
    with resources.database.read() as session:
        return UserBody(user=user_of(account_service.get_user(session, user_id=user_id)))


@router.patch("/v1/admin/users/{user_id}", response_model_exclude_none=True, responses=WRITE_ERRORS)
def update_user(
    user_id: str, asked: UserChange, _admin: AdministratorDependency, resources: ResourcesDependency
) -> UserBody:
    """Change a user's name, limits or caps. It holds for the next request, and for the next claim of a worker."""
    with resources.database.write() as session:
        user = account_service.change_user(session, user_id=user_id, changes=_changes(asked))
        return UserBody(user=user_of(user))


@router.get(
    "/v1/admin/users/{user_id}/usage",
    response_model_exclude_none=True,
    responses=documented(400, 401, 403, 404, 503),
)
def get_usage_of_user(
    user_id: str, _admin: AdministratorDependency, resources: ResourcesDependency, period: PeriodDependency
) -> UsageBody:
    """As `GET /v1/usage`, of any user."""
    with resources.database.read() as session:
        user = account_service.get_user(session, user_id=user_id)
        return usage_body(
            usage_of(session, user_id=user.id, period=period),
            user=user,
            allowance=allowance_of(resources.settings, user=user.limits),
            settings=resources.settings,
        )


@router.get(
    "/v1/admin/users/{user_id}/keys",
    response_model_exclude_none=True,
    responses=documented(400, 401, 403, 404, 503),
)
def list_keys(
    user_id: str, _admin: AdministratorDependency, resources: ResourcesDependency, page: PageDependency
) -> KeysBody:
    """A user's keys, the newest first, revoked ones too."""
    with resources.database.read() as session:
        rows, cursor = account_service.keys_of(session, user_id=user_id, limit=page.limit, cursor=page.cursor)
        return KeysBody(keys=[key_of(key) for key in rows], next_cursor=cursor)


@router.post("/v1/admin/users/{user_id}/keys", response_model_exclude_none=True, responses=WRITE_ERRORS)
async def create_key(
    request: Request,
    response: Response,
    user_id: str,
    asked: NewKey,
    admin: AdministratorDependency,
    resources: ResourcesDependency,
    idempotency: IdempotencyDependency,
) -> NewKeyBody:
    """Make a key for a user. `secret` is the key: it is in no other answer, and only its hash is kept."""
    once = once_of(idempotency, request, admin, _as_form(asked))

    def create() -> NewKeyBody:
        with resources.database.write() as session:
            made = account_service.create_key_of(
                session,
                account_service.get_user(session, user_id=user_id),
                key_name=asked.name,
                keys=resources.secrets,
                scopes=asked.scopes,
                limits=asked.limits,
                expires_at=asked.expires_at,
            )
            remember(session, once, made_id=made.row.id)
            return NewKeyBody(key=key_of(made.row), secret=made.key)

    def show(session: Session, made_id: str) -> NewKeyBody:
        return NewKeyBody(key=key_of(account_service.get_key(session, key_id=made_id)))

    body, _is_new = await make_once(
        once, response, resources, make=lambda: to_thread.run_sync(create), show=show
    )
    return body


@router.patch("/v1/admin/keys/{key_id}", response_model_exclude_none=True, responses=WRITE_ERRORS)
def update_key(
    key_id: str, asked: KeyChange, _admin: AdministratorDependency, resources: ResourcesDependency
) -> KeyBody:
    """Change a key's name, scopes, limits or expiry. It holds for the next request."""
    with resources.database.write() as session:
        return KeyBody(
            key=key_of(account_service.change_key(session, key_id=key_id, changes=_changes(asked)))
        )


@router.delete("/v1/admin/keys/{key_id}", status_code=HTTPStatus.NO_CONTENT, responses=READ_ERRORS)
def revoke_key(key_id: str, _admin: AdministratorDependency, resources: ResourcesDependency) -> Response:
    """Refuse a key from the next request on. It stays in the list."""
    with resources.database.write() as session:
        account_service.revoke_key(session, key_id=key_id)
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _changes(asked: BaseModel) -> dict[str, Any]:
    """What the body names. Raises InvalidRequest for null where nothing can stand for it."""
    given = {name: getattr(asked, name) for name in asked.model_fields_set}
    faults = [f"`{name}` must not be null." for name in NOT_NULL if name in given and given[name] is None]
    if faults:
        raise InvalidRequest(*faults)
    if "limits" in given and given["limits"] is None:
        # All of them are lifted.
        given["limits"] = Limits(**dict.fromkeys(Limits.model_fields))
    return given


def _as_form(asked: BaseModel) -> ReceivedForm:
    return ReceivedForm(fields={"body": asked.model_dump_json(exclude_unset=True)})
