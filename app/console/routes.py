"""The console's page and its files."""

import hashlib
import re
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from app.console.sign_in import USED, SignInCode, create_owner_key
from app.http.body import RequestBody
from app.http.constant_response import constant_response
from app.http.dependencies import ResourcesDependency
from app.http.resources import Resources
from app.platform.errors import NotFound, Unauthorized
from app.platform.settings import Settings

router = APIRouter()

STATIC = Path(__file__).parent / "static"
MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
STATIC_IMPORT = re.compile(r"""^(?:import|export)[^;]*? from "(\./[^"]+|\.\./[^"]+)";$""", re.MULTILINE)
REVALIDATED = "no-cache"
IMMUTABLE = "public, max-age=31536000, immutable"


@cache
def version() -> str:
    """A digest of all files of the page, which is part of their addresses: modules import each other relatively, so
    that a page never mixes files of two versions."""
    digest = hashlib.sha256()
    for path in sorted(STATIC.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(STATIC)}\0".encode() + path.read_bytes())
    return f"v{digest.hexdigest()[:16]}"


@cache
def _page(*, is_mock: bool) -> bytes:
    """The page, which names its files with the version, and tells whether the server is the mock.

    Before any module is loaded it names those without which it shows nothing, and then, as less urgent, those of the
    view with which it begins. It loads the others when it has nothing else to do.
    """
    first = _imported_by("app.js")
    links = [f'<link rel="modulepreload" href="console/{name}">' for name in sorted(first)]
    links += [
        f'<link rel="modulepreload" fetchpriority="low" href="console/{name}">'
        for name in sorted(_imported_by("views/new_renders.js") - first)
    ]
    preloads = "".join(f"    {link}\n" for link in links)
    text = (STATIC / "index.html").read_text().replace("  </head>", f"{preloads}  </head>")
    text = text.replace('"console/', f'"console/{version()}/')
    return (text.replace('<html lang="en">', '<html lang="en" data-mock>') if is_mock else text).encode()


def _imported_by(module: str) -> set[str]:
    """The module and all that it imports statically, as paths below STATIC."""
    found, waiting = set[str](), [STATIC / module]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(STATIC).as_posix()
        if name not in found:
            found.add(name)
            waiting += [(path.parent / one).resolve() for one in STATIC_IMPORT.findall(path.read_text())]
    return found


@router.get("/", include_in_schema=False)
def read_console(request: Request) -> Response:
    """The page."""
    resources: Resources = request.app.state.resources
    headers = {"Cache-Control": REVALIDATED, "X-Content-Type-Options": "nosniff"}
    return constant_response(
        request,
        _page(is_mock=request.app.state.is_mock),
        media_type="text/html",
        headers=headers | page_headers(resources.settings),
    )


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


@router.get("/console/{path:path}", include_in_schema=False)
def read_console_file(path: str, request: Request) -> Response:
    """A file of the page. With the version in its address it never changes; that of another version, which a page asks
    for during an upgrade, is answered with the present file."""
    named, _, rest = path.partition("/")
    found = (STATIC / (rest if re.fullmatch("v[0-9a-f]{16}", named) else path)).resolve()
    if not found.is_relative_to(STATIC) or found.suffix not in MEDIA_TYPES or not found.is_file():
        raise NotFound("There is nothing at this address.")
    return constant_response(
        request,
        found.read_bytes(),
        media_type=MEDIA_TYPES[found.suffix],
        headers={
            "Cache-Control": IMMUTABLE if named == version() else REVALIDATED,
            "X-Content-Type-Options": "nosniff",
        },
    )


def page_headers(settings: Settings) -> dict[str, str]:
    """What the page may do: run its own scripts, speak with this server, and show videos from its storage."""
    storage = _origin(settings.s3_public_endpoint_url or settings.s3_endpoint_url)
    own = " ".join(["'self'", *storage])
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": own,
        "img-src": f"{own} blob:",
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
