"""The wire contract of the Regen upscale API, seen through an ordinary HTTP client and nothing of the server's.

Aim it at any server with REGEN_TEST_URL and REGEN_TEST_KEY.
"""

import re
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

CLIP = Path(__file__).parents[1] / "media" / "short" / "bunny-240x136-25fps.mp4"
WIDTH, HEIGHT, FRAME_RATE, FRAMES, DURATION_SECONDS = 240, 136, 25, 20, 0.8
RENDER_SECONDS = 600
STATUSES = ["queued", "pending", "processing", "completed"]
ALWAYS = {"id", "userId", "status", "createdAt"}
OURS = {"engine", "fileId", "cost", "progress", "inputFileURL", "input", "output"}
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def submit(api: httpx.Client, **fields: str) -> httpx.Response:
    with CLIP.open("rb") as video:
        return api.post("/v1/upscale", files={"file": ("my clip.mp4", video, "video/mp4")}, data=fields)


def finished(api: httpx.Client, render: dict) -> dict:
    """The render once it has ended, every answer on the way checked."""
    deadline = time.monotonic() + RENDER_SECONDS
    seen, progress = 0, 0.0
    while True:
        response = api.get(f"/v1/renders/{render['id']}")
        assert response.status_code == 200
        assert list(response.json()) == ["render"]
        now = response.json()["render"]
        assert now["status"] in STATUSES, now
        assert STATUSES.index(now["status"]) >= seen, "a render only moves forward"
        seen = STATUSES.index(now["status"])
        check_properties(now)
        assert now["progress"] >= progress
        progress = now["progress"]
        if now["status"] == "completed":
            return now
        assert time.monotonic() < deadline
        time.sleep(0.1)


def check_properties(render: dict) -> None:
    status = render["status"]
    assert render.keys() >= ALWAYS | OURS
    assert None not in render.values(), "what is absent is left out"
    assert all(isinstance(render[name], str) and render[name] for name in ALWAYS)
    assert MOMENT.fullmatch(render["createdAt"])
    assert ("queuePosition" in render) == (status == "queued")
    for name in ("outputFileURL", "thumbnailURL", "completedAt"):
        assert (name in render) == (status == "completed")
    assert ("error" in render) == (status == "failed")
    assert 0 <= render["progress"] <= 1
    assert not isinstance(render["cost"], str)
    for name in ("input", "output"):
        assert render[name].keys() == {"width", "height", "frameRate", "durationSeconds", "frames"}


def errors(response: httpx.Response) -> list[str]:
    assert response.headers["Content-Type"].split(";")[0] == "application/json"
    assert list(response.json()) == ["errors"]
    for error in response.json()["errors"]:
        assert list(error) == ["message"]
    return [error["message"] for error in response.json()["errors"]]


class TestUpscale:
    def test_the_answer(self, api):
        before = datetime.now(UTC)
        response = submit(api)

        assert response.status_code == 200
        assert list(response.json()) == ["render"]
        render = response.json()["render"]
        assert render["status"] == "queued"
        assert render["queuePosition"] >= 1
        check_properties(render)
        assert abs((datetime.fromisoformat(render["createdAt"]) - before).total_seconds()) < 120
        location = httpx.URL(str(api.base_url)).join(response.headers["Location"])
        assert api.get(location).json()["render"]["id"] == render["id"]

    def test_a_render_from_beginning_to_end(self, api):
        render = finished(api, submit(api).json()["render"])

        assert render["engine"] == "regen-4x-lite"
        assert "targetFps" not in render
        facts = {"frameRate": FRAME_RATE, "durationSeconds": DURATION_SECONDS, "frames": FRAMES}
        assert render["input"] == {"width": WIDTH, "height": HEIGHT, **facts}
        assert render["output"] == {"width": 4 * WIDTH, "height": 4 * HEIGHT, **facts}
        assert render["cost"] == pytest.approx(16 * WIDTH * HEIGHT * FRAMES / 1e9, rel=1e-12)
        assert render["progress"] == 1
        assert MOMENT.fullmatch(render["completedAt"])
        assert render["completedAt"] >= render["createdAt"]

        video, picture = httpx.get(render["outputFileURL"]), httpx.get(render["thumbnailURL"])
        assert (video.status_code, video.headers["Content-Type"]) == (200, "video/mp4")
        assert video.content[4:8] == b"ftyp"
        assert (picture.status_code, picture.headers["Content-Type"]) == (200, "image/jpeg")
        assert picture.content[:3] == b"\xff\xd8\xff"
        assert httpx.get(render["inputFileURL"]).content == CLIP.read_bytes()
        part = httpx.get(render["outputFileURL"], headers={"Range": "bytes=4-7"})
        assert (part.status_code, part.content) == (206, b"ftyp")

    def test_another_frame_rate_and_engine(self, api):
        response = submit(api, target_fps="23.976", engine="regen-4x-lite")

        render = finished(api, response.json()["render"])
        assert render["targetFps"] == 23.976
        assert render["output"]["frameRate"] == pytest.approx(24000 / 1001, rel=1e-9)
        assert render["output"]["frames"] == 19
        assert render["output"]["durationSeconds"] == pytest.approx(DURATION_SECONDS, abs=0.03)

    def test_the_better_engine_costs_twice_as_much(self, api):
        assert submit(api, engine="regen-4x").json()["render"]["cost"] == pytest.approx(
            2 * 16 * WIDTH * HEIGHT * FRAMES / 1e9, rel=1e-12
        )

    def test_both_addresses_of_a_render(self, api):
        render = submit(api).json()["render"]

        for path in ("/v1/renders/", "/renders/"):
            assert api.get(path + render["id"]).json()["render"]["id"] == render["id"]

    def test_a_file_uploaded_before_in_each_kind_of_body(self, api):
        with CLIP.open("rb") as video:
            file_id = api.post("/v1/files", files={"file": video}).json()["file"]["id"]

        for arguments in (
            {"files": {"file_id": (None, file_id), "target_fps": (None, "50")}},
            {"data": {"file_id": file_id, "target_fps": "50", "engine": ""}},
            {"json": {"file_id": file_id, "target_fps": 50, "engine": None}},
        ):
            response = api.post("/v1/upscale", **arguments)
            assert response.status_code == 200
            render = response.json()["render"]
            assert (render["fileId"], render["targetFps"]) == (file_id, 50)


