import re

import httpx
import pytest

REQUIRED = "`file` is required, as a part of a multipart/form-data body."
NOT_A_FILE = (
    '`file` is not a file but "x": send the file itself in a multipart/form-data body, '
    "as `curl -F file=@clip.mp4` does."
)


class TestFiles:
    def test_upload_and_look_up(self, client: httpx.Client, clip):
        with clip.open("rb") as content:
            response = client.post("/v1/files", files={"file": ("ünïcode/../a b.mp4", content)})

        assert response.status_code == 200
        file = response.json()["file"]
        assert list(response.json()) == ["file"]
        assert file | {"id": "", "createdAt": ""} == {
            "id": "", "name": "a b.mp4", "sizeBytes": clip.stat().st_size, "width": 240, "height": 136,
            "frameRate": 25, "durationSeconds": 2, "createdAt": "",
        }  # fmt: skip
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", file["createdAt"])
        assert client.get(f"/v1/files/{file['id']}").json() == response.json()
        contents = client.get(f"/v1/files/{file['id']}/contents").json()["contents"]
        part = httpx.get(contents.pop("fileURL"), headers={"Range": "bytes=4-7"})
        assert (part.status_code, part.content) == (206, b"ftyp")
        assert contents == {
            "codec": "h264", "pixelFormat": "yuv420p", "transfer": "bt709", "sound": ["aac"], "videoBeginsAt": 0,
        }  # fmt: skip

    def test_other_rates(self, client, media):
        with (media / "webb-480x270-2997fps-hevc.mp4").open("rb") as content:
            file = client.post("/v1/files", files={"file": content}).json()["file"]

        assert file["frameRate"] == 30000 / 1001

    @pytest.mark.parametrize(
        ("arguments", "sentences"),
        [
            ({}, [REQUIRED]),
            ({"json": {"file": ""}}, [REQUIRED]),
            (
                {"files": {"other": b"x"}},
                [REQUIRED, "`other` contains a file; its field must be called `file`."],
            ),
            ({"json": {"file": "x"}}, [NOT_A_FILE]),
            ({"data": {"file": "x"}}, [NOT_A_FILE]),
            ({"files": {"file": (None, "x")}}, [NOT_A_FILE]),
        ],
    )
    def test_without_a_file(self, client, arguments, sentences):
        response = client.post("/v1/files", **arguments)

        assert response.status_code == 400
        assert response.json() == {"errors": [{"message": sentence} for sentence in sentences]}

    def test_unknown(self, client):
        response = client.get("/v1/files/nope")

        assert (response.status_code, response.json()) == (404, {"errors": [{"message": "File not found"}]})


def test_engines(client):
    engines = client.get("/v1/engines").json()["engines"]

    assert {engine.pop("description") != "" for engine in engines} == {True}
    assert engines == [
        {"id": "regen-4x-lite", "scale": 4, "costMultiplier": 1, "default": True},
        {"id": "regen-4x", "scale": 4, "costMultiplier": 2, "default": False},
        {"id": "regen-4x-anime", "scale": 4, "costMultiplier": 2, "default": False},
    ]


@pytest.mark.parametrize("broker", ["away", "silent"])
def test_a_render_is_accepted_soon_whatever_the_broker_does(
    serve, settings, key, tmp_path, clip, broker, black_hole
):
    url = {
        "away": f"redis+socket://{tmp_path}/none.sock",
        "silent": f"redis://127.0.0.1:{black_hole}/0",
    }[broker]
    client = serve(settings.model_copy(update={"broker_url": url}), key=key)
    with clip.open("rb") as content:
        file_id = client.post("/v1/files", files={"file": content}).json()["file"]["id"]

    response = client.post("/v1/upscale", json={"file_id": file_id}, timeout=15)

    assert response.status_code == 200
    assert client.get(f"/v1/renders/{response.json()['render']['id']}").status_code == 200


def test_openapi_documents_what_the_routes_take_and_answer(stranger):
    document = stranger.get("/openapi.json").json()

    assert document["info"]["title"] == "Regen"
    assert set(document["paths"]) == {
        "/v1/upscale", "/v1/renders", "/v1/renders/{render_id}", "/v1/renders/{render_id}/cancel",
        "/v1/renders/{render_id}/retry", "/v1/renders/{render_id}/deliver", "/v1/renders/{render_id}/events",
        "/v1/renders/{render_id}/stream.m3u8", "/v1/estimates", "/v1/files",
        "/v1/files/{file_id}", "/v1/files/{file_id}/contents", "/v1/files/{file_id}/frame",
        "/v1/engines", "/v1/workers",
        "/v1/uploads", "/v1/uploads/{upload_id}", "/v1/uploads/{upload_id}/parts",
        "/v1/uploads/{upload_id}/complete",
        "/v1/webhooks", "/v1/webhooks/secret", "/v1/webhooks/secret/rotate", "/v1/webhooks/{webhook_id}",
        "/v1/webhooks/{webhook_id}/test", "/v1/webhook-deliveries", "/v1/webhook-deliveries/{delivery_id}",
        "/v1/webhook-deliveries/{delivery_id}/replay",
        "/v1/previews", "/v1/previews/{preview_id}",
        "/v1/usage", "/v1/key", "/v1/keys", "/v1/keys/{key_id}",
        "/v1/admin/users", "/v1/admin/users/{user_id}", "/v1/admin/users/{user_id}/usage",
        "/v1/admin/users/{user_id}/keys", "/v1/admin/keys/{key_id}", "/v1/admin/workers",
        "/v1/admin/workers/{name}/drain", "/v1/admin/workers/{name}/resume",
        "/v1/admin/activity", "/v1/admin/renders", "/v1/admin/renders/{render_id}",
        "/v1/admin/renders/{render_id}/cancel",
        "/v1/admin/renders/{render_id}/deliver",
        "/v1/admin/renders/{render_id}/requeue", "/v1/admin/renders/{render_id}/retry",
        "/healthz", "/readyz",
    }  # fmt: skip
    upscale = document["paths"]["/v1/upscale"]["post"]
    assert {"401", "413", "415", "429", "500"} < set(upscale["responses"])
    assert "422" not in upscale["responses"]
    form = upscale["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert set(form) == {
        "file", "file_id", "file_url", "target_fps", "engine", "retime", "quality", "priority", "webhook_url",
        "start", "end", "scale", "max_width", "max_height", "strength", "grain", "stabilise", "deinterlace",
        "metadata", "cancel_after", "codec", "container", "output_quality", "destination",
    }  # fmt: skip
    assert set(document["paths"]["/v1/renders/{render_id}"]) == {"get", "delete"}
    assert "outputFileURL" in document["components"]["schemas"]["Render"]["properties"]
    assert "HTTPValidationError" not in document["components"]["schemas"]
