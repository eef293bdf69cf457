"""`regen verify-api`: a small session with a server, every answer held against the API's description."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from app.cli.remote.connection import NoLogin, find_key, server_address
from app.cli.remote.contract import ContractSession
from app.cli.remote.session import ExitCode, report
from app.cli.reporting import AsJson, print_json, stderr

CLIP = Path(__file__).with_name("clip.mp4")
WIDTH, HEIGHT, FRAMES, RATE = 64, 36, 5, 25
STATUSES = ("queued", "pending", "processing", "completed")
POLL_SECONDS = 0.5
REQUEST_SECONDS = 60.0
# What earlier checks leave to later ones.
Made = dict[str, Any]
Check = Callable[[ContractSession, Made], None]
RENDER = "/v1/renders/{render_id}"
FILE = "/v1/files/{file_id}"


def verify_api(
    url: Annotated[str, typer.Argument(metavar="URL", help="The server, such as https://regen.example.com.")],
    timeout: Annotated[
        float, typer.Option(min=1, help="How many seconds the render of 5 small frames may take.")
    ] = 600.0,
    as_json: AsJson = False,
) -> None:
    """Hold a server against the API's description, and say what differs: then the exit status is 1.

    Uploads a clip of 1 kB, renders it twice, asks for what is refused, and deletes what it made. The key is
    REGEN_KEY, or that of `regen login`.
    """
    server = server_address(url)
    found: dict[str, list[str]] = {}
    made: Made = {"timeout": timeout}
    try:
        key = find_key(server)
        with httpx.Client(base_url=server, timeout=REQUEST_SECONDS) as http:
            if ContractSession(http, key).is_refused():
                raise NoLogin(
                    f"{server} refuses this key. Log in by `regen login {server}`, or set REGEN_KEY."
                )
            try:
                for name, check in CHECKS.items():
                    found[name] = _differences(check, ContractSession(http, key), made)
                    if not as_json:
                        _show(name, found[name])
            except KeyboardInterrupt:
                _differences(_removal, ContractSession(http, key), made)
                stderr().print("[yellow]Interrupted; what was made is deleted.[/yellow]")
                raise typer.Exit(ExitCode.INTERRUPTED) from None
    except NoLogin as error:
        report([(None, error)], server=server, as_json=as_json)
        raise typer.Exit(ExitCode.NO_ACCESS) from error
    except httpx.HTTPError as error:
        report([(None, OSError(f"{server} does not answer: {error}"))], server=server, as_json=as_json)
        raise typer.Exit(ExitCode.NO_ANSWER) from error
    if as_json:
        checks = [{"name": name, "differences": differences} for name, differences in found.items()]
        print_json({"server": server, "checks": checks})
    if any(found.values()):
        raise typer.Exit(ExitCode.FAILED)


def _differences(check: Check, api: ContractSession, made: Made) -> list[str]:
    try:
        check(api, made)
    except httpx.HTTPError as error:
        api.differ(f"no answer: {error}")
    except httpx.InvalidURL as error:
        api.differ(f"an answer has an address that is none: {error}")
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        # Most often because of a difference that is told already.
        if not api.differences:
            api.differ(f"an answer of this or an earlier check lacks what the next request needs: {error}.")
    return api.differences


def _show(name: str, differences: list[str]) -> None:
    typer.echo(f"{'differs' if differences else 'ok':<8}{name}")
    for sentence in differences:
        stderr().print(f"        {sentence}", style="red", soft_wrap=True, markup=False, highlight=False)


def _health(api: ContractSession, made: Made) -> None:
    for path in ("/healthz", "/readyz"):
        api.ask("GET", path, key="")


def _keys(api: ContractSession, made: Made) -> None:
    api.ask("GET", "/v1/engines", 401, key="")
    api.ask("GET", "/v1/engines", 401, key="wrong")
    api.ask("GET", "/v1/engines", key="", headers={"X-API-Key": api.key})


def _engines(api: ContractSession, made: Made) -> None:
    engines = {one["id"]: one for one in api.ask("GET", "/v1/engines")["engines"]}
    api.expect(
        "the default engine", [name for name, one in engines.items() if one["default"]], ["regen-4x-lite"]
    )
    for name, cost in (("regen-4x-lite", 1), ("regen-4x", 2)):
        api.expect(f"costMultiplier of {name}", engines.get(name, {}).get("costMultiplier"), cost)
        api.expect(f"scale of {name}", engines.get(name, {}).get("scale"), 4)
    api.ask("HEAD", "/v1/engines")


def _upload(api: ContractSession, made: Made) -> None:
    files = {"file": ("my clip.mp4", CLIP.read_bytes(), "video/mp4")}
    file = api.ask("POST", "/v1/files", files=files)["file"]
    made["file_id"] = file["id"]
    facts = {"name": "my clip.mp4", "sizeBytes": CLIP.stat().st_size, "width": WIDTH, "height": HEIGHT}
    for name, expected in (facts | {"frameRate": RATE, "durationSeconds": FRAMES / RATE}).items():
        api.expect(name, file.get(name), expected)
    again = api.ask("GET", f"/v1/files/{file['id']}", route=FILE)["file"]
    api.expect("the file that is asked for", again, file)


def _submission(api: ContractSession, made: Made) -> None:
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    asked = {"file_id": made["file_id"], "target_fps": 12.5}
    render = api.ask("POST", "/v1/upscale", json=asked, headers=headers)["render"]
    made["renders"] = [render["id"]]
    api.expect("the end of Location", api.headers.get("Location", "")[-len(render["id"]) :], render["id"])
    for name, expected in (("status", "queued"), ("fileId", made["file_id"]), ("targetFps", 12.5)):
        api.expect(name, render.get(name), expected)
    again = api.ask("POST", "/v1/upscale", json=asked, headers=headers)["render"]
    if again["id"] != render["id"]:
        made["renders"].append(again["id"])
    api.expect("the render of the same Idempotency-Key", again["id"], render["id"])
    api.expect("Idempotent-Replayed of that", api.headers.get("Idempotent-Replayed"), "true")
    files = {"file": ("clip.mp4", CLIP.read_bytes())}
    other = api.ask("POST", "/v1/upscale", files=files, data={"engine": "regen-4x-lite"})["render"]
    made["renders"].append(other["id"])
    for path in ("/v1/renders/", "/renders/"):
        same = api.ask("GET", f"{path}{render['id']}", route=RENDER)["render"]
        api.expect(f"the render at {path}", same["id"], render["id"])
    listed = [one["id"] for one in api.ask("GET", "/v1/renders?limit=5", route="/v1/renders")["renders"]]
    api.expect("whether it is among the renders", render["id"] in listed, True)


def _completion(api: ContractSession, made: Made) -> None:
    path = f"/v1/renders/{made['renders'][0]}"
    deadline, seen = time.monotonic() + made["timeout"], "queued"
    while True:
        render = api.ask("GET", path, route=RENDER)["render"]
        status = render["status"]
        if status not in STATUSES:
            api.differ(f"the render is {status}: {render.get('error', 'without a reason')}")
            return
        if STATUSES.index(status) < STATUSES.index(seen):
            api.differ(f"the render went back from {seen} to {status}.")
        for name, held in (
            ("queuePosition", status == "queued"),
            *((name, status == "completed") for name in ("outputFileURL", "thumbnailURL", "completedAt")),
        ):
            if (name in render) != held:
                api.differ(f"a render that is {status} {'lacks' if held else 'has'} {name}.")
        seen = status
        if status == "completed" or api.differences:
            break
        if time.monotonic() > deadline:
            api.differ(f"the render is {status} after {made['timeout']:g} s.")
            return
        time.sleep(POLL_SECONDS)
    output = {name: render["output"][name] for name in ("width", "height", "frameRate")}
    api.expect("the output", output, {"width": 4 * WIDTH, "height": 4 * HEIGHT, "frameRate": 12.5})
    pixels = 16 * WIDTH * HEIGHT * render["output"]["frames"]
    if abs(render["cost"] - pixels / 1e9) > 1e-9:
        api.differ(f"the cost is {render['cost']} rather than {pixels / 1e9}.")
    made["output"], made["input"] = render["outputFileURL"], render["inputFileURL"]


def _downloads(api: ContractSession, made: Made) -> None:
    whole = httpx.get(made["output"], timeout=REQUEST_SECONDS)
    api.expect("the status of the output, without a key", whole.status_code, 200)
    api.expect("the type of the output", whole.headers.get("Content-Type"), "video/mp4")
    part = httpx.get(made["output"], headers={"Range": "bytes=4-7"}, timeout=REQUEST_SECONDS)
    api.expect("the status of a part of the output", part.status_code, 206)
    api.expect("bytes 4 to 7 of the output", part.content.decode("latin-1"), "ftyp")
    given = httpx.get(made["input"], timeout=REQUEST_SECONDS).content
    api.expect("whether the input is what was uploaded", given == CLIP.read_bytes(), True)


def _refusals(api: ContractSession, made: Made) -> None:
    for method, path, status in (
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/upscale", 405),
        ("DELETE", "/v1/engines", 405),
        ("GET", "/v1/renders/abc123", 404),
        ("GET", "/renders/abc123", 404),
    ):
        api.ask(method, path, status)
    for answer in (
        api.ask("GET", "/v1/files/abc123", 404),
        api.ask("POST", "/v1/upscale", 404, data={"file_id": "abc123"}),
    ):
        if answer:
            api.expect("the error for an unknown file", answer["errors"], [{"message": "File not found"}])
    for fields, faults in (
        ({"target_fps": "0.5"}, 1),
        ({"target_fps": "121"}, 1),
        ({"target_fps": "fast"}, 1),
        ({"engine": "regen-9x", "target_fps": "0"}, 2),
    ):
        if answer := api.ask("POST", "/v1/upscale", 400, data={"file_id": made["file_id"], **fields}):
            api.expect(f"the number of faults in {fields}", len(answer["errors"]), faults)
    api.ask("POST", "/v1/upscale", 400, data={"engine": "regen-4x"})
    for content, status in ((b"", 400), (b"a text, and no video\n" * 100, 415)):
        api.ask("POST", "/v1/files", status, files={"file": ("clip.mp4", content)})


def _removal(api: ContractSession, made: Made) -> None:
    """Also of the file that came with a request."""
    files = {made.get("file_id")}
    for render_id in made.get("renders", ()):
        path = f"/v1/renders/{render_id}"
        render = api.ask("GET", path, route=RENDER)["render"]
        files.add(render["fileId"])
        if render["status"] not in ("completed", "failed"):
            api.ask("POST", f"{path}/cancel", route=f"{RENDER}/cancel")
        api.ask("DELETE", path, 204)
        api.ask("GET", path, 404)
    for file_id in filter(None, files):
        api.ask("DELETE", f"/v1/files/{file_id}", 204)


CHECKS: dict[str, Check] = {
    "health": _health,
    "keys": _keys,
    "engines": _engines,
    "upload": _upload,
    "submission": _submission,
    "completion": _completion,
    "downloads": _downloads,
    "refusals": _refusals,
    "removal": _removal,
}
