"""Users, their keys, and renders of any user: every route needs a key with the scope `admin`."""

from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from anyio import to_thread
from fastapi import Query, Request, Response
from pydantic import BaseModel

from app.accounts import queries as account_queries
from app.accounts import service as account_service
from app.accounts.limits import Limits
from app.accounts.schemas import (
    CreatedKeyBody,
    Key,
    KeyBody,
    KeyChange,
    KeyRequest,
    KeysBody,
    User,
    UserBody,
    UserChange,
    UserRequest,
    UsersBody,
)
from app.administration import service as administration_service
from app.administration.activity import activity
from app.administration.schemas import ActivityBody
from app.engines.service import stored_engine
from app.http.dependencies import (
    AdministratorDependency,
    IdempotencyDependency,
    PageDependency,
    PublicUrlDependency,
    ResourcesDependency,
)
from app.http.errors import documented
from app.http.openapi import LOCATION
from app.http.router import BodyRouter
from app.platform.errors import Conflict, InvalidRequest
from app.platform.work_kinds import WorkQueue
from app.renders import service as render_service
from app.renders.created_answer import answer_with_render, show_render
from app.renders.schemas import EngineQuery, RenderBody, RendersBody, StatusQuery
from app.usage.allowances import Allowance, allowance_of
from app.usage.schemas import PeriodDependency, UsageBody
from app.usage.service import usage_of

router = BodyRouter(tags=["administration"])

# Null has no meaning in these.
NOT_NULL = ("name", "scopes")
MOST_HOURS = 7 * 24


@router.get("/v1/admin/users")
def list_users(
    _admin: AdministratorDependency, resources: ResourcesDependency, page: PageDependency
) -> UsersBody:
    """All users, the newest first."""
    with resources.database.read() as session:
        found = account_queries.list_users(session, limit=page.limit, cursor=page.cursor)
    return UsersBody(users=[User.model_validate(row) for row in found.rows], next_cursor=found.cursor)


@router.post("/v1/admin/users", responses=documented(409))
def create_user(
    asked: UserRequest,
    _admin: AdministratorDependency,
    resources: ResourcesDependency,
    idempotent: IdempotencyDependency,
) -> UserBody:
    """Add a user. Users need a key before they can do anything."""
    idempotent.add_body(asked)
    with resources.database.write() as session:
        made_id = idempotent.lookup(session, lock=True)
        if made_id is None:
            user = account_service.create_user(session, name=asked.name)
            account_service.change_user(session, user_id=user.id, changes=_changes(asked))
            idempotent.record(session, made_id=user.id)
        else:
            user = account_service.get_user(session, user_id=made_id)
    return UserBody(user=User.model_validate(user))


@router.get("/v1/admin/users/{user_id}", responses=documented(404))
def get_user(user_id: str, _admin: AdministratorDependency, resources: ResourcesDependency) -> UserBody:
    """A user, with the user's own limits."""
    with resources.database.read() as session:
        user = account_service.get_user(session, user_id=user_id)
    return UserBody(user=User.model_validate(user))


@router.patch("/v1/admin/users/{user_id}", responses=documented(404, 409))
def update_user(
    user_id: str, asked: UserChange, _admin: AdministratorDependency, resources: ResourcesDependency
) -> UserBody:
    """Change a user's name, limits or caps. This applies to the next request, and to the next claim of a worker."""
    with resources.database.write() as session:
        user = account_service.change_user(session, user_id=user_id, changes=_changes(asked))
    return UserBody(user=User.model_validate(user))


@router.delete("/v1/admin/users/{user_id}", status_code=HTTPStatus.NO_CONTENT, responses=documented(404, 409))
def delete_user(user_id: str, admin: AdministratorDependency, resources: ResourcesDependency) -> Response:
    """Delete a user with all keys, files, renders, previews, uploads, webhooks and usage.

    Renders under way end. Your own user is answered 409. It may take a while if much is stored.
    """
    if user_id == admin.id:
        raise Conflict(
            "This is the user of the key that you use: delete it with another administrator's key."
        )
    administration_service.delete_user(resources.database, resources.storage, user_id=user_id)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.get("/v1/admin/users/{user_id}/usage", responses=documented(404))
