"""The Idempotency-Key header: a request that is sent again answers with what the first one made."""

import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

from anyio import to_thread
from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel
from sqlalchemy.orm import Session

from app.accounts.idempotency import AlreadyMade, Once, recall
from app.http.access import CurrentUser
from app.http.multipart import ReceivedForm
from app.http.resources import Resources
from app.platform.errors import InvalidRequest

T = TypeVar("T")

LONGEST_KEY = 255
PRINTABLE = r"[!-~]([ -~]*[!-~])?"
REPLAYED = "Idempotent-Replayed"


async def idempotency_key(
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="Any text of your choice, new for each thing to be made. The same request with the same key "
            "makes nothing new and answers with what was made; another request with it is refused. Remembered for a "
            "week.",
            max_length=LONGEST_KEY,
            json_schema_extra={"pattern": f"^{PRINTABLE}$", "minLength": 1},
            examples=["order-17"],
        ),
    ] = None,
) -> str | None:
    """Raises InvalidRequest for a key that is empty or more than printable ASCII."""
    if key is not None and not re.fullmatch(PRINTABLE, key):
        raise InvalidRequest("`Idempotency-Key` must be of printable ASCII characters, and not empty.")
    return key


IdempotencyDependency = Annotated[str | None, Depends(idempotency_key)]


def once_of(
    key: str | None,
    request: Request,
    user: CurrentUser,
    form: ReceivedForm | None = None,
    *,
    body: BaseModel | None = None,
) -> Once | None:
    """The request as something that is to be done once; None without a key.

    What counts is the address, the fields of the form or body, and the upload's bytes and name; how the body was
    written does not.
    """
    if key is None:
        return None
    asked: list[object] = [request.url.path]
    if form is not None:
        upload = form.upload
        asked += [sorted(form.fields.items()), None if upload is None else [upload.name, upload.sha256]]
    if body is not None:
        asked.append(body.model_dump(mode="json"))
    fingerprint = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    return Once(user_id=user.id, key=key, fingerprint=fingerprint)


async def make_once(
    once: Once | None,
    response: Response,
    resources: Resources,
    *,
    make: Callable[[], Awaitable[T]],
    show: Callable[[Session, str], T],
) -> tuple[T, bool]:
    """What `make` made, or `show` of what an earlier request made; and whether it is new.

    `make` must `remember` in its transaction. Raises Conflict when the earlier request asked for something else.
    """

    def shown_again() -> T | None:
        if once is None:
            return None
        with resources.database.read() as session:
            made_id = recall(session, once)
            return None if made_id is None else show(session, made_id)

    found = await to_thread.run_sync(shown_again)
    if found is None:
        try:
            return await make(), True
        except AlreadyMade:
            found = await to_thread.run_sync(shown_again)
            assert found is not None
    response.headers[REPLAYED] = "true"
    return found, False
