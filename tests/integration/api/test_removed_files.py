"""What clients see of files that were removed by age."""

from datetime import UTC, datetime

import pytest

from app.files.tables import File
from app.renders.statuses import RenderStatus
from app.renders.tables import Render

FIRST, SECOND = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC), datetime(2026, 2, 3, tzinfo=UTC)
URLS = {"inputFileURL", "outputFileURL", "thumbnailURL"}


@pytest.fixture
def completed(client, clip, database) -> dict:
    with clip.open("rb") as body:
        render = client.post("/v1/upscale", files={"file": ("clip.mp4", body)}).json()["render"]
    with database.write() as session:
        row = session.get_one(Render, render["id"])
        row.status, row.completed_at = RenderStatus.COMPLETED, datetime.now(UTC)
        row.output_key, row.thumbnail_key = "renders/x/output-1.mp4", "renders/x/thumbnail-1.jpg"
    return render


@pytest.mark.parametrize(
    ("results_removed_at", "input_removed_at", "urls", "said"),
    [
        (None, None, URLS, None),
        (FIRST, None, {"inputFileURL"}, "2026-01-02T03:04:05.678Z"),
        (None, SECOND, URLS - {"inputFileURL"}, "2026-02-03T00:00:00.000Z"),
        (SECOND, FIRST, set(), "2026-01-02T03:04:05.678Z"),
    ],
)
def test_a_render_shows_no_url_of_what_is_gone(
    client, completed, database, results_removed_at, input_removed_at, urls, said
):
    with database.write() as session:
        session.get_one(Render, completed["id"]).files_removed_at = results_removed_at
        session.get_one(File, completed["fileId"]).removed_at = input_removed_at
    render = client.get(f"/v1/renders/{completed['id']}").json()["render"]
    assert URLS & render.keys() == urls
    assert render.get("filesRemovedAt") == said
    assert (render["status"], render["fileId"]) == ("completed", completed["fileId"])


def test_a_removed_file_is_not_found(client, completed, database):
    with database.write() as session:
        session.get_one(File, completed["fileId"]).removed_at = FIRST
    for answer in (
        client.post("/v1/upscale", json={"file_id": completed["fileId"]}),
        client.get(f"/v1/files/{completed['fileId']}"),
    ):
        assert (answer.status_code, answer.json()) == (404, {"errors": [{"message": "File not found"}]})
    assert client.get(f"/v1/renders/{completed['id']}").status_code == 200


@pytest.mark.parametrize("given", [5, "5", "+5", -100, "100", 1.0, "1.0", "-3.00"])
def test_a_priority_is_kept_and_shown(client, completed, given):
    answer = client.post("/v1/upscale", json={"file_id": completed["fileId"], "priority": given})
    assert answer.status_code == 200
    render = answer.json()["render"]
    assert render["priority"] == float(given)
    assert client.get(f"/v1/renders/{render['id']}").json()["render"]["priority"] == float(given)


@pytest.mark.parametrize("given", ["0", "", " "])
def test_the_usual_priority_is_left_out(client, completed, clip, given):
    assert "priority" not in completed
    with clip.open("rb") as body:
        answer = client.post("/v1/upscale", files={"file": ("c.mp4", body)}, data={"priority": given})
    assert answer.status_code == 200 and "priority" not in answer.json()["render"]


@pytest.mark.parametrize("given", [101, -101, 1.5, "1.", ".0", "100.5", "high", True, [1], "٣", "1e1"])
def test_other_priorities_are_refused(client, completed, given):
    answer = client.post("/v1/upscale", json={"file_id": completed["fileId"], "priority": given})
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert "`priority`" in error["message"]
