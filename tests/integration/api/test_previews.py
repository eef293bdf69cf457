import re
import threading
import time
from fractions import Fraction

import httpx
import pytest

from app.platform.media.rectangles import Area
from app.previews.service import PreviewLedger

NOT_FOUND = {"errors": [{"message": "Preview not found"}]}


@pytest.fixture
def file_id(client, clip):
    with clip.open("rb") as content:
        return client.post("/v1/files", files={"file": (clip.name, content)}).json()["file"]["id"]


@pytest.fixture
def ledger(database):
    return PreviewLedger(database=database, worker="worker-1", lease_seconds=30, max_attempts=3)


def create(client: httpx.Client, file_id: str, **fields):
    headers = fields.pop("headers", {})
    return client.post("/v1/previews", json={"file_id": file_id, **fields}, headers=headers)


def messages(response: httpx.Response) -> list[str]:
    return [error["message"] for error in response.json()["errors"]]


def complete(ledger: PreviewLedger, storage_dir, crop: Area | None = None) -> str:
    """Be the worker that makes the next one. Returns its id."""
    job = ledger.claim()
    assert job is not None
    preview_id = job.claim.preview_id
    keys = {f"{side}_key": f"previews/{preview_id}/{side}-1.png" for side in ("before", "after")}
    for key in keys.values():
        path = storage_dir / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(key.encode())
    ledger.completed(job.claim, crop=crop or job.crop, warnings=["A warning."], **keys)
    return preview_id


