"""POST /v1/estimates."""

import json
from fractions import Fraction

import pytest
from sqlalchemy import func, select, update

from app.accounts import service as account_service
from app.accounts.scopes import Scope
from app.accounts.tables import User
from app.files.tables import File
from app.platform.database import Database
from app.platform.secrets import Secrets
from app.renders.tables import Render
from app.work.ledger import WorkLedger
from app.work.speeds import note_search, note_segment
from worker.registration import Registration

FRAME = 240 * 136
KNOWN = {"input", "output", "cost"}


def estimate_of(answer) -> dict:
    assert answer.status_code == 200, answer.text
    return answer.json()["estimate"]


@pytest.fixture
def file_id(client, clip) -> str:
    with clip.open("rb") as body:
        return client.post("/v1/files", files={"file": (clip.name, body)}).json()["file"]["id"]


def counts(database: Database) -> tuple[int, int]:
    with database.read() as session:
        return tuple(session.scalar(select(func.count()).select_from(table)) for table in (File, Render))


def test_an_estimate_is_what_the_render_will_be(client, clip, database, spool_files, stored_files):
    fields = {
        "engine": "regen-4x",
        "target_fps": "59.94",
        "retime": "motion",
        "webhook_url": "https://a.test/",
    }
    with clip.open("rb") as body:
        estimate = estimate_of(client.post("/v1/estimates", files={"file": (clip.name, body)}, data=fields))
    assert (counts(database), spool_files(), stored_files()) == ((0, 0), [], [])
    with clip.open("rb") as body:
        answer = client.post("/v1/upscale", files={"file": (clip.name, body)}, data=fields)
    render = answer.json()["render"]
    same = {
        name: render[name] for name in ("engine", "targetFps", "targetFpsExact", "cost", "input", "output")
    }
    assert (render["targetFps"], render["targetFpsExact"]) == (59.94, "60000/1001")
    suggested = estimate.pop("suggestedEngine")["engine"]
    assert (estimate, suggested) == (same | {"accepted": True, "refusals": []}, "regen-4x")
    again = client.post("/v1/estimates", json={"file_id": render["fileId"], **fields, "target_fps": 59.94})
    estimate_again = estimate_of(again)
    assert estimate_again.pop("suggestedEngine")["engine"] == suggested
    assert estimate_again == estimate
    assert counts(database) == (1, 1)


def test_limits_refuse_with_the_sentences_of_an_upscale(client, serve, settings, key, clip, file_id):
    tight = {"max_output_pixels": 100, "max_output_frames": 60, "max_queued_renders_per_user": 0}
    strict = serve(settings.model_copy(update=tight), key=key)
    fields = {"file_id": file_id, "target_fps": 50}
    refused = strict.post("/v1/upscale", json=fields)
    assert refused.status_code == 413
    sentences = [fault["message"] for fault in refused.json()["errors"]]
    estimate = estimate_of(strict.post("/v1/estimates", json=fields))
    assert estimate["accepted"] is False
    assert estimate["refusals"][:2] == sentences
    assert estimate["refusals"][2].startswith("0 renders are queued; at most 0 may be.")
    assert estimate.keys() > KNOWN

    # Beyond a limit on inputs an upload is read on for a while; with frames that are too large it is not.
    for limit, what, known in (
        ({"max_duration_seconds": 1}, "lasts", KNOWN),
        ({"max_input_pixels": 1000}, "240 x 136", set()),
    ):
        strict = serve(settings.model_copy(update=limit), key=key)
        with clip.open("rb") as body:
            refused = strict.post("/v1/upscale", files={"file": body})
            body.seek(0)
            estimate = estimate_of(strict.post("/v1/estimates", files={"file": body}))
        assert refused.status_code == 413
        assert what in refused.json()["errors"][0]["message"]
        assert not estimate["accepted"]
        assert [what in sentence for sentence in estimate["refusals"]] == [True]
        assert estimate.keys() & KNOWN == known


