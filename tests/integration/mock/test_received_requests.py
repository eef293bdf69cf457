import hashlib


def test_forms_json_and_bodies_in_order_and_without_keys(regen_mock, clip):
    client = regen_mock.client
    with clip.open("rb") as video:
        client.post("/v1/upscale", files={"file": ("mein Clip.mp4", video)}, data={"target_fps": "30"})
    client.post("/v1/upscale", json={"file_id": "abc", "engine": "regen-4x"}, headers={"X-API-Key": "secret"})
    client.post("/v1/upscale", data={"file_id": "abc"})
    client.get("/healthz")
    client.get("/v1/renders", params={"limit": 5})

    requests = regen_mock.requests

    assert [(request["number"], request["method"], request["path"]) for request in requests] == [
        *((number, "POST", "/v1/upscale") for number in (1, 2, 3)),
        (4, "GET", "/v1/renders"),
    ]
    assert [request["status"] for request in requests] == [200, 404, 404, 200]
    content = clip.read_bytes()
    assert requests[0]["files"] == [
        {
            "field": "file",
            "name": "mein Clip.mp4",
            "size_bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    ]
    assert requests[0]["fields"] == {"target_fps": "30"}
    assert requests[1]["json"] == {"file_id": "abc", "engine": "regen-4x"}
    assert requests[2]["fields"] == {"file_id": "abc"}
    assert requests[3]["query"] == {"limit": "5"}
    assert "secret" not in str(requests) and regen_mock.key not in str(requests)


def test_what_a_fault_did_stands_beside_the_request(regen_mock, clip):
    regen_mock.faults({"route": "POST /v1/upscale", "action": {"status": 503}})
    with clip.open("rb") as video:
        regen_mock.client.post("/v1/upscale", files={"file": video})

    (request,) = regen_mock.requests

    assert (request["status"], request["fault"]) == (503, {"status": 503})
    assert request["files"][0]["size_bytes"] == clip.stat().st_size
    assert regen_mock.client.delete("/_mock/requests").status_code == 204
    assert regen_mock.requests == []


def test_head_is_received_as_head(regen_mock):
    answer = regen_mock.client.head("/v1/renders")

    assert (answer.status_code, answer.content) == (200, b"")
    assert [(request["method"], request["status"]) for request in regen_mock.requests] == [("HEAD", 200)]
