"""The log of a whole server as a log collector reads it: one object a line, and a request can be followed."""

import json
import subprocess

import httpx

from app.platform.secrets import Secrets
from app.platform.settings import Settings
from tests.documentation.samples import text_of

# What `regen serve` says to its user on stdout, which goes to the same file.
FOR_THE_USER = ("Regen is serving at ", "API key of the user ", "Its console, signed in once by this link: ")


def test_every_line_is_json_and_a_render_can_be_followed(start_server, tmp_path):
    clip = tmp_path / "clip.mp4"
    picture = ("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25:duration=0.4")
    subprocess.run(["ffmpeg", "-v", "error", *picture, "-pix_fmt", "yuv420p", clip], check=True)
    with start_server(
        log_format="json", stand_in_network="true", metrics_token="token-of-prometheus"
    ) as server:
        server.client.headers["X-Request-ID"] = "followed-1"
        render = server.submit(clip)
        del server.client.headers["X-Request-ID"]
        finished = server.wait(render["id"])
        httpx.get(finished["outputFileURL"])
        httpx.get(
            f"{server.client.base_url}/metrics", headers={"Authorization": "Bearer token-of-prometheus"}
        )
        key = server.client.headers["Authorization"].removeprefix("Bearer ")

    text = (server.data_dir / "server.log").read_text()
    lines = [json.loads(line) for line in text.splitlines() if not line.startswith(FOR_THE_USER)]
    assert all(list(line)[:4] == ["timestamp", "level", "event", "logger"] for line in lines)
    followed = [line["event"] for line in lines if line.get("request_id") == "followed-1"]
    assert {"request_done", "render_created", "work_started", "work_done"} <= set(followed)
    of_render = [
        line for line in lines if line.get("render_id") == render["id"] and line["event"] == "work_done"
    ]
    assert {"prepare", "upscale", "finish"} == {line["kind"] for line in of_render}
    url_key = Secrets.load(Settings(data_dir=server.data_dir)).url_key.hex()
    # The line of the page is such a line.
    shown = json.loads(text_of("docs/observability.md", '{"timestamp"'))
    (asked,) = [one for one in lines if one["event"] == "request_done" and one["route"] == "/v1/upscale"]
    without = {"file_id", "render_id"}  # which the page's has not: it names those that are always there
    assert [name for name in asked if name not in without] == list(shown)
    same = {"level", "event", "logger", "method", "route", "status", "client", "request_id"}
    assert {name: asked[name] for name in same} == {name: shown[name] for name in same}
    assert all(type(asked[name]) is type(value) for name, value in shown.items())
    logged = json.dumps(lines)
    for secret in (key, "token-of-prometheus", "signature=", url_key):
        assert secret not in logged
