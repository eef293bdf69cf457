import io
import json
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from app.files.tables import File
from app.platform.database import Database
from app.renders import queries as render_queries
from app.renders.tables import Render


def upload(client: httpx.Client, path: Path, **fields: str) -> httpx.Response:
    with path.open("rb") as file:
        return client.post("/v1/upscale", files={"file": (path.name, file)}, data=fields)


def test_an_uploaded_video_becomes_a_queued_render(
    client, clip, database: Database, spool_files, stored_files
):
    response = upload(client, clip)

    assert response.status_code == 200
    render = response.json()["render"]
    assert response.headers["Location"] == f"{client.base_url}/v1/renders/{render['id']}"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", render["createdAt"])
    facts = {"width": 240, "height": 136, "frameRate": 25, "durationSeconds": 2, "frames": 50}
    assert render | {"inputFileURL": "", "id": "", "userId": "", "createdAt": "", "fileId": ""} == {
        "id": "",
        "userId": "",
        "status": "queued",
        "createdAt": "",
        "queuePosition": 1,
        "inputFileURL": "",
        "engine": "regen-4x-lite",
        "fileId": "",
        "fileName": clip.name,
        "cost": 960 * 544 * 50 / 1e9,
        "progress": 0,
        "input": facts,
        "output": facts | {"width": 960, "height": 544},
    }
    with database.read() as session:
        assert session.get(Render, render["id"]).user_id == render["userId"]
        file = session.get(File, render["fileId"])
    assert (file.name, file.size_bytes) == (clip.name, clip.stat().st_size)
    assert spool_files() == []
    assert stored_files() == [file.storage_key]


def test_places_in_the_queue_are_counted_after_the_commit(client, clip, database: Database, monkeypatch):
    count, committed = render_queries.queue_positions, []

    def count_beside_a_writer(session, **asked):
        with database.write() as writer:  # which SQLite has one of
            committed.append(writer.scalar(select(func.count()).select_from(Render)))
        return count(session, **asked)

    monkeypatch.setattr(render_queries, "queue_positions", count_beside_a_writer)
    assert upload(client, clip).json()["render"]["queuePosition"] == 1
    assert committed == [1]


def test_the_input_comes_back_through_its_url(client, clip):
    render = upload(client, clip).json()["render"]

    response = client.get(render["inputFileURL"], headers={"Authorization": ""})

    assert response.content == clip.read_bytes()
    assert response.headers["Content-Type"] == "video/mp4"
    assert response.headers["Content-Disposition"] == f'attachment; filename="{clip.name}"'


@pytest.mark.parametrize(
    ("given", "rate", "sent", "on_the_wire"),
    [
        ("60", Fraction(60), 60, 60),
        ("23.976", Fraction(24000, 1001), 23.976, 24000 / 1001),
        ("23.98", Fraction(24000, 1001), 23.98, 24000 / 1001),
        ("30000/1001", Fraction(30000, 1001), 30000 / 1001, 30000 / 1001),
        ("12.5", Fraction(25, 2), 12.5, 12.5),
    ],
)
def test_target_fps_and_engine(client, clip, database: Database, given, rate, sent, on_the_wire):
    response = upload(client, clip, target_fps=given, engine="regen-4x")

    render = response.json()["render"]
    assert (render["targetFps"], render["engine"]) == (sent, "regen-4x")
    assert render["targetFpsExact"] == f"{rate.numerator}/{rate.denominator}"
    assert render["output"]["frameRate"] == on_the_wire
    assert render["output"]["frames"] == round(2 * rate)
    assert render["cost"] == 2 * 960 * 544 * round(2 * rate) / 1e9
    assert json.dumps(render["targetFps"]) == json.dumps(sent), "whole rates go out without a point"
    with database.read() as session:
        assert session.get(Render, render["id"]).target_fps == rate


