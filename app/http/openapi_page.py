"""Writes `docs/openapi.json`, for clients that are generated without a server:
`python -m app.http.openapi_page [--check]`."""

import argparse
import json
import sys
from pathlib import Path

from app.http.openapi import openapi_document
from app.main import create_app
from app.platform.settings import Settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
# Where `regen serve` listens.
SERVER_URL = "http://127.0.0.1:8000"


def openapi_page() -> str:
    """The expected content of the file."""
    document = openapi_document(create_app(Settings()), server_url=SERVER_URL)
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m app.http.openapi_page")
    parser.add_argument("--check", action="store_true", help="fail if the file is not up to date")
    options = parser.parse_args(arguments)
    page = openapi_page()
    if options.check:
        if PAGE.is_file() and PAGE.read_text() == page:
            return 0
        sys.stderr.write(
            f"{PAGE.name} is not up to date with the routes: run python -m app.http.openapi_page\n"
        )
        return 1
    PAGE.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
