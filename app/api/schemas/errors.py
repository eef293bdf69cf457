"""The one shape of every error."""

from pydantic import BaseModel, Field


class ErrorMessage(BaseModel):
    message: str = Field(description="A sentence that says what is wrong.")


class ErrorsBody(BaseModel):
    """Every error has this shape, and nothing else beside it (but for `/readyz`, which names the parts)."""

    errors: list[ErrorMessage]