def test_a_file_uploaded_before(client, clip):
    with clip.open("rb") as file:
        uploaded = client.post("/v1/files", files={"file": ("a clip.mp4", file)}).json()["file"]

    answers = [
        client.post("/v1/upscale", json={"file_id": uploaded["id"], "target_fps": 29.97}),
        client.post("/v1/upscale", json={"file_id": uploaded["id"], "target_fps": "29.97", "engine": None}),
        client.post("/v1/upscale", data={"file_id": uploaded["id"], "target_fps": "30000/1001"}),
        client.post("/v1/upscale", files={"file_id": (None, uploaded["id"]), "target_fps": (None, "29.97")}),
    ]

    assert [answer.status_code for answer in answers] == [200] * 4
    renders = [answer.json()["render"] for answer in answers]
    assert {render["fileId"] for render in renders} == {uploaded["id"]}
    assert [render["targetFps"] for render in renders] == [29.97, 29.97, 30000 / 1001, 29.97]
    assert {render["targetFpsExact"] for render in renders} == {"30000/1001"}
    assert [render["queuePosition"] for render in renders] == [1, 2, 3, 4]


def test_retime_and_quality(client, clip, database: Database):
    file_id = upload(client, clip).json()["render"]["fileId"]
    fields = {"file_id": file_id, "target_fps": "50", "retime": "motion", "quality": "true"}

    answers = [
        upload(client, clip, target_fps="50", retime="motion", quality="true"),
        upload(client, clip, target_fps="50", retime="motion", quality="True"),
        client.post("/v1/upscale", json=fields | {"quality": True}),
        client.post("/v1/upscale", json=fields),
        client.post("/v1/upscale", data=fields),
        client.post("/v1/upscale", files={name: (None, value) for name, value in fields.items()}),
    ]

    assert [answer.status_code for answer in answers] == [200] * 6
    for answer in answers:
        render = answer.json()["render"]
        assert render["retime"] == "motion"
        assert "quality" not in render, "it has not been measured yet"
        assert client.get(f"/v1/renders/{render['id']}").json()["render"].keys() == render.keys()
        with database.read() as session:
            row = session.get(Render, render["id"])
            assert (row.retime, row.measures_quality, row.quality) == ("motion", True, None)


def test_without_retime_and_quality_the_answer_is_as_ever(client, clip, database: Database):
    file_id = upload(client, clip).json()["render"]["fileId"]

    answers = [
        client.post("/v1/upscale", json={"file_id": file_id}),
        client.post("/v1/upscale", json={"file_id": file_id, "retime": None, "quality": None}),
        client.post("/v1/upscale", json={"file_id": file_id, "retime": "nearest", "quality": False}),
        client.post("/v1/upscale", data={"file_id": file_id, "retime": "nearest", "quality": "false"}),
    ]

    assert [answer.status_code for answer in answers] == [200] * 4
    for answer in answers:
        render = answer.json()["render"]
        assert not {"retime", "quality"} & render.keys()
        with database.read() as session:
            row = session.get(Render, render["id"])
            assert (row.retime, row.measures_quality) == ("nearest", False)


@pytest.mark.parametrize(
    "figures",
    [
        {"psnr": 41.5, "ssim": 0.98, "vmaf": 95.25, "temporalStability": 50, "frames": 24},
        {"psnr": 100, "ssim": 1, "frames": 1},
    ],
)
def test_measured_quality_is_shown(client, clip, database: Database, figures):
    render_id = upload(client, clip, quality="true").json()["render"]["id"]
    with database.write() as session:
        session.get(Render, render_id).quality = figures

    quality = client.get(f"/v1/renders/{render_id}").json()["render"]["quality"]

    assert quality == figures
    assert list(quality) == list(figures)
    assert json.dumps(quality["psnr"]) == json.dumps(figures["psnr"])


def test_fields_after_the_file_count_too(client, clip):
    parts = [
        ("file", ("clip.mp4", clip.read_bytes(), "video/mp4")),
        ("something", (None, "else")),
        ("target_fps", (None, "121")),
    ]

    response = client.post("/v1/upscale", files=parts)

    assert response.status_code == 400
    assert messages(response) == [f'{RATE}; received "121".']


