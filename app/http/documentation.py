"""The description of the API, for programs (`/openapi.json`) and for people (`/docs`)."""

import importlib.util
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse, JSONResponse, Response

from app.http.constant_response import constant_response
from app.http.file_response import ConditionalFileResponse
from app.http.openapi import openapi_document
from app.http.resources import Resources
from app.platform.errors import NotFound

router = APIRouter()

OPENAPI_PATH = "/openapi.json"
PAGE_PATH = "/docs"
# A package with the page's files, so that the page works without internet access. Nothing else of it is used.
PACKAGE = "fastapi_offline"
FILES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}


@router.get(OPENAPI_PATH, include_in_schema=False)
def read_openapi(request: Request) -> Response:
    """The description for generating clients."""
    app = request.app
    if app.openapi_schema is None:
        resources: Resources = app.state.resources
        url = resources.settings.public_url or str(request.scope.get("root_path", "")) or "/"
        app.openapi_schema = openapi_document(app, server_url=url)
        app.state.openapi = JSONResponse(app.openapi_schema).body
    return constant_response(request, app.state.openapi, media_type="application/json")


@router.get(PAGE_PATH, include_in_schema=False)
def read_page() -> HTMLResponse:
    """The description to read and try in a browser."""
    _directory()
    # Relative, so that they work under any path of a proxy.
    files = PAGE_PATH.removeprefix("/")
    return get_swagger_ui_html(
        openapi_url=OPENAPI_PATH.removeprefix("/"),
        title="Regen",
        swagger_js_url=f"{files}/swagger-ui-bundle.js",
        swagger_css_url=f"{files}/swagger-ui.css",
        swagger_favicon_url=f"{files}/favicon.png",
    )


@router.get(PAGE_PATH + "/{name}", include_in_schema=False)
def read_page_file(name: str) -> Response:
    """A file of the page."""
    if name not in FILES:
        raise NotFound("There is nothing at this address.")
    path = _directory() / name
    headers = {"Cache-Control": "max-age=86400"}
    return ConditionalFileResponse(path, stat_result=path.stat(), media_type=FILES[name], headers=headers)


@cache
def _directory() -> Path:
    """The directory of the page's files. Raises NotFound if the package is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise NotFound(f"This server has no such page; its description is at {OPENAPI_PATH}.")
    return Path(found.origin).parent / "static"
