"""The link that signs the owner of a machine in to the console, once."""

import hashlib
import os
import secrets
import time
from datetime import timedelta
from pathlib import Path

from sqlalchemy.orm import Session

from app.accounts import queries as account_queries
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
    """A code that can be exchanged for a key once, within an hour, at any API process of this start of the server.

    The file holds its digest. Spending the code removes the file, which of many requests only one can do.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def link(self, url: str) -> str:
        """The console's address with a new code, which browsers do not send: it is in the fragment. An earlier code
        becomes invalid."""
        code = secrets.token_urlsafe(24)
        self._path.unlink(missing_ok=True)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{time.time() + CODE_SECONDS} {_digest(code)}")
        return f"{url}/#/sign-in/{code}"

    def spend(self, code: str) -> None:
        """Raises Unauthorized unless this is the code, in time, and it was not used before."""
        try:
            ends_at, digest = self._path.read_text().split()
            if time.time() > float(ends_at) or not secrets.compare_digest(_digest(code), digest):
                raise Unauthorized(USED)
            self._path.unlink()
        except (FileNotFoundError, ValueError) as error:
            raise Unauthorized(USED) from error


def _digest(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()


def create_owner_key(session: Session, *, keys: Secrets) -> str:
    """A key with every scope for the oldest user, the machine's owner. Raises Unauthorized if there is no user."""
    owner = account_queries.oldest_user(session)
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