def test_a_browser_form_with_an_empty_file_field_and_a_file_id(client, clip):
    file_id = upload(client, clip).json()["render"]["fileId"]

    response = client.post(
        "/v1/upscale",
        content=b'--b\r\nContent-Disposition: form-data; name="file"; filename=""\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n\r\n"
        b'--b\r\nContent-Disposition: form-data; name="file_id"\r\n\r\n'
        + file_id.encode()
        + b"\r\n--b--\r\n",
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    )

    assert response.status_code == 200
    assert response.json()["render"]["fileId"] == file_id


@pytest.mark.parametrize("engine", ["regen-4x", "regen-4x-lite"])
def test_a_file_part_without_a_file_name(client, clip, engine):
    body = (
        b'--b\r\nContent-Disposition: form-data; name="engine"\r\n\r\n' + engine.encode() + b"\r\n"
        b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + clip.read_bytes() + b"\r\n--b--\r\n"
    )

    response = client.post(
        "/v1/upscale", content=body, headers={"Content-Type": 'multipart/form-data; boundary="b"'}
    )

    assert response.status_code == 200
    assert response.json()["render"]["engine"] == engine


def messages(response) -> list[str]:
    body = response.json()
    assert list(body) == ["errors"]
    assert all(list(error) == ["message"] for error in body["errors"])
    return [error["message"] for error in body["errors"]]


RATE = "`target_fps` must be a number from 1 to 120, such as 24, 29.97 or 30000/1001"
ENGINE = '`engine` must be "regen-4x-lite", "regen-4x" or "regen-4x-anime"'
RETIME = '`retime` must be one of "nearest", "blend", "motion"'
QUALITY = "`quality` must be true or false"
NEITHER = "Exactly one of `file`, `file_id` and `file_url` is needed; given: none."
BOTH = 'Exactly one of `file`, `file_id` and `file_url` is needed; given: `file` and `file_id` "abc".'


