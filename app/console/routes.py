"""The console's page and its files."""

from pathlib import Path
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from app.console.sign_in import USED, SignInCode, create_owner_key
from app.http.body import RequestBody
from app.http.dependencies import ResourcesDependency
from app.http.file_response import ConditionalFileResponse
from app.http.resources import Resources
from app.platform.errors import NotFound, Unauthorized
from app.platform.settings import Settings

router = APIRouter()

STATIC = Path(__file__).parent / "static"
MEDIA_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
# Files are checked with their ETag at each load: a page never mixes files of two versions for long.
CACHE = "no-cache"


@router.get("/", include_in_schema=False)
def read_console(request: Request) -> Response:
    """The page."""
    resources: Resources = request.app.state.resources
    headers = page_headers(resources.settings)
    return _file(STATIC / "index.html", headers)


class SignIn(RequestBody):
    """The code of the link that `regen serve` prints."""

    code: str


@router.post("/console/sign-in", include_in_schema=False)
def sign_in(asked: SignIn, request: Request, resources: ResourcesDependency) -> Response:
    """Exchange the code for a key of the machine's owner, once."""
    code: SignInCode | None = request.app.state.sign_in_code
    if code is None:
        raise Unauthorized(USED)
    code.spend(asked.code)
    with resources.database.write() as session:
        key = create_owner_key(session, keys=resources.secrets)
    return JSONResponse({"key": key}, headers={"Cache-Control": "no-store"})


@router.get("/console/server.json", include_in_schema=False)
def describe_server(request: Request) -> Response:
    """What the page must know before it asks anything else."""
    return JSONResponse({"isMock": request.app.state.is_mock}, headers={"Cache-Control": "no-store"})


@router.get("/console/{path:path}", include_in_schema=False)
def read_console_file(path: str) -> Response:
    """A file of the page."""
    found = (STATIC / path).resolve()
    if not found.is_relative_to(STATIC) or found.suffix not in MEDIA_TYPES or not found.is_file():
        raise NotFound("There is nothing at this address.")
    return _file(found, {})


def page_headers(settings: Settings) -> dict[str, str]:
    """What the page may do: run its own scripts, speak with this server, and show videos from its storage."""
    storage = _origin(settings.s3_public_endpoint_url or settings.s3_endpoint_url)
    own = " ".join(["'self'", *storage])
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": own,
        "img-src": own,
        "media-src": f"{own} blob:",
        "form-action": "'none'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Referrer-Policy": "no-referrer",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    }


def _origin(url: str | None) -> list[str]:
    """The origins of the object store: with the bucket in the path, and as a name below the host's."""
    if url is None:
        return []
    parts = urlsplit(url)
    return [f"{parts.scheme}://{parts.netloc}", f"{parts.scheme}://*.{parts.netloc}"]


def _file(path: Path, headers: dict[str, str]) -> Response:
    return ConditionalFileResponse(
        path,
        stat_result=path.stat(),
        media_type=MEDIA_TYPES[path.suffix],
        headers={"Cache-Control": CACHE, "X-Content-Type-Options": "nosniff", **headers},
    )
