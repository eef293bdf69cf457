"""The Idempotency-Key header: a repeated request is answered with the first one's result."""

import re
from typing import Annotated

from fastapi import Depends, Header, Request, Response

from app.accounts.idempotency import IdempotentRequest
from app.http.dependencies import AccessDependency
from app.platform.errors import InvalidRequest

IDEMPOTENCY_KEY = "Idempotency-Key"

LONGEST_KEY = 255
PRINTABLE = r"[!-~]([ -~]*[!-~])?"


async def idempotent_request(
    request: Request,
    response: Response,
    access: AccessDependency,
    key: Annotated[
        str | None,
        Header(
            alias=IDEMPOTENCY_KEY,
            description="Any text of your choice, new for each thing to be made. The same request with the same key "
            "makes nothing new and answers with the first result; a different request with it is refused. Remembered "
            "for a week.",
            max_length=LONGEST_KEY,
            json_schema_extra={"pattern": f"^{PRINTABLE}$", "minLength": 1},
            examples=["order-17"],
        ),
    ] = None,
) -> IdempotentRequest:
    """The request, identified by its address: the route adds its other identifying values to `content`.

    A route declares it after the dependency that requires the user's key. The encoding of a body does not
    count. Raises InvalidRequest for a key that is empty or not printable ASCII.
    """
    if key is not None and not re.fullmatch(PRINTABLE, key):
        raise InvalidRequest("`Idempotency-Key` must be of printable ASCII characters, and not empty.")
    return IdempotentRequest(
        user_id=access.user_id, key=key, content=[request.url.path], headers=response.headers
    )


IdempotencyDependency = Annotated[IdempotentRequest, Depends(idempotent_request)]