class TestFaultyFields:
    @pytest.mark.parametrize("rate", ["0.5", "121", "NaN", "fast", "-24", "inf", "1e999", "24 fps"])
    def test_target_fps(self, client, clip, rate, stored_files, spool_files):
        response = upload(client, clip, target_fps=rate)

        assert (response.status_code, messages(response)) == (400, [f'{RATE}; received "{rate}".'])
        assert stored_files() == spool_files() == []

    @pytest.mark.parametrize("engine", ["regen-8x", "null", "REGEN-4X"])
    def test_engine(self, client, clip, engine):
        response = upload(client, clip, engine=engine)

        assert (response.status_code, messages(response)) == (400, [f'{ENGINE}; received "{engine}".'])

    @pytest.mark.parametrize("way", ["fast", "Motion", "nearest "])
    def test_retime(self, client, clip, way, stored_files):
        response = upload(client, clip, retime=way)

        assert (response.status_code, messages(response)) == (400, [f'{RETIME}; received "{way}".'])
        assert stored_files() == []

    @pytest.mark.parametrize("truth", ["yes", "2", "truee", "null"])
    def test_quality(self, client, clip, truth):
        for response in (
            upload(client, clip, quality=truth),
            client.post("/v1/upscale", json={"file_id": "a", "quality": truth}),
            client.post("/v1/upscale", data={"file_id": "a", "quality": truth}),
        ):
            assert (response.status_code, messages(response)) == (400, [f'{QUALITY}; received "{truth}".'])

    def test_both_file_and_file_id(self, client, clip, stored_files):
        response = upload(client, clip, file_id="abc")

        assert (response.status_code, messages(response)) == (400, [BOTH])
        assert stored_files() == []

    @pytest.mark.parametrize(
        "arguments",
        [
            {},
            {"json": {}},
            {"json": {"file_id": None}},
            {"data": {"colour": "red"}},
            {"files": {"colour": (None, "red")}},
        ],
    )
    def test_neither_file_nor_file_id(self, client, arguments):
        response = client.post("/v1/upscale", **arguments)

        assert (response.status_code, messages(response)) == (400, [NEITHER])

    def test_every_fault_has_its_message(self, client, clip):
        response = upload(client, clip, file_id="abc", target_fps="0.5", engine="x")

        assert (response.status_code, messages(response)) == (
            400,
            [BOTH, f'{ENGINE}; received "x".', f'{RATE}; received "0.5".'],
        )

    def test_wrong_types_in_json(self, client):
        fields = {"file_id": 7, "engine": ["regen-4x"], "target_fps": {"a": 1}, "retime": True, "quality": 1}

        response = client.post("/v1/upscale", json=fields)

        assert (response.status_code, messages(response)) == (
            400,
            [
                '`engine` must be a text; received ["regen-4x"].',
                "`file_id` must be a text; received 7.",
                "`quality` must be a truth value; received 1.",
                "`retime` must be a text; received true.",
                '`target_fps` must be a number; received {"a": 1}.',
            ],
        )

    @pytest.mark.parametrize(
        "content", [b"{", b"", b"\xff", b"[" * 60_000, b"nul", b'{"file_id": 1' + b"0" * 9999]
    )
    def test_bad_json(self, client, content):
        response = client.post("/v1/upscale", content=content, headers={"Content-Type": "application/json"})

        assert (response.status_code, messages(response)) == (400, ["The body is not valid JSON."])

    @pytest.mark.parametrize("content", [b"[]", b'"text"', b"7", b"NaN"])
    def test_json_that_is_no_object(self, client, content):
        response = client.post(
            "/v1/upscale", content=content, headers={"Content-Type": "application/json; charset=utf-8"}
        )

        assert (response.status_code, messages(response)) == (400, ["The JSON body must be an object."])

    def test_nan_in_json(self, client):
        response = client.post(
            "/v1/upscale",
            content=b'{"file_id": "a", "target_fps": NaN}',
            headers={"Content-Type": "application/json"},
        )

        assert (response.status_code, messages(response)) == (400, [f'{RATE}; received "NaN".'])

    def test_fields_given_twice(self, client):
        response = client.post(
            "/v1/upscale",
            content=b"file_id=a&file_id=b&engine=regen-4x&engine=regen-4x",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )

        assert (response.status_code, messages(response)) == (
            400,
            ["`file_id` is given more than once.", "`engine` is given more than once."],
        )

    def test_two_files(self, client, clip, spool_files):
        files = [("file", ("a.mp4", clip.read_bytes())), ("file", ("b.mp4", clip.read_bytes()))]

        response = client.post("/v1/upscale", files=files)

        assert (response.status_code, messages(response)) == (400, ["`file` is given more than once."])
        assert spool_files() == []

    def test_another_kind_of_body(self, client):
        response = client.post("/v1/upscale", content=b"<a/>", headers={"Content-Type": "text/xml"})

        assert response.status_code == 400
        assert messages(response)[0].startswith("The body must be multipart/form-data")

    def test_a_large_json_body(self, client):
        response = client.post("/v1/upscale", json={"file_id": "a" * 70_000})

        assert (response.status_code, messages(response)) == (
            413,
            ["A body without a file may have 64 KiB at most."],
        )