def get_usage_of_user(
    user_id: str, _admin: AdministratorDependency, resources: ResourcesDependency, period: PeriodDependency
) -> UsageBody:
    """As `GET /v1/usage`, for any user."""
    with resources.database.read() as session:
        user = account_service.get_user(session, user_id=user_id)
        return UsageBody.of(
            usage_of(session, user_id=user.id, period=period),
            user=user,
            allowance=allowance_of(resources.settings, user=user.limits),
            settings=resources.settings,
        )


@router.get("/v1/admin/users/{user_id}/keys", responses=documented(404))
def list_keys(
    user_id: str, _admin: AdministratorDependency, resources: ResourcesDependency, page: PageDependency
) -> KeysBody:
    """A user's keys, including those revoked within the last 30 days, the newest first."""
    with resources.database.read() as session:
        found = account_service.keys_of(session, user_id=user_id, limit=page.limit, cursor=page.cursor)
    return KeysBody(keys=[Key.model_validate(row) for row in found.rows], next_cursor=found.cursor)


@router.post("/v1/admin/users/{user_id}/keys", responses=documented(404, 409))
def create_key(
    user_id: str,
    asked: KeyRequest,
    _admin: AdministratorDependency,
    resources: ResourcesDependency,
    idempotent: IdempotencyDependency,
) -> CreatedKeyBody:
    """Make a key for a user. `secret` is the key: no other answer shows it, and only its hash is kept."""
    idempotent.add_body(asked)
    with resources.database.write() as session:
        made_id = idempotent.lookup(session, lock=True)
        if made_id is not None:
            return CreatedKeyBody(key=Key.model_validate(account_service.get_key(session, key_id=made_id)))
        made = account_service.create_key_of(
            session,
            account_service.get_user(session, user_id=user_id),
            key_name=asked.name,
            keys=resources.secrets,
            scopes=asked.scopes,
            limits=asked.limits,
            expires_at=asked.expires_at,
        )
        idempotent.record(session, made_id=made.row.id)
    return CreatedKeyBody(key=Key.model_validate(made.row), secret=made.key)


@router.patch("/v1/admin/keys/{key_id}", responses=documented(404, 409))
def update_key(
    key_id: str, asked: KeyChange, _admin: AdministratorDependency, resources: ResourcesDependency
) -> KeyBody:
    """Change a key's name, scopes, limits or expiry. This applies to the next request."""
    with resources.database.write() as session:
        key = account_service.change_key(session, key_id=key_id, changes=_changes(asked))
    return KeyBody(key=Key.model_validate(key))


@router.delete("/v1/admin/keys/{key_id}", status_code=HTTPStatus.NO_CONTENT, responses=documented(404))
def revoke_key(key_id: str, _admin: AdministratorDependency, resources: ResourcesDependency) -> Response:
    """Revoke a key from the next request on. It stays in the list for 30 days."""
    with resources.database.write() as session:
        account_service.revoke_key(session, key_id=key_id)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.get("/v1/admin/activity")
def get_activity(
    _admin: AdministratorDependency,
    resources: ResourcesDependency,
    hours: Annotated[int, Query(ge=1, le=MOST_HOURS, description="So many hours back.")] = 24,
) -> ActivityBody:
    """The queue and the throughput of all users over the last hours, at most 96 intervals of equal length.

    Counted from renders that still exist: deleted ones are missing.
    """
    with resources.database.read() as session:
        figures = activity(session, hours=hours)
    return ActivityBody.of(figures)