def test_a_users_own_limits_count(client, database, clip):
    with database.write() as session:
        session.execute(
            update(User).values(
                limits={"max_storage_bytes": 1, "max_cost_per_month": 0.001, "max_duration_seconds": 1}
            )
        )
    with clip.open("rb") as body:
        estimate = estimate_of(client.post("/v1/estimates", files={"file": body}))
    assert not estimate["accepted"]
    assert [
        any(words in sentence for sentence in estimate["refusals"])
        for words in ("lasts", "bytes in storage", "allowed in a month")
    ] == [True] * 3
    assert estimate.keys() > KNOWN


def test_what_is_no_request_is_refused(client, clip, file_id):
    def upload(content: bytes, **fields: str) -> int:
        return client.post("/v1/estimates", files={"file": ("a.mp4", content)}, data=fields).status_code

    assert upload(b"not a video" * 100) == 415
    assert upload(b"") == 400
    assert upload(clip.read_bytes(), file_id=file_id) == 400
    answer = client.post("/v1/estimates", json={"file_id": file_id, "engine": "none", "target_fps": 500})
    assert (answer.status_code, len(answer.json()["errors"])) == (400, 2)
    assert client.post("/v1/estimates").status_code == 400
    missing = client.post("/v1/estimates", json={"file_id": "unknown"})
    assert (missing.status_code, missing.json()) == (404, {"errors": [{"message": "File not found"}]})


def test_it_only_reads(client, database, settings, file_id, make_key):
    with database.write() as session:
        key = account_service.create_key(
            session, user_name="ann", key_name="reader", keys=Secrets.load(settings), scopes=[Scope.READ]
        ).key
    headers = {"Authorization": f"Bearer {key}"}
    assert estimate_of(client.post("/v1/estimates", json={"file_id": file_id}, headers=headers))["accepted"]
    headers = {"Authorization": f"Bearer {make_key('bob')}"}
    assert client.post("/v1/estimates", json={"file_id": file_id}, headers=headers).status_code == 404


def test_an_estimate_counts_the_frames_around_segments(serve, settings, key, database, clip):
    client = serve(settings.model_copy(update={"segment_seconds": Fraction(1)}), key=key)
    with clip.open("rb") as body:
        answer = client.post("/v1/files", files={"file": (clip.name, body)})
    ledger = WorkLedger(database=database, worker="gpu", lease_seconds=30, max_attempts=3)
    Registration(ledger, device="cuda:0", device_name="H200").beat()
    note_segment(database, device="H200", engine="regen-4x-lite", pixels=5 * FRAME, seconds=1)
    asked = {"file_id": answer.json()["file"]["id"], "stabilise": 1}
    # Fifty frames in two segments, each with two frames of the other; five a second.
    assert estimate_of(client.post("/v1/estimates", json=asked))["expectedSeconds"] == 10.8


