"""Health."""

from pydantic import Field

from app.http.body import Body, with_example


class HealthBody(Body):
    model_config = with_example({"status": "ok"})

    status: str = Field(description="`ok`; anything else is an error's answer.")


class ReadyBody(HealthBody):
    model_config = with_example(
        {"status": "ok", "parts": {"database": "ok", "migrations": "ok", "storage": "ok", "broker": "ok"}}
    )

    parts: dict[str, str] = Field(description="`ok` for each part that the server stands on.")