class TestFiles:
    def test_uploading_and_asking(self, api):
        with CLIP.open("rb") as video:
            response = api.post("/v1/files", files={"file": ("my clip.mp4", video)})

        assert response.status_code == 200
        assert list(response.json()) == ["file"]
        file = response.json()["file"]
        assert file.keys() == {
            "id", "name", "sizeBytes", "width", "height", "frameRate", "durationSeconds", "createdAt",
        }  # fmt: skip
        assert (file["name"], file["sizeBytes"]) == ("my clip.mp4", CLIP.stat().st_size)
        assert (file["width"], file["height"]) == (WIDTH, HEIGHT)
        assert (file["frameRate"], file["durationSeconds"]) == (FRAME_RATE, DURATION_SECONDS)
        assert MOMENT.fullmatch(file["createdAt"])
        assert api.get(f"/v1/files/{file['id']}").json() == response.json()


def test_engines(api):
    response = api.get("/v1/engines")

    assert list(response.json()) == ["engines"]
    engines = response.json()["engines"]
    for engine in engines:
        assert engine.keys() == {"id", "scale", "costMultiplier", "description", "default"}
    # A server may have others beside these two.
    stated = {
        engine["id"]: (engine["scale"], engine["costMultiplier"], engine["default"]) for engine in engines
    }
    assert [engine["id"] for engine in engines if engine["default"]] == ["regen-4x-lite"]
    assert (
        stated.items()
        >= {
            "regen-4x-lite": (4, 1, True),
            "regen-4x": (4, 2, False),
        }.items()
    )


def test_health_needs_no_key(regen_server):
    for path in ("/healthz", "/readyz"):
        assert httpx.get(regen_server.url + path).status_code == 200


class TestErrors:
    def test_keys(self, regen_server):
        for headers, status in (
            ({}, 401),
            ({"Authorization": "Bearer wrong"}, 401),
            ({"X-API-Key": "wrong"}, 401),
            ({"X-API-Key": regen_server.key}, 200),
        ):
            response = httpx.get(f"{regen_server.url}/v1/engines", headers=headers)
            assert response.status_code == status
            if status == 401:
                assert len(errors(response)) == 1

    def test_unknown_ids(self, api):
        response = api.post("/v1/upscale", data={"file_id": "abc123"})
        assert (response.status_code, errors(response)) == (404, ["File not found"])
        response = api.get("/v1/files/abc123")
        assert (response.status_code, errors(response)) == (404, ["File not found"])
        for path in ("/v1/renders/abc123", "/renders/abc123"):
            response = api.get(path)
            assert response.status_code == 404
            assert len(errors(response)) == 1

    @pytest.mark.parametrize(
        ("fields", "faults"),
        [
            ({"target_fps": "0.5"}, 1),
            ({"target_fps": "121"}, 1),
            ({"target_fps": "NaN"}, 1),
            ({"target_fps": "fast"}, 1),
            ({"engine": "regen-9x"}, 1),
            ({"file_id": "abc123"}, 1),
            ({"engine": "regen-9x", "target_fps": "0"}, 2),
        ],
    )
    def test_faulty_fields(self, api, fields, faults):
        response = submit(api, **fields)

        assert response.status_code == 400
        assert len(errors(response)) == faults

    def test_neither_file_nor_file_id(self, api):
        response = api.post("/v1/upscale", data={"engine": "regen-4x"})

        assert response.status_code == 400
        assert len(errors(response)) == 1

    @pytest.mark.parametrize(("content", "status"), [(b"", 400), (b"a text, and no video\n" * 100, 415)])
    def test_files_that_are_no_videos(self, api, content, status):
        for path in ("/v1/upscale", "/v1/files"):
            response = api.post(path, files={"file": ("clip.mp4", content)})
            assert response.status_code == status
            assert len(errors(response)) == 1

    def test_wrong_addresses_and_methods(self, api):
        for method, path, status in (
            ("GET", "/v1/nothing", 404),
            ("GET", "/v1/upscale", 405),
            ("DELETE", "/v1/engines", 405),
        ):
            response = api.request(method, path)
            assert response.status_code == status
            assert len(errors(response)) == 1
