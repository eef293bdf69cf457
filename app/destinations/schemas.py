"""Wire shapes of deliveries to destinations."""

from typing import Annotated

from pydantic import Field

from app.http.body import RequestBody, only
from app.webhooks.urls import MOST_DESTINATION_CHARACTERS

_URL = "https://bucket.s3.amazonaws.com/films/clip-4x.mp4?X-Amz-Signature=0a1b2c3d"
DestinationUrl = Annotated[
    str,
    Field(
        max_length=MOST_DESTINATION_CHARACTERS,
        json_schema_extra={"format": "uri", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://"},
        description="Where to send it instead, such as a presigned address in place of one that has expired.",
    ),
]


class DeliverRequest(RequestBody):
    model_config = only({"destination": _URL})

    destination: DestinationUrl | None = None