class TestBadFiles:
    """Each is refused with its status and a sentence, leaves nothing behind, and the next one is served."""

    @pytest.fixture(autouse=True)
    def nothing_is_left_and_the_server_goes_on(self, client, clip, stored_files, spool_files):
        yield
        assert stored_files() == spool_files() == []
        assert upload(client, clip).status_code == 200

    def refused(self, client, path: Path, status: int, **fields: str) -> str:
        for address in ("/v1/upscale", *([] if fields else ["/v1/files"])):
            with path.open("rb") as file:
                response = client.post(address, files={"file": ("video.mp4", file)}, data=fields)
            assert response.status_code == status, response.text
        (sentence,) = messages(response)
        assert re.fullmatch(r"[A-Z].{15,}\.", sentence)
        assert str(path.parent) not in sentence
        return sentence

    def test_an_empty_file(self, client, tmp_path):
        (tmp_path / "empty").touch()
        assert self.refused(client, tmp_path / "empty", 400) == "The uploaded file is empty."

    def test_a_text_file(self, client, tmp_path):
        (tmp_path / "text").write_text("not a video, but a text\n" * 50)
        self.refused(client, tmp_path / "text", 415)

    def test_an_image(self, client, ffmpeg):
        picture = ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x64", "-frames:v", "1", "picture.png")
        self.refused(client, picture, 415)

    def test_sound_alone(self, client, ffmpeg):
        self.refused(client, ffmpeg("-f", "lavfi", "-i", "sine", "-t", "1", "sound.m4a"), 415)

    def test_an_mp4_without_its_index(self, client, ffmpeg, clip):
        whole = ffmpeg("-i", str(clip), "-c", "copy", "whole.mp4")
        whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        self.refused(client, whole, 415)

    def test_a_playlist_that_names_a_neighbour(self, client, clip, tmp_path):
        (tmp_path / "list.mp4").write_text(
            f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{clip}\n#EXT-X-ENDLIST\n"
        )
        self.refused(client, tmp_path / "list.mp4", 415)

    def test_a_frame_bomb(self, client, ffmpeg):
        bomb = ffmpeg(
            *("-f", "lavfi", "-i", "testsrc=size=64x64:rate=1", "-frames:v", "2", "-vf", "setpts=N*3600/TB"),
            *("-fps_mode", "passthrough", "-c:v", "libx264", "bomb.mp4"),
        )
        assert "frames" in self.refused(client, bomb, 413, target_fps="120")

    def test_too_many_pixels(self, client, ffmpeg):
        large = ffmpeg("-f", "lavfi", "-i", "color=size=4096x2320", "-frames:v", "2", "large.mp4")
        assert "pixels" in self.refused(client, large, 413)

    def test_too_many_pixels_in_the_output(self, client, ffmpeg):
        large = ffmpeg("-f", "lavfi", "-i", "color=size=2560x1440", "-frames:v", "2", "large.mp4")
        assert "10240 x 5760" in self.refused(client, large, 413)


def test_a_foreign_file_id(client, clip, make_key: Callable[[str], str]):
    file_id = upload(client, clip).json()["render"]["fileId"]

    response = client.post(
        "/v1/upscale", json={"file_id": file_id}, headers={"Authorization": f"Bearer {make_key('bob')}"}
    )

    assert (response.status_code, messages(response)) == (404, ["File not found"])


def test_an_unknown_file_id(client):
    response = client.post("/v1/upscale", data={"file_id": "nope"})

    assert (response.status_code, messages(response)) == (404, ["File not found"])


@pytest.fixture
def small_uploads(settings):
    return settings.model_copy(update={"max_upload_bytes": 3 * 1024**2})


def test_an_upload_over_the_limit(serve, small_uploads, key, spool_files):
    client = serve(small_uploads, key=key)

    announced = client.post("/v1/upscale", files={"file": ("a.mp4", b"x" * (5 * 1024**2))})
    counted = client.post("/v1/upscale", files={"file": ("a.mp4", b"x" * (3 * 1024**2 + 1))})
    unannounced = client.post(
        "/v1/upscale",
        content=iter(
            [b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'] + [b"x" * 2**20] * 4
        ),
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    )
    fitting = client.post("/v1/upscale", files={"file": ("a.mp4", io.BytesIO(b"x" * (3 * 1024**2)))})

    for response in (announced, counted, unannounced):
        assert (response.status_code, messages(response)) == (
            413,
            ["The file is larger than the limit of 3 MiB."],
        )
    assert fitting.status_code == 415
    assert spool_files() == []
