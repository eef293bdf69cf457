"""The router of routes that answer with JSON bodies."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter


class BodyRouter(APIRouter):
    """Answers leave out properties that are None: what is absent is never null."""

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().add_api_route(path, endpoint, **{**options, "response_model_exclude_none": True})
