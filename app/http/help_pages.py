"""The documentation, as pages: what `scripts/site` made of `docs/`, under `/help`."""

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import RedirectResponse, Response

from app.http.file_response import ConditionalFileResponse
from app.platform.errors import NotFound

router = APIRouter()

SITE = Path(__file__).parent / "site"
HOME = "docs/index.html"
MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript",
    ".json": "application/json",
    ".lock": "text/plain; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".yaml": "text/plain; charset=utf-8",
    ".yml": "text/plain; charset=utf-8",
}
_INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


# Relative, so that they work under any path of a proxy.
@router.get("/help", include_in_schema=False)
def find_help() -> Response:
    """The first page."""
    return RedirectResponse(f"help/{HOME}")


@router.get("/help/{path:path}", include_in_schema=False)
def read_help_file(path: str) -> Response:
    """A page or a file of one."""
    if path == "":
        return RedirectResponse(HOME)
    if not SITE.is_dir():
        raise NotFound(
            "This installation has no pages of help: in its repository, scripts/site makes them of docs/."
        )
    found = (SITE / path).resolve()
    if not found.is_relative_to(SITE) or found.suffix not in MEDIA_TYPES or not found.is_file():
        raise NotFound("There is nothing at this address.")
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": _policy(SITE),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "same-origin",
    }
    media_type = MEDIA_TYPES[found.suffix]
    return ConditionalFileResponse(found, stat_result=found.stat(), media_type=media_type, headers=headers)


@cache
def _policy(site: Path) -> str:
    """What the pages may do: run their own scripts, the site's files and the theme's few lines in the pages, which are
    permitted by their digests. Styles may stand in a page: tables align columns by them."""
    scripts = {text for page in site.rglob("*.html") for text in _INLINE_SCRIPT.findall(page.read_bytes())}
    digests = sorted(base64.b64encode(hashlib.sha256(text).digest()).decode() for text in scripts)
    policy = {
        "default-src": "'none'",
        "script-src": " ".join(["'self'", *(f"'sha256-{digest}'" for digest in digests)]),
        "style-src": "'self' 'unsafe-inline'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in policy.items())