def test_an_estimate_counts_stabilising_and_the_search_for_a_target(
    serve, settings, key, database, clip, monkeypatch
):
    monkeypatch.setattr("app.estimates.forecasts.FRESH_SECONDS", 0.0)
    monkeypatch.setattr("app.estimates.forecasts.REST_FACTOR", 0.0)
    client = serve(settings.model_copy(update={"segment_seconds": Fraction(1)}), key=key)
    with clip.open("rb") as body:
        file_id = client.post("/v1/files", files={"file": (clip.name, body)}).json()["file"]["id"]

    def times(**fields: object) -> tuple[float, float]:
        estimate = estimate_of(client.post("/v1/estimates", json={"file_id": file_id, **fields}))
        return estimate["expectedSeconds"], estimate["waitSeconds"]

    ledger = WorkLedger(database=database, worker="gpu", lease_seconds=30, max_attempts=3)
    Registration(ledger, device="cuda:0", device_name="H200").beat()
    engine, target = "regen-4x-lite", "vmaf=95"
    # While nothing else is known, a stabilised segment tells of the engine as well.
    note_segment(database, device="H200", engine=engine, pixels=2 * FRAME, seconds=1, is_stabilised=True)
    assert times()[0] == 25
    note_segment(database, device="H200", engine=engine, pixels=5 * FRAME, seconds=1)
    note_segment(database, device="H200", engine=engine, pixels=2 * FRAME, seconds=1, is_stabilised=True)
    # Fifty frames in two segments; each two of the other's, and the first of another three if it is measured.
    assert times() == (10, 0)
    assert times(stabilise=1) == (27, 0)
    assert times(stabilise=1, quality=True) == (27.5, 0)
    assert times(output_quality=target) == (10, 0)
    # Of output frames, which have sixteen times the pixels: the search takes longer than the network, by the codec.
    note_search(database, device="H200", codec="h264", pixels=4 * 16 * FRAME, seconds=1)
    note_search(database, device="H200", codec="av1", pixels=50 * 16 * FRAME, seconds=1)
    # Two searches of 6.25 s, after a first turn of 5 s; two turns, and a search of half a second after the last.
    assert times(output_quality=target) == (17.5, 0)
    assert times(output_quality=target, codec="av1") == (10.5, 0)
    assert times(output_quality=target, codec="vp9") == (10, 0)
    assert times(output_quality=target, stabilise=1) == (33.2, 0)
    assert times(output_quality="high") == (10, 0)

    def eta(**fields: object) -> float:
        submitted = client.post("/v1/upscale", json={"file_id": file_id, **fields}).json()["render"]
        seconds: float = client.get(f"/v1/renders/{submitted['id']}").json()["render"]["etaSeconds"]
        return seconds

    def forget() -> None:
        for render in client.get("/v1/renders").json()["renders"]:
            client.post(f"/v1/renders/{render['id']}/cancel")

    # A render takes as long as its estimate said, with those before it.
    assert eta(stabilise=1, quality=True) == 27.5
    assert times(stabilise=1) == (27, 25)
    assert eta(output_quality=target) == 25 + 17.5
    forget()
    assert eta() == 10
    assert times(output_quality=target) == (17.5, 10)
    # A second worker takes the other segment, with its search.
    second = WorkLedger(database=database, worker="gpu 2", lease_seconds=30, max_attempts=3)
    Registration(second, device="cuda:1", device_name="H200").beat()
    assert times(output_quality=target)[0] == 11.2


def test_times_follow_from_measured_speeds_and_the_queue(
    serve, settings, key, client, database, file_id, monkeypatch
):
    monkeypatch.setattr("app.estimates.forecasts.FRESH_SECONDS", 0.0)
    monkeypatch.setattr("app.estimates.forecasts.REST_FACTOR", 0.0)
    client = serve(settings, key=key)

    def times(**fields: object) -> tuple[object, ...]:
        estimate = estimate_of(client.post("/v1/estimates", json={"file_id": file_id, **fields}))
        return tuple(estimate.get(name) for name in ("expectedSeconds", "waitSeconds", "measuredOn"))

    assert times() == (None, None, None)
    ledger = WorkLedger(database=database, worker="gpu", lease_seconds=30, max_attempts=3)
    Registration(ledger, device="cuda:0", device_name="H200").beat()
    note_segment(database, device="H200", engine="regen-4x-lite", pixels=5 * FRAME, seconds=1)
    # Fifty frames, five a second.
    assert times() == (10, 0, ["H200"])
    assert times(target_fps=50) == (10, 0, ["H200"])
    assert times(target_fps=50, retime="blend") == (20, 0, ["H200"])
    assert times(engine="regen-4x") == (None, None, None)
    render = client.post("/v1/upscale", json={"file_id": file_id}).json()["render"]
    assert times() == (10, 10, ["H200"])
    assert times(priority=1) == (10, 0, ["H200"])
    for shown in (
        client.get(f"/v1/renders/{render['id']}").json()["render"],
        client.get("/v1/renders").json()["renders"][0],
    ):
        assert shown["etaSeconds"] == 10
    with client.stream("GET", f"/v1/renders/{render['id']}/events") as response:
        told = next(line for line in response.iter_lines() if line.startswith("data: "))
    assert json.loads(told.removeprefix("data: "))["etaSeconds"] == 10
    client.post(f"/v1/renders/{render['id']}/cancel")
    assert "etaSeconds" not in client.get(f"/v1/renders/{render['id']}").json()["render"]
