"""Names that a request may not have: told by default, refused by a strict mock."""

import pytest


def messages(answer) -> list[str]:
    return [error["message"] for error in answer.json()["errors"]]


@pytest.fixture
def file_id(regen_mock, clip) -> str:
    with clip.open("rb") as video:
        return regen_mock.client.post("/v1/files", files={"file": video}).json()["file"]["id"]


def test_a_strict_mock_refuses_what_the_server_ignores(regen_mock, clip):
    regen_mock.seed(strict=True)
    client = regen_mock.client
    assert client.get("/_mock").json()["strict"] is True
    told = "is not a field of this request: did you mean"
    with clip.open("rb") as video:
        answer = client.post("/v1/upscale", files={"file": video}, data={"targetFps": "60", "engine": ""})
    assert (answer.status_code, messages(answer)) == (400, [f"`targetFps` {told} `target_fps`?"])
    for path, body, sentence in (
        ("/v1/estimates", {"file_id": "a", "Engine": "regen-4x"}, f"`Engine` {told} `engine`?"),
        ("/v1/previews", {"file_id": "a", "atSeconds": 1}, f"`atSeconds` {told} `at_seconds`?"),
        ("/v1/uploads", {"name": "a", "size_bytes": 9, "Part": 9}, f"`Part` {told} `part_size_bytes`?"),
        ("/v1/upscale?engine=regen-4x", {"file_id": "a"}, "`engine` is not a parameter of this address."),
    ):  # fmt: skip
        answer = client.post(path, json=body)
        assert (answer.status_code, messages(answer)) == (400, [sentence])
    answer = client.get("/v1/renders", params={"Status": "queued", "page": 2, "cursor": ""})
    assert (answer.status_code, messages(answer)) == (
        400,
        [
            "`Status` is not a parameter of this address: did you mean `status`?",
            "`page` is not a parameter of this address.",
        ],
    )
    assert client.get("/v1/renders", params={"status": "queued", "limit": 1, "cursor": ""}).json() == {
        "renders": []
    }
    # What was sent is recorded, also what is empty.
    assert regen_mock.requests[-1]["query"] == {"status": "queued", "limit": "1", "cursor": ""}
    with clip.open("rb") as video:
        render = client.post("/v1/upscale", files={"file": video}).raise_for_status().json()["render"]
    for url in (render["inputFileURL"], f"/v1/renders/{render['id']}", "/nothing?a=b"):
        assert client.get(url).status_code == (404 if "nothing" in url else 200)


def test_by_default_the_warnings_stay_with_the_render(regen_mock, file_id):
    assert regen_mock.client.get("/_mock").json()["strict"] is False
    regen_mock.faults({"route": "POST /v1/upscale", "action": {"render": {"warnings": ["Another."]}}})
    render = regen_mock.client.post("/v1/upscale", data={"file_id": file_id, "fps": "60"}).json()["render"]
    warning = "`fps` is not a field of this request and was ignored: did you mean `target_fps`?"
    assert (render["status"], render["warnings"]) == ("queued", [warning])
    done = regen_mock.client.get(f"/v1/renders/{render['id']}").json()["render"]
    assert (done["status"], done["warnings"], "targetFps" in done) == (
        "completed",
        [warning, "Another."],
        False,
    )
    estimate = regen_mock.client.post("/v1/estimates", data={"file_id": file_id, "fps": "60"}).json()[
        "estimate"
    ]
    assert estimate["warnings"] == [warning]
    assert regen_mock.client.get("/v1/renders?page=2").status_code == 200