@router.get("/v1/admin/renders")
def list_all_renders(
    _admin: AdministratorDependency,
    resources: ResourcesDependency,
    base_url: PublicUrlDependency,
    page: PageDependency,
    status: StatusQuery = None,
    user: Annotated[str | None, Query(description="Only renders of the user with this id.")] = None,
    engine: EngineQuery = None,
) -> RendersBody:
    """Renders of all users, the newest first."""
    with resources.database.read() as session:
        views, cursor = render_service.list_renders(
            session,
            user_id=user,
            limit=page.limit,
            cursor=page.cursor,
            status=status,
            engine=None if engine is None else stored_engine(session, engine),
        )
    return RendersBody.of(views, cursor, resources=resources, base_url=base_url)


@router.get("/v1/admin/renders/{render_id}", responses=documented(404))
def get_render_of_user(
    render_id: str,
    _admin: AdministratorDependency,
    resources: ResourcesDependency,
    base_url: PublicUrlDependency,
) -> RenderBody:
    """A render of any user."""
    with resources.database.read() as session:
        render = administration_service.find_render(session, render_id=render_id)
    return show_render(render, resources, base_url)


@router.post("/v1/admin/renders/{render_id}/cancel", responses=documented(404, 409))
def cancel_render_of_user(
    render_id: str,
    _admin: AdministratorDependency,
    resources: ResourcesDependency,
    base_url: PublicUrlDependency,
) -> RenderBody:
    """Cancel an unfinished render of any user: it is `failed` at once, with the error "Canceled"."""
    with resources.database.write() as session:
        render = administration_service.cancel_render(session, render_id=render_id)
    return show_render(render, resources, base_url)


@router.post("/v1/admin/renders/{render_id}/requeue", responses=documented(404, 409))
def requeue_render(
    render_id: str,
    _admin: AdministratorDependency,
    resources: ResourcesDependency,
    base_url: PublicUrlDependency,
) -> RenderBody:
    """Take an unfinished render of any user from its workers, uncharged and without a pause.

    Other workers repeat what they have not reported yet. A render that has ended is answered 409.
    """
    with resources.database.write() as session:
        render = administration_service.requeue_render(session, render_id=render_id)
    for queue in WorkQueue:
        resources.broker.wake(queue)
    return show_render(render, resources, base_url)


@router.post("/v1/admin/renders/{render_id}/deliver", responses=documented(404, 409))
def deliver_result_of_user(
    render_id: str,
    _admin: AdministratorDependency,
    resources: ResourcesDependency,
    base_url: PublicUrlDependency,
) -> RenderBody:
    """As the user's own: send the result of a completed render of any user to its destination again."""
    with resources.database.write() as session:
        render = administration_service.deliver_again(session, render_id=render_id)
    return show_render(render, resources, base_url)


@router.post("/v1/admin/renders/{render_id}/retry", responses={200: LOCATION, **documented(404, 409, 413)})
async def retry_render_of_user(
    request: Request,
    render_id: str,
    _admin: AdministratorDependency,
    resources: ResourcesDependency,
    base_url: PublicUrlDependency,
    idempotent: IdempotencyDependency,
) -> RenderBody:
    """As the user's own retry of a failed render, whatever the user's limits: the new render belongs to the user."""
    retry = partial(
        administration_service.retry_for_owner,
        resources.database,
        render_id=render_id,
        allowance=Allowance(media=resources.limits),
        request_id=request.state.request_id,
        idempotent=idempotent,
    )
    render = await to_thread.run_sync(retry)
    return await answer_with_render(render, idempotent=idempotent, resources=resources, base_url=base_url)


def _changes(asked: BaseModel) -> dict[str, Any]:
    """The fields in the body. Raises InvalidRequest for null where it has no meaning."""
    given = {name: getattr(asked, name) for name in asked.model_fields_set}
    faults = [f"`{name}` must not be null." for name in NOT_NULL if name in given and given[name] is None]
    if faults:
        raise InvalidRequest(*faults)
    if "limits" in given and given["limits"] is None:
        # Null lifts all of them.
        given["limits"] = Limits(**dict.fromkeys(Limits.model_fields))
    return given
