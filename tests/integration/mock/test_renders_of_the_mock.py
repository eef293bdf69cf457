"""What a client of the API meets at the mock: real files, statuses as asked for, the same answers every time."""

import json
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from pytest_regen import RegenMock

PATIENCE_SECONDS = 60


def submit(mock: RegenMock, clip: Path, **fields: str) -> dict:
    with clip.open("rb") as video:
        answer = mock.client.post("/v1/upscale", files={"file": ("clip.mp4", video)}, data=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()["render"]


def seen(mock: RegenMock, render: dict) -> dict:
    return mock.client.get(f"/v1/renders/{render['id']}").json()["render"]


def streams_of(path: Path | str) -> dict[str, dict]:
    found = subprocess.run(
        ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json", str(path)],
        check=True, capture_output=True,
    )  # fmt: skip
    return {stream["codec_type"]: stream for stream in json.loads(found.stdout)["streams"]}


def test_a_render_has_ended_by_the_first_look_and_its_output_plays(regen_mock, clip, tmp_path):
    render = submit(regen_mock, clip, target_fps="29.97", quality="true")
    assert render["status"] == "queued"

    render = seen(regen_mock, render)

    assert (render["status"], render["progress"]) == ("completed", 1)
    assert render["quality"].keys() >= {"psnr", "ssim", "frames"}
    output = tmp_path / "output.mp4"
    output.write_bytes(httpx.get(render["outputFileURL"]).content)
    video, sound = (streams_of(output)[kind] for kind in ("video", "audio"))
    assert (video["width"], video["height"], video["avg_frame_rate"]) == (960, 544, "30000/1001")
    assert int(video["nb_read_frames"]) == render["output"]["frames"] == 60
    assert float(video["duration"]) == pytest.approx(render["output"]["durationSeconds"], abs=1e-3)
    assert int(sound["nb_read_frames"]) > 80
    picture = tmp_path / "thumbnail.jpg"
    picture.write_bytes(httpx.get(render["thumbnailURL"]).content)
    assert (streams_of(picture)["video"]["codec_name"], streams_of(picture)["video"]["width"]) == (
        "mjpeg",
        640,
    )


def test_a_completed_render_has_a_playlist(regen_mock, clip):
    render = submit(regen_mock, clip)
    playlist = seen(regen_mock, render)["streamURL"]
    streams = streams_of(playlist)
    assert int(streams["video"]["nb_read_frames"]) == render["output"]["frames"]
    assert int(streams["audio"]["nb_read_frames"]) > 80


def test_each_status_lasts_for_so_many_polls(regen_mock, clip):
    regen_mock.seed(transitions="polls:2")
    render = submit(regen_mock, clip)

    looks = [seen(regen_mock, render) for _look in range(7)]

    assert [look["status"] for look in looks] == [
        *("queued", "queued", "pending", "pending", "processing", "processing", "completed")
    ]
    progress = [look["progress"] for look in looks]
    assert progress[:4] == [0, 0, 0, 0]
    assert 0 < progress[4] < progress[5] < progress[6] == 1
    # Lists are no polls of any render, and other renders have polls of their own.
    other = submit(regen_mock, clip)
    for _look in range(5):
        regen_mock.client.get("/v1/renders")
    assert seen(regen_mock, other)["status"] == "queued"


def test_each_status_lasts_for_some_time(regen_mock, clip):
    regen_mock.seed(transitions="seconds:0.2")
    render = submit(regen_mock, clip)

    statuses, deadline = [render["status"]], time.monotonic() + PATIENCE_SECONDS
    while statuses[-1] != "completed":
        assert time.monotonic() < deadline
        statuses.append(seen(regen_mock, render)["status"])

    assert list(dict.fromkeys(statuses)) == ["queued", "pending", "processing", "completed"]


def test_the_same_requests_get_the_same_answers(regen_mock, clip):
    def ask() -> list:
        # Two renders at once, whose work nobody waits for.
        submit(regen_mock, clip, quality="true")
        render = submit(regen_mock, clip, target_fps="30")
        answers = [regen_mock.client.get("/v1/renders"), regen_mock.client.get(f"/v1/renders/{render['id']}")]
        return [(answer.json(), answer.headers["X-Request-ID"]) for answer in answers]

    first = ask()
    regen_mock.reset()
    assert ask() == first
    assert first[1][0]["render"]["createdAt"] == "2026-01-01T00:00:01.000Z"

    regen_mock.seed(seed=7, clock="2030-05-05T00:00:00Z")
    other = ask()
    assert other[1][0]["render"]["createdAt"] == "2030-05-05T00:00:01.000Z"
    assert other[1][0]["render"]["id"] != first[1][0]["render"]["id"]
    regen_mock.seed(seed=7, clock="2030-05-05T00:00:00Z")
    assert ask() == other


def test_a_reset_forgets_everything(regen_mock, clip):
    render = submit(regen_mock, clip)
    seen(regen_mock, render)
    regen_mock.faults({"action": {"latency_seconds": 0.01}})

    regen_mock.reset()

    assert regen_mock.client.get("/v1/renders").json() == {"renders": []}
    assert regen_mock.client.get("/v1/files").json() == {"files": []}
    assert regen_mock.client.get(f"/v1/renders/{render['id']}").status_code == 404
    assert regen_mock.rules == []


def test_waiting_renders_can_be_canceled_and_tried_again(regen_mock, clip):
    regen_mock.seed(transitions="polls:1")
    render = submit(regen_mock, clip)

    canceled = regen_mock.client.post(f"/v1/renders/{render['id']}/cancel").json()["render"]
    assert (canceled["status"], canceled["error"]) == ("failed", "Canceled")
    again = regen_mock.client.post(f"/v1/renders/{render['id']}/retry").json()["render"]
    assert again["retryOf"] == render["id"]
    assert [seen(regen_mock, again)["status"] for _look in range(4)][-1] == "completed"


def test_what_else_the_api_has(regen_mock, clip):
    client = regen_mock.client
    with clip.open("rb") as video:
        file_id = client.post("/v1/files", files={"file": video}).json()["file"]["id"]

    preview = client.post("/v1/previews", json={"file_id": file_id, "at_seconds": 1}).json()["preview"]
    preview = client.get(f"/v1/previews/{preview['id']}").json()["preview"]
    assert preview["status"] == "completed"
    for name in ("beforeURL", "afterURL"):
        assert httpx.get(preview[name]).content.startswith(b"\x89PNG")

    estimate = client.post("/v1/estimates", json={"file_id": file_id}).json()["estimate"]
    assert (estimate["measuredOn"], estimate["accepted"]) == (["Mock"], True)

    render = client.post("/v1/upscale", json={"file_id": file_id}).json()["render"]
    with client.stream("GET", f"/v1/renders/{render['id']}/events") as stream:
        assert any('"completed"' in line for line in stream.iter_lines())
    file_url = client.get(f"/v1/renders/{render['id']}").json()["render"]["inputFileURL"]
    fetched = client.post("/v1/upscale", json={"file_url": file_url}).json()["render"]
    assert fetched["input"]["width"] == 240
    used = client.get("/v1/usage", params={"from": "2026-01-01", "to": "2026-01-31"}).json()
    assert used["usage"]["totals"]["renders"] == 2
    admin = {"Authorization": "Bearer regen_mock_admin_key"}
    workers = client.get("/v1/workers", headers=admin).json()["workers"]
    assert [(worker["device"], worker["alive"]) for worker in workers] == [("mock", True)]


def test_an_upload_in_parts(regen_mock, clip):
    client, content = regen_mock.client, clip.read_bytes()
    asked = {"name": "clip.mp4", "size_bytes": len(content)}
    upload = client.post("/v1/uploads", json=asked).json()["upload"]
    parts = upload["parts"]
    etag = httpx.put(parts[0]["url"], content=content).headers["ETag"]

    answer = client.post(
        f"/v1/uploads/{upload['id']}/complete", json={"parts": [{"number": 1, "etag": etag}]}
    )

    assert answer.status_code == 200, answer.text
    render = client.post("/v1/upscale", json={"file_id": answer.json()["file"]["id"]}).json()["render"]
    assert seen(regen_mock, render)["status"] == "completed"


def test_twice_the_frames_of_interlaced_video(regen_mock, clip, tmp_path):
    render = seen(
        regen_mock,
        submit(regen_mock, clip, deinterlace="field", scale="1", strength="0.5", grain="1", stabilise="2"),
    )

    assert (render["status"], render["strength"], render["grain"], render["stabilise"]) == (
        "completed",
        0.5,
        1,
        2,
    )
    output = tmp_path / "output.mp4"
    output.write_bytes(httpx.get(render["outputFileURL"]).content)
    video = streams_of(output)["video"]
    assert (video["width"], video["avg_frame_rate"]) == (240, "50/1")
    assert int(video["nb_read_frames"]) == render["output"]["frames"] == 100
