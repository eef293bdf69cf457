import re
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from app.platform.secrets import Secrets
from app.platform.storage import open_storage
from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment


@pytest.fixture
def queued(client: httpx.Client, clip) -> dict:
    with clip.open("rb") as file:
        return client.post(
            "/v1/upscale",
            files={"file": ("holiday.of.2023.MP4", file)},
            data={"target_fps": "23.976"},
            headers={"X-Request-ID": "of-the-upload"},
        ).json()["render"]


@pytest.fixture
def change(database, queued):
    def apply(**values) -> None:
        with database.write() as session:
            render = session.get(Render, queued["id"])
            for name, value in values.items():
                setattr(render, name, value)

    return apply


def fetch(client: httpx.Client, render: dict) -> dict:
    response = client.get(f"/v1/renders/{render['id']}")
    assert response.status_code == 200
    assert list(response.json()) == ["render"]
    assert client.get(f"/renders/{render['id']}").json()["render"].keys() == response.json()["render"].keys()
    return response.json()["render"]


def test_queued(client, queued):
    render = fetch(client, queued)

    assert render.keys() == queued.keys()
    assert render | {"inputFileURL": ""} == queued | {"inputFileURL": ""}
    assert render["queuePosition"] == 1


def test_queued_for_a_while_without_a_worker(client, queued, change, database):
    change(created_at=datetime.now(UTC) - timedelta(seconds=11), warnings=["Its own."])
    missing = "No worker is running, so renders wait until one is started."
    assert fetch(client, queued)["warnings"] == ["Its own.", missing]
    change(status=RenderStatus.FAILED, error="It failed.")
    assert fetch(client, queued)["warnings"] == ["Its own."]


@pytest.mark.parametrize("status", [RenderStatus.PENDING, RenderStatus.PROCESSING])
def test_at_work(client, queued, change, database, status):
    change(status=status)
    with database.write() as session:
        session.add(
            Segment(
                id="s", render_id=queued["id"], position=0, status=SegmentStatus.RUNNING, plan="{}",
                created_at=datetime.now(UTC), frames=40, frames_done=10,
            )
        )  # fmt: skip

    render = fetch(client, queued)

    assert (render["status"], render["progress"]) == (status.value, 0.25)
    assert render.keys() == queued.keys() - {"queuePosition"}


def test_completed(client, queued, change, database, settings, tmp_path, clip):
    storage = open_storage(settings, Secrets.load(settings))
    (tmp_path / "output").write_bytes(b"video")
    (tmp_path / "thumbnail").write_bytes(b"picture")
    storage.put_file("renders/r/output-1.mp4", tmp_path / "output", content_type="video/mp4")
    storage.put_file("renders/r/thumbnail-1.jpg", tmp_path / "thumbnail", content_type="image/jpeg")
    change(
        status=RenderStatus.COMPLETED,
        completed_at=datetime(2023, 4, 1, 12, 34, 56, 789_999, UTC),
        output_key="renders/r/output-1.mp4",
        thumbnail_key="renders/r/thumbnail-1.jpg",
        output_frames=48,
        output_duration_seconds=Fraction(1001, 500),
        warnings=["The file was cut off."],
    )

    render = fetch(client, queued)

    assert (render["status"], render["progress"]) == ("completed", 1)
    assert render["completedAt"] == "2023-04-01T12:34:56.789Z"
    assert render["warnings"] == ["The file was cut off."]
    assert render["output"] == {
        "width": 960, "height": 544, "frameRate": 24000 / 1001, "durationSeconds": 2.002, "frames": 48,
    }  # fmt: skip
    assert render.keys() - queued.keys() == {"completedAt", "outputFileURL", "thumbnailURL", "warnings"}
    for name, content, content_type, file_name in (
        ("inputFileURL", clip.read_bytes(), "video/mp4", "holiday.of.2023.MP4"),
        ("outputFileURL", b"video", "video/mp4", "holiday.of.2023-4x.mp4"),
        ("thumbnailURL", b"picture", "image/jpeg", "holiday.of.2023-4x.jpg"),
    ):
        response = httpx.get(render[name])
        assert response.content == content
        assert response.headers["Content-Type"].startswith(content_type)
        assert response.headers["Content-Disposition"] == f'attachment; filename="{file_name}"'


def test_failed(client, queued, change):
    change(status=RenderStatus.FAILED, error="The video is damaged.")

    render = fetch(client, queued)

    assert (render["status"], render["error"]) == ("failed", "The video is damaged.")
    assert render.keys() - queued.keys() == {"error", "requestId"}
    assert render["requestId"] == "of-the-upload"


def test_urls_are_signed_afresh_for_24_hours(client, queued):
    before = datetime.now(UTC).timestamp()
    render = fetch(client, queued)

    expires = int(parse_qs(urlsplit(render["inputFileURL"]).query)["expires"][0])
    assert before + 24 * 3600 - 1 <= expires <= datetime.now(UTC).timestamp() + 24 * 3600


def test_urls_name_the_address_of_the_request(client, queued):
    render = client.get(f"/v1/renders/{queued['id']}", headers={"Host": "regen.example:8080"}).json()[
        "render"
    ]

    assert render["inputFileURL"].startswith("http://regen.example:8080/storage/")


def test_a_bad_host_does_no_harm(client, queued):
    for host in ("a b", "[::1", "x:99999999", "<script>", "a@b"):
        response = client.get(f"/v1/renders/{queued['id']}", headers={"Host": host})

        assert response.status_code == 200
        assert httpx.get(response.json()["render"]["inputFileURL"]).status_code == 200


def test_urls_name_the_public_address(serve, settings, key, queued):
    behind_proxy = serve(settings.model_copy(update={"public_url": "https://regen.example/api/"}), key=key)

    render = behind_proxy.get(f"/v1/renders/{queued['id']}").json()["render"]
    created = behind_proxy.post("/v1/upscale", json={"file_id": queued["fileId"]})

    assert render["inputFileURL"].startswith("https://regen.example/api/storage/")
    assert re.fullmatch(r"https://regen\.example/api/v1/renders/\w+", created.headers["Location"])


def test_places_in_the_queue_move_up(client, queued, change):
    second = client.post("/v1/upscale", json={"file_id": queued["fileId"]}).json()["render"]
    assert second["queuePosition"] == 2
    change(status=RenderStatus.PENDING)

    assert fetch(client, second)["queuePosition"] == 1


def test_unknown(client):
    for render_id in ("nope", "a" * 5000, "%00", "..%2F..%2Fsecret", "é", "' OR 1=1 --"):
        response = client.get(f"/v1/renders/{render_id}")

        assert response.status_code == 404
        assert len(response.json()["errors"]) == 1
