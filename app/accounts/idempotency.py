"""Idempotency keys: a repeated request has one effect, and is answered with the first one's result.

The key's row is written in the transaction of the result, so there is no state in between. One of many
concurrent requests commits; the others find its row.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Protocol

from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.accounts import queries as account_queries
from app.accounts.tables import IdempotencyKey
from app.platform.database import read_clock
from app.platform.errors import Conflict

REPLAYED_HEADER = "Idempotent-Replayed"


class AlreadyMade(Exception):
    """Another request with the same key committed first; `lookup` knows what it made."""


class AnswerHeaders(Protocol):
    def __setitem__(self, name: str, value: str, /) -> None: ...


@dataclass(kw_only=True)
class IdempotentRequest:
    """A request that makes something. Without a `key` it is never found, and not recorded.

    `content` is the whole request in JSON types: the address, and the fields, body or upload that a route
    adds. `headers` are those of the answer.
    """

    user_id: str
    key: str | None
    content: list[object]
    headers: AnswerHeaders
    is_replayed: bool = False

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.content).encode()).hexdigest()

    def add_body(self, body: BaseModel) -> None:
        """Add the fields that were given in a JSON body to `content`."""
        # As earlier versions fingerprinted a form of one field: keys are remembered for a week, across versions.
        self.content += [[("body", body.model_dump_json(exclude_unset=True))], None]

    def lookup(self, session: Session, *, lock: bool = False) -> str | None:
        """The id of what an earlier request with this key made; None for a new one.

        With `lock` no other request of the user with a key makes anything until the session, which must be a
        writing one, ends: then `record` does not raise. Raises Conflict if the earlier request was different.
        """
        if self.key is None:
            return None
        if lock:
            account_queries.lock_user(session, user_id=self.user_id)
        row = session.get(IdempotencyKey, (self.user_id, self.key))
        if row is None:
            return None
        if row.fingerprint != self.fingerprint:
            raise Conflict("This Idempotency-Key was used for a different request. Use a new one.")
        self.is_replayed = True
        self.headers[REPLAYED_HEADER] = "true"
        return row.made_id

    def record(self, session: Session, *, made_id: str) -> None:
        """Write the key's row in the transaction that makes `made_id`. Raises AlreadyMade: roll back then."""
        if self.key is None:
            return
        session.add(
            IdempotencyKey(
                user_id=self.user_id,
                key=self.key,
                fingerprint=self.fingerprint,
                made_id=made_id,
                created_at=read_clock(session),
            )
        )
        try:
            session.flush()
        except IntegrityError as error:
            raise AlreadyMade from error
