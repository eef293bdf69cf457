"""For administrators: finds, requeues, cancels and retries renders of any user, and deletes users."""

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.accounts import queries as account_queries
from app.accounts import service as account_service
from app.accounts.idempotency import IdempotentRequest
from app.administration import queries as administration_queries
from app.destinations import service as destinations
from app.platform.database import Database
from app.platform.errors import Conflict, NotFound
from app.platform.storage.contract import Storage, delete_under
from app.renders import transitions
from app.renders.service import get_render, retry_render
from app.renders.tables import Render
from app.uploads.service import free_storage
from app.usage.allowances import Allowance, Requester
from app.work import queries as work_queries


def find_render(session: Session, *, render_id: str) -> Render:
    """Raises NotFound for an unknown render."""
    return get_render(session, render_id=render_id, user_id=_owner(session, render_id))


def requeue_render(session: Session, *, render_id: str) -> Render:
    """Release an unfinished render from all workers, so that it can be claimed at once.

    Raises NotFound for an unknown render, Conflict for one that has ended.
    """
    user_id = _owner(session, render_id)
    if work_queries.requeue(session, render_id=render_id).is_final:
        raise Conflict("The render has ended: a failed one can be retried.")
    return get_render(session, render_id=render_id, user_id=user_id)


def cancel_render(session: Session, *, render_id: str) -> Render:
    """As the user's own cancel. Raises NotFound for an unknown render, Conflict for a completed one."""
    return transitions.cancel_render(session, render_id=render_id, user_id=_owner(session, render_id))


def deliver_again(session: Session, *, render_id: str) -> Render:
    """As the user's own. Raises NotFound for an unknown render, Conflict for one without a destination or a result."""
    return destinations.deliver_again(session, render_id=render_id, user_id=_owner(session, render_id))


def retry_for_owner(
    database: Database,
    *,
    render_id: str,
    allowance: Allowance,
    request_id: str,
    idempotent: IdempotentRequest,
) -> Render:
    """As `retry_own_render`, for a render of any user: the new one belongs to that user, and has no key."""
    with database.write() as session:
        made_id = idempotent.lookup(session, lock=True)
        if made_id is not None:
            return get_render(session, render_id=made_id, user_id=_owner(session, made_id))
        owner = Requester(id=_owner(session, render_id), key_id=None, allowance=allowance)
        render = retry_render(session, render_id=render_id, requester=owner, request_id=request_id)
        idempotent.record(session, made_id=render.id)
    return render


def _owner(session: Session, render_id: str) -> str:
    user_id = administration_queries.owner_of(session, render_id=render_id)
    if user_id is None:
        raise NotFound("Render not found")
    return user_id


def delete_user(database: Database, storage: Storage, *, user_id: str) -> None:
    """Delete the user's rows in one transaction, then the user's stored objects.

    From the commit on the user's keys are refused and workers lose what they hold of the user's renders. A crash
    before the end leaves objects to the clean-up, as does a worker that stores one late. Raises NotFound, Conflict
    while a request of the user is being answered, and StorageError.
    """
    try:
        with database.write() as session:
            user = account_service.get_user(session, user_id=user_id)
            account_queries.lock_user(session, user_id=user.id)
            stored = administration_queries.stored_by(session, user_id=user.id)
            administration_queries.delete_with_rows(session, user_id=user.id)
    except IntegrityError as error:
        raise Conflict("A request of this user is being answered: try again.") from error
    for file_id, multipart_id in stored.uploads:
        free_storage(storage, file_id=file_id, multipart_id=multipart_id)
    storage.delete_all(stored.keys)
    for prefix in stored.prefixes:
        delete_under(storage, prefix)