def test_from_question_to_answer(client, file_id, ledger, settings):
    crop = {"x": 3, "y": 5, "width": 101, "height": 77}
    ignored = "`Crop_width` is not a field of this request and was ignored: did you mean `crop_width`?"
    response = create(
        client,
        file_id,
        at_seconds=0.28,
        crop=crop,
        engine="regen-4x",
        Crop_width="ignored",
        crop_width="",
        x="",
    )

    assert response.status_code == 200
    preview = response.json()["preview"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", preview.pop("createdAt"))
    assert preview.pop("expiresAt") > "2026"
    assert preview == {
        "id": preview["id"], "status": "queued", "fileId": file_id, "engine": "regen-4x", "atSeconds": 0.28,
        "crop": crop, "wholeFrame": False, "warnings": [ignored],
    }  # fmt: skip
    assert response.headers["Location"].endswith(f"/v1/previews/{preview['id']}")
    assert "Preference-Applied" not in response.headers

    job = ledger.claim()
    assert (job.at_seconds, job.crop) == (Fraction(7, 25), Area(**crop))
    assert client.get(response.headers["Location"]).json()["preview"]["status"] == "processing"
    ledger.hand_back(job.claim)
    complete(ledger, settings.storage_dir)
    done = client.get(response.headers["Location"]).json()["preview"]
    assert (done["status"], done["warnings"], done["crop"]) == ("completed", [ignored, "A warning."], crop)
    assert httpx.get(done["beforeURL"]).content == f"previews/{preview['id']}/before-1.png".encode()
    after = httpx.get(done["afterURL"])
    assert after.content == f"previews/{preview['id']}/after-1.png".encode()
    assert "bunny-240x136-25fps-4x.png" in after.headers["Content-Disposition"]


def test_what_the_server_chooses(client, file_id, ledger, settings):
    chosen, whole, failed = (create(client, file_id).json()["preview"] for _ in range(3))
    assert not {"crop", "wholeFrame"} & chosen.keys()
    crop = Area(x=40, y=46, width=160, height=44)
    assert complete(ledger, settings.storage_dir, crop) == chosen["id"]
    assert complete(ledger, settings.storage_dir) == whole["id"]
    for _attempt in range(3):
        job = ledger.claim()
        ledger.failed(job.claim, RuntimeError("anything"))
        with ledger._database.write() as session:
            session.connection().exec_driver_sql("UPDATE previews SET retry_at = NULL")

    first, second, third = (
        client.get(f"/v1/previews/{preview['id']}").json()["preview"] for preview in (chosen, whole, failed)
    )
    assert first["crop"] == {"x": 40, "y": 46, "width": 160, "height": 44}
    assert (first["wholeFrame"], second["wholeFrame"], "crop" in second) == (False, True, False)
    assert (third["status"], third["error"]) == (
        "failed",
        "The preview could not be made: it failed 3 times.",
    )
    assert not {"beforeURL", "afterURL"} & third.keys()


FAULTS = [
    ({"at_seconds": 2.001}, "`at_seconds` is after the video's end: it lasts 2 seconds."),
    ({"at_seconds": 1e9}, "`at_seconds` is after the video's end: it lasts 2 seconds."),
    (
        {"at_seconds": -0.1},
        "`at_seconds` is not valid: Input should be greater than or equal to 0; received -0.1.",
    ),
    ({"at_seconds": "1"}, '`at_seconds` is not valid: Input should be a valid number; received "1".'),
    (
        {"engine": "other"},
        '`engine` must be "regen-4x-lite", "regen-4x" or "regen-4x-anime"; received "other".',
    ),
    ({"crop_width": 10}, "`crop_width` and `crop_height` are needed together."),
    (
        {"crop_width": 241, "crop_height": 10},
        "`crop_width` and `crop_height` are more than the frame's 240 x 136 pixels.",
    ),
    (
        {"crop": {"x": 0, "y": 0, "width": 8, "height": 8}, "crop_width": 8, "crop_height": 8},
        "Either `crop`, or `crop_width` and `crop_height`: not both.",
    ),
    (
        {"crop": {"x": 200, "y": 0, "width": 41, "height": 8}},
        "`crop` must lie within the frame, which is 240 x 136 pixels.",
    ),
    ({"crop": {"x": 0, "y": 0, "width": 8}}, "`crop.height` is required."),
]


def test_faults(client, file_id):
    for fields, expected in FAULTS:
        response = create(client, file_id, **fields)
        assert (response.status_code, messages(response)) == (400, [expected])
    # The end itself shows the last frame.
    assert create(client, file_id, at_seconds=2).status_code == 200
    preview = create(client, file_id, crop_width=160, crop_height=90).json()["preview"]
    assert preview["crop"] == {"x": 40, "y": 23, "width": 160, "height": 90}


def test_a_result_that_is_too_large(serve, settings, key, file_id):
    client = serve(settings.model_copy(update={"max_output_pixels": 240 * 136 * 16 - 1}), key=key)

    assert create(client, file_id, crop_width=239, crop_height=136).status_code == 200
    refused = create(client, file_id, crop_width=240, crop_height=136)
    assert refused.status_code == 413
    assert "Choose a smaller `crop`" in messages(refused)[0]


def test_what_is_not_the_users_own(client, file_id, make_key, ledger, settings):
    preview = create(client, file_id).json()["preview"]
    client.headers["Authorization"] = f"Bearer {make_key('eve')}"

    for response in (
        client.get(f"/v1/previews/{preview['id']}", headers={"Prefer": "wait=20"}),
        client.delete(f"/v1/previews/{preview['id']}"),
        client.get("/v1/previews/no%00pe"),
    ):
        assert (response.status_code, response.json()) == (404, NOT_FOUND)
    assert messages(create(client, file_id)) == ["File not found"]
    assert client.get("/v1/previews").json() == {"previews": []}


def test_lists_come_in_pages_and_only_so_many_may_wait(client, file_id, ledger, settings):
    made = [create(client, file_id).json()["preview"]["id"] for _ in range(4)]

    first = client.get("/v1/previews?limit=3").json()
    assert [preview["id"] for preview in first["previews"]] == made[:0:-1]
    second = client.get("/v1/previews", params={"cursor": first["nextCursor"]}).json()
    assert [preview["id"] for preview in second["previews"]] == made[:1]
    assert "nextCursor" not in second

    refused = create(client, file_id)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
    assert client.delete(f"/v1/previews/{made[1]}").status_code == 204
    assert create(client, file_id).status_code == 200
    assert create(client, file_id).status_code == 429
    complete(ledger, settings.storage_dir)
    assert create(client, file_id).status_code == 200


def test_the_same_request_makes_one(client, file_id):
    headers = {"Idempotency-Key": "a moment"}
    first = create(client, file_id, at_seconds=1, headers=headers)
    again = create(client, file_id, at_seconds=1, headers=headers)

    assert again.json() == first.json()
    assert again.headers["Idempotent-Replayed"] == "true"
    assert create(client, file_id, at_seconds=1.04, headers=headers).status_code == 409
    assert len(client.get("/v1/previews").json()["previews"]) == 1


def test_a_file_stays_while_its_preview_waits(client, file_id, ledger, settings):
    preview = create(client, file_id).json()["preview"]

    refused = client.delete(f"/v1/files/{file_id}")
    assert (refused.status_code, "preview" in messages(refused)[0]) == (409, True)
    complete(ledger, settings.storage_dir)
    assert client.delete(f"/v1/files/{file_id}").status_code == 204
    assert httpx.get(client.get(f"/v1/previews/{preview['id']}").json()["preview"]["afterURL"]).is_success


def test_deleted_with_its_images(client, file_id, ledger, settings, stored_files):
    done = create(client, file_id).json()["preview"]["id"]
    complete(ledger, settings.storage_dir)
    in_hand = create(client, file_id).json()["preview"]["id"]
    job = ledger.claim()
    assert job.claim.preview_id == in_hand

    for preview_id in (done, in_hand):
        assert client.delete(f"/v1/previews/{preview_id}").status_code == 204
        assert client.get(f"/v1/previews/{preview_id}").json() == NOT_FOUND
    assert not [name for name in stored_files() if name.startswith("previews/")]
    assert not ledger.renew(job.claim)


class TestHeldAnswers:
    def test_until_it_has_ended(self, client, file_id, ledger, settings):
        made = create(client, file_id, headers={"Prefer": "respond-async, wait=0"})
        assert made.json()["preview"]["status"] == "queued"
        began = threading.Event()

        def work() -> None:
            began.set()
            time.sleep(0.5)
            complete(ledger, settings.storage_dir)

        worker = threading.Thread(target=work)
        worker.start()
        began.wait()
        held = client.get(made.headers["Location"], headers={"Prefer": 'Wait="25"; a=b'})
        worker.join()
        assert held.json()["preview"]["status"] == "completed"
        assert held.headers["Preference-Applied"] == "wait=25"
        at_once = client.get(made.headers["Location"], headers={"Prefer": "wait=500"})
        assert at_once.headers["Preference-Applied"] == "wait=30"

    def test_until_the_time_is_over(self, client, file_id):
        began = time.monotonic()
        made = create(client, file_id, headers={"Prefer": "wait=1"})

        assert made.json()["preview"]["status"] == "queued"
        assert made.headers["Preference-Applied"] == "wait=1"
        assert time.monotonic() - began >= 1

    def test_what_cannot_be_understood_is_let_be(self, client, file_id):
        address = create(client, file_id).headers["Location"]
        for prefer in ("wait=soon", "wait", "wait=-1", "waiting=5", 'x="wait=5', "wait=1.5"):
            answer = client.get(address, headers={"Prefer": prefer})
            assert (answer.status_code, answer.json()["preview"]["status"]) == (200, "queued")
            assert "Preference-Applied" not in answer.headers

    def test_many_hold_nothing_up(self, client, file_id):
        """More than there are threads or connections."""
        address = create(client, file_id).headers["Location"]
        answers: list[httpx.Response] = []

        def wait_for_it() -> None:
            with httpx.Client(headers=client.headers, timeout=60) as own:
                answers.append(own.get(address, headers={"Prefer": "wait=30"}))

        waiting = [threading.Thread(target=wait_for_it) for _ in range(60)]
        for thread in waiting:
            thread.start()
        time.sleep(1)
        # All others are answered meanwhile; and this ends the wait.
        assert client.get("/v1/engines").status_code == 200
        assert answers == []
        assert client.delete(address).status_code == 204
        for thread in waiting:
            thread.join(60)
        assert len(answers) == 60
        for answer in answers:
            # It ends before its images go, and is gone after them: who looks in between is told why.
            if answer.status_code == 200:
                preview = answer.json()["preview"]
                assert (preview["status"], preview["error"]) == ("failed", "Canceled")
            else:
                assert (answer.status_code, answer.json()) == (404, NOT_FOUND)
