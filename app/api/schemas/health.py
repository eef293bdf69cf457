"""Health."""

from pydantic import Field

from app.api.schemas.body import Body


class HealthBody(Body):
    status: str


class ReadyBody(HealthBody):
    parts: dict[str, str] = Field(description="`ok` for each part that the server stands on.")
