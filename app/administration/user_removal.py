"""Deletes a user with everything that belongs to the user."""

from sqlalchemy.exc import IntegrityError

from app.accounts import queries as account_queries
from app.accounts import service as account_service
from app.administration import queries as administration_queries
from app.platform.database import Database
from app.platform.errors import Conflict
from app.platform.storage.contract import Storage
from app.uploads.service import free_storage


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
        storage.delete_all([listed.key for listed in storage.list(prefix)])
