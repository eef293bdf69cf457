"""Writes `docs/openapi.json`, for clients that are generated without a server:
`python -m app.http.openapi_page [--check]`."""

import json
import sys
from pathlib import Path

from app.http.openapi import openapi_document
from app.main import create_app
from app.platform.generated_page import write_page
from app.platform.settings import Settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
# Where `regen serve` listens.
SERVER_URL = "http://127.0.0.1:8000"


def openapi_page() -> str:
    """The expected content of the file."""
    document = openapi_document(create_app(Settings()), server_url=SERVER_URL)
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def main(arguments: list[str] | None = None) -> int:
    return write_page(PAGE, openapi_page, module="app.http.openapi_page", arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
