"""The key of the request."""

from fastapi import APIRouter

from app.accounts import service as account_service
from app.accounts.schemas import Key, KeyBody
from app.http.dependencies import ReaderDependency, ResourcesDependency

router = APIRouter(tags=["account"])


@router.get("/v1/key", response_model_exclude_none=True)
def get_own_key(user: ReaderDependency, resources: ResourcesDependency) -> KeyBody:
    """The key that the request carries: its name, scopes, limits and expiry, and its user's id."""
    with resources.database.read() as session:
        return KeyBody(key=Key.model_validate(account_service.get_key(session, key_id=user.key_id)))
