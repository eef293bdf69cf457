"""The link that signs the owner of a machine in to the console, once."""

import secrets
import threading
import time
from datetime import timedelta

from sqlalchemy.orm import Session

from app.accounts import service as account_service
from app.accounts.scopes import Scope
from app.platform import clock
from app.platform.errors import Unauthorized
from app.platform.secrets import Secrets

KEY_NAME = "console"
KEY_LIFETIME = timedelta(days=30)
CODE_SECONDS = 3600.0
USED = (
    "This link has been used, is older than an hour, or belongs to an earlier start of the server. Sign in with a key, "
    "or start the server again for another link."
)


class SignInCode:
    """A code that can be exchanged for a key once, within an hour, and only in this process."""

    def __init__(self) -> None:
        self._ends_at = time.monotonic() + CODE_SECONDS
        self._code: str | None = secrets.token_urlsafe(24)
        self._lock = threading.Lock()

    def link(self, url: str) -> str:
        """The console's address with the code, which browsers do not send: it is in the fragment."""
        return f"{url}/#/sign-in/{self._code}"

    def spend(self, code: str) -> None:
        """Raises Unauthorized unless this is the code, in time, and it was not used before."""
        with self._lock:
            if time.monotonic() > self._ends_at:
                self._code = None
            if self._code is None or not secrets.compare_digest(code.encode(), self._code.encode()):
                raise Unauthorized(USED)
            self._code = None


def create_owner_key(session: Session, *, keys: Secrets) -> str:
    """A key with every scope for the oldest user, the machine's owner. Raises Unauthorized if there is no user."""
    owner = account_service.oldest_user(session)
    if owner is None:
        raise Unauthorized("There is no user yet: make one with `regen keys create`.")
    made = account_service.create_key_of(
        session,
        owner,
        key_name=KEY_NAME,
        keys=keys,
        scopes=list(Scope),
        expires_at=clock.now() + KEY_LIFETIME,
    )
    return made.key
