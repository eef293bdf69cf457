"""Options of a render: what is accepted, shown, priced and refused, alike in renders and estimates."""

import json
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from app.platform.database import Database
from app.platform.media.codecs import OutputFormat
from app.renders.statuses import RenderStatus
from app.renders.tables import Render
from app.renders.transitions import cancel_overdue
from app.work.worker_queries import register

WHOLE = {"width": 240, "height": 136, "frameRate": 25, "durationSeconds": 2, "frames": 50}
ENLARGED = {"width": 960, "height": 544}


@pytest.fixture
def file_id(client: httpx.Client, clip: Path) -> str:
    with clip.open("rb") as file:
        answer = client.post("/v1/files", files={"file": file})
    return str(answer.json()["file"]["id"])


@pytest.mark.parametrize(
    ("fields", "shown", "seconds", "frames"),
    [
        ({"start": 0.5, "end": "1.5"}, {"start": 0.5, "end": 1.5}, 0.98, 25),
        ({"start": "00:00:01.2"}, {"start": 1.2}, 0.8, 20),
        ({"end": 0.1}, {"end": 0.1}, 0.1, 3),
        ({"start": 0, "end": "99"}, {"start": 0, "end": 99}, 2, 50),
        ({"start": "0:01", "target_fps": 50}, {"start": 1}, 1, 50),
    ],
)
def test_a_part(client: httpx.Client, file_id: str, fields, shown, seconds, frames):
    answers = [
        client.post(f"/v1/{route}", **{kind: {"file_id": file_id, **fields}})
        for route in ("upscale", "estimates")
        for kind in ("json", "data")
    ]

    assert [answer.status_code for answer in answers] == [200] * 4, answers[0].text
    for answer in answers:
        ((_, body),) = answer.json().items()
        assert {name: body[name] for name in ("start", "end") if name in body} == shown
        assert body["output"] == {
            **ENLARGED,
            "frameRate": fields.get("target_fps", 25),
            "durationSeconds": seconds,
            "frames": frames,
        }
        assert body["input"] == {**WHOLE, "durationSeconds": seconds, "frames": round(25 * seconds + 0.1)}
        assert body["cost"] == 960 * 544 * frames / 1e9
    first = answers[0].json()["render"]
    assert client.get(f"/v1/renders/{first['id']}").json()["render"]["input"] == first["input"]


@pytest.mark.parametrize(
    ("fields", "width", "height", "name"),
    [
        ({"scale": 1}, 240, 136, "1x"),
        ({"scale": "3"}, 720, 408, "3x"),
        ({"max_width": 480}, 480, 272, "480x272"),
        ({"max_width": "500", "max_height": 201}, 352, 200, "352x200"),
        ({"max_height": 4000}, 960, 544, "960x544"),
    ],
)
def test_another_size(client: httpx.Client, file_id: str, database: Database, fields, width, height, name):
    bodies = []
    for route in ("upscale", "estimates"):
        ((_, body),) = client.post(f"/v1/{route}", json={"file_id": file_id, **fields}).json().items()
        bodies.append(body)
        assert body["output"] == {**WHOLE, "width": width, "height": height}
        assert body["input"] == WHOLE
        assert body["cost"] == width * height * 50 / 1e9
    given = {"maxWidth": "max_width", "maxHeight": "max_height", "scale": "scale"}
    assert {shown: bodies[0].get(shown) for shown in given} == {
        shown: int(fields[field]) if field in fields else None for shown, field in given.items()
    }
    with database.write() as session:
        render = session.get_one(Render, bodies[0]["id"])
        render.status, render.output_key = RenderStatus.COMPLETED, "renders/x/output-1.mp4"
    assert f"-{name}.mp4" in client.get(f"/v1/renders/{bodies[0]['id']}").json()["render"]["outputFileURL"]


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"strength": "0.25"}, {"strength": 0.25}),
        ({"strength": 0}, {"strength": 0}),
        ({"strength": "1.0"}, {}),
        ({"grain": "0.5"}, {"grain": 0.5}),
        ({"grain": 0}, {}),
        ({"stabilise": "3"}, {"stabilise": 3}),
        ({"stabilise": 0}, {}),
        ({"deinterlace": "off"}, {"deinterlace": "off"}),
        ({"deinterlace": "auto"}, {}),
    ],
)
def test_another_look(client: httpx.Client, file_id: str, fields, shown):
    names = ("strength", "grain", "stabilise", "deinterlace")
    plain = client.post("/v1/estimates", json={"file_id": file_id}).json()["estimate"]
    for route in ("upscale", "estimates"):
        ((_, body),) = client.post(f"/v1/{route}", json={"file_id": file_id, **fields}).json().items()
        assert {name: body[name] for name in names if name in body} == shown
        assert {name: body[name] for name in ("input", "output", "cost")} == {
            name: plain[name] for name in ("input", "output", "cost")
        }
    types = {"deinterlace": str, "stabilise": int}
    asked = {name: types.get(name, float)(value) for name, value in fields.items()}
    preview = client.post("/v1/previews", json={"file_id": file_id, "scale": 2, **asked}).json()["preview"]
    assert {name: preview[name] for name in names if name in preview} == shown
    assert preview["scale"] == 2


def test_a_preview_may_be_bounded(client: httpx.Client, file_id: str):
    box = {"max_width": 480, "max_height": 480}
    shown = client.post("/v1/previews", json={"file_id": file_id, **box}).json()["preview"]
    assert (shown["maxWidth"], shown["maxHeight"], "scale" in shown) == (480, 480, False)
    both = client.post("/v1/previews", json={"file_id": file_id, "scale": 2, **box})
    assert both.status_code == 400 and "cannot be given together" in both.text


@pytest.mark.parametrize(
    ("fields", "frames", "rate"),
    [({}, 50, 25), ({"target_fps": 50}, 100, 50), ({"start": 0.5, "end": 1}, 12, 25)],
)
def test_a_films_frames_are_what_is_upscaled(client: httpx.Client, file_id: str, fields, frames, rate):
    """Of 25 frames a second, which are a film's own."""
    asked = {"file_id": file_id, "deinterlace": "detelecine", **fields}
    for route in ("upscale", "estimates"):
        ((_, body),) = client.post(f"/v1/{route}", json=asked).json().items()
        assert (body["output"]["frames"], body["output"]["frameRate"]) == (frames, rate)
        assert body["cost"] == 960 * 544 * frames / 1e9
        assert body["deinterlace"] == "detelecine"


@pytest.mark.parametrize(
    ("fields", "frames", "rate"),
    [({}, 100, 50), ({"target_fps": 25}, 50, 25), ({"start": 0.5, "end": 1}, 25, 50)],
)
def test_each_field_becomes_a_frame(client: httpx.Client, file_id: str, fields, frames, rate):
    asked = {"file_id": file_id, "deinterlace": "field", **fields}
    for route in ("upscale", "estimates"):
        ((_, body),) = client.post(f"/v1/{route}", json=asked).json().items()
        assert (body["output"]["frames"], body["output"]["frameRate"]) == (frames, rate)
        assert body["input"]["frameRate"] == 25
        assert body["cost"] == 960 * 544 * frames / 1e9
        assert body["deinterlace"] == "field"


@pytest.mark.parametrize(
    ("fields", "shown", "suffix"),
    [
        ({"codec": "AV1"}, {"codec": "av1"}, ".mp4"),
        ({"container": "webm"}, {"container": "webm", "codec": "vp9"}, ".webm"),
        (
            {"container": ".mkv", "output_quality": "small"},
            {"container": "mkv", "outputQuality": "small"},
            ".mkv",
        ),
        ({"codec": "prores"}, {"codec": "prores"}, ".mov"),
    ],
)
def test_another_format(client: httpx.Client, file_id: str, database: Database, fields, shown, suffix):
    names = ("codec", "container", "outputQuality")
    for route in ("upscale", "estimates"):
        ((_, body),) = client.post(f"/v1/{route}", json={"file_id": file_id, **fields}).json().items()
        assert {name: body[name] for name in names if name in body} == shown
        if route == "upscale":
            with database.write() as session:
                render = session.get_one(Render, body["id"])
                form = OutputFormat(codec=render.codec, container=render.container)
                assert form.file.suffix == suffix
                render.status, render.output_key = RenderStatus.COMPLETED, f"renders/x/output-1{suffix}"
            answer = client.get(f"/v1/renders/{body['id']}").json()["render"]
            assert f"-4x{suffix}" in answer["outputFileURL"]


def test_a_codec_that_no_worker_encodes(client: httpx.Client, file_id: str, database: Database):
    with database.write() as session:
        facts = {"host": "a", "pid": 1, "device": "cpu", "queues": "cpu,gpu", "engines": [], "version": "1"}
        register(session, name="a", facts={**facts, "lacked_codecs": ["av1"]})
    answer = client.post("/v1/upscale", json={"file_id": file_id, "codec": "av1"})
    assert answer.status_code == 400
    assert "can encode `codec` av1 at present: their ffmpeg lacks libsvtav1" in answer.text
    assert client.post("/v1/upscale", json={"file_id": file_id, "codec": "vp9"}).status_code == 200


def test_a_target_that_no_worker_can_search_for(client: httpx.Client, file_id: str, database: Database):
    asked = {"file_id": file_id, "output_quality": "VMAF=95.0"}
    facts = {"host": "a", "pid": 1, "device": "cpu", "queues": "cpu,gpu", "engines": [], "version": "1"}
    with database.write() as session:
        register(session, name="a", facts=facts)
        register(session, name="b", facts={**facts, "queues": "cpu", "measures_vmaf": True})
    for route in ("upscale", "estimates"):
        answer = client.post(f"/v1/{route}", json=asked)
        assert answer.status_code == 400
        assert "can search for `output_quality` vmaf=95 at present: their ffmpeg lacks libvmaf" in answer.text
    assert client.post("/v1/upscale", json={"file_id": file_id, "output_quality": "high"}).status_code == 200


def test_a_target_without_any_workers(client: httpx.Client, file_id: str):
    """Nothing is known to be lacking."""
    asked = {"file_id": file_id, "output_quality": " VMAF = 92.50 "}
    assert client.post("/v1/upscale", json=asked).status_code == 400
    asked["output_quality"] = " VMAF = 92.5 "
    render = client.post("/v1/upscale", json=asked).json()["render"]
    assert render["outputQuality"] == "vmaf=92.5" and "encodedQuality" not in render


def test_a_target_that_one_of_the_workers_can_search_for(
    client: httpx.Client, file_id: str, database: Database
):
    facts = {"host": "a", "pid": 1, "device": "cpu", "queues": "cpu,gpu", "engines": [], "version": "1"}
    with database.write() as session:
        register(session, name="a", facts=facts)
        register(session, name="b", facts={**facts, "measures_vmaf": True})
    answer = client.post("/v1/upscale", json={"file_id": file_id, "output_quality": "vmaf=95"})
    assert answer.status_code == 200


LAST = "There is no video from {}: it lasts from 0 s to 2 s."
FACTS = (
    "`metadata` must be a JSON object of at most 20 texts, with names of at most 40 and texts of at most 500 "
    "characters"
)
VMAF = (
    "`output_quality` must be lossless, high, medium, small, or a target such as `vmaf=95`, from 70 to 99 with at most "
    "one decimal;"
)
ORDER = "`end` must be later than `start`, which is 0 by default."


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"start": "2"}, LAST.format("2 s to the end")),
        ({"start": "1:39:00", "end": "1:39:01"}, LAST.format("5940 s to 5941 s")),
        ({"start": 1, "end": 1}, ORDER),
        ({"end": 0}, ORDER),
        (
            {"start": "1:2:3:4"},
            '`start` must be seconds, such as 83.5, or a time, such as 00:01:23.500; received "1:2:3:4".',
        ),
        (
            {"end": "-1"},
            '`end` must be seconds, such as 83.5, or a time, such as 00:01:23.500; received "-1".',
        ),
        ({"scale": "5"}, '`scale` must be 1, 2, 3 or 4; received "5".'),
        (
            {"scale": 2, "max_width": 100},
            "`scale` and `max_width` cannot be given together: each decides the output's size.",
        ),
        (
            {"codec": "prores", "container": "mp4"},
            "`container` mp4 cannot hold `codec` prores: mp4 holds h264, hevc, av1 and vp9, and prores goes into mkv "
            "or mov.",
        ),
        (
            {"codec": "av1", "output_quality": "lossless"},
            "`output_quality` lossless is not for `codec` av1, which has high, medium and small; lossless goes with "
            "h264, hevc, ffv1 or vp9.",
        ),
        (
            {"codec": "prores", "output_quality": "vmaf=95"},
            "`output_quality` vmaf=95 is not for `codec` prores, which has high, medium and small; a target goes with "
            "h264, hevc, av1 or vp9.",
        ),
        ({"output_quality": "vmaf=69.9"}, VMAF + ' received "vmaf=69.9".'),
        ({"output_quality": "vmaf=99.5"}, VMAF + ' received "vmaf=99.5".'),
        ({"output_quality": "95"}, VMAF + ' received "95".'),
        (
            {"output_quality": "vmaf=90", "max_height": 32},
            "`output_quality` vmaf=90 needs an output from 33x33 on, of which VMAF can be measured; this one would "
            "have 56x32.",
        ),
        (
            {"codec": "divx"},
            '`codec` must be h264, hevc, av1, prores, ffv1 or vp9; received "divx".',
        ),
        (
            {"codec": "av1", "max_height": 60},
            "AV1 needs an output from 64x64 to 16384x8704; this one would have 106x60. Choose another `codec` or size.",
        ),
        ({"max_height": "1"}, '`max_height` must be a whole number of pixels from 2 to 16384; received "1".'),
        ({"strength": "1.01"}, '`strength` must be a number from 0 to 1; received "1.01".'),
        ({"stabilise": "4"}, '`stabilise` must be a whole number from 0 to 3; received "4".'),
        ({"stabilise": "1.5"}, '`stabilise` must be a whole number from 0 to 3; received "1.5".'),
        ({"grain": "-0.1"}, '`grain` must be a number from 0 to 1; received "-0.1".'),
        ({"strength": "nan"}, '`strength` must be a number from 0 to 1; received "nan".'),
        (
            {"deinterlace": "both"},
            '`deinterlace` must be one of "auto", "off", "frame", "field", "detelecine"; received "both".',
        ),
        (
            {"cancel_after": "0"},
            '`cancel_after` must be a whole number of seconds from 1 to 2592000; received "0".',
        ),
        ({"metadata": '{"a": 1}'}, FACTS + '; received "{\\"a\\": 1}".'),
        ({"metadata": '["a"]'}, FACTS + '; received "[\\"a\\"]".'),
        ({"metadata": '{"a": "\\u0000"}'}, FACTS + '; received "{\\"a\\": \\"\\\\u0000\\"}".'),
    ],
)
def test_what_is_refused(client: httpx.Client, clip: Path, file_id: str, fields, sentence, stored_files):
    stored = stored_files()
    with clip.open("rb") as file:
        answers = [
            client.post("/v1/upscale", json={"file_id": file_id, **fields}),
            client.post("/v1/estimates", json={"file_id": file_id, **fields}),
            client.post("/v1/upscale", files={"file": file}, data=fields),
        ]
    for answer in answers:
        assert (answer.status_code, answer.json()) == (400, {"errors": [{"message": sentence}]})
    assert stored_files() == stored


def test_a_retried_render_has_the_same_options(client: httpx.Client, file_id: str, database: Database):
    asked = {
        "file_id": file_id,
        "start": 0.4,
        "end": 1.2,
        "max_width": 300,
        "strength": 0.5,
        "grain": 0.25,
        "stabilise": 1,
        "deinterlace": "field",
    }
    render = client.post("/v1/upscale", json=asked).json()["render"]
    with database.write() as session:
        session.get_one(Render, render["id"]).status = RenderStatus.FAILED

    again = client.post(f"/v1/renders/{render['id']}/retry").json()["render"]

    for name in (
        "maxWidth",
        "strength",
        "grain",
        "stabilise",
        "deinterlace",
        "start",
        "end",
        "input",
        "cost",
    ):
        assert again[name] == render[name]


def test_metadata_comes_back(client: httpx.Client, file_id: str):
    facts = {"order": "A-17", "ключ": "日本 \U0001f3ac", "empty": ""}
    text = json.dumps(facts)
    answers = [
        client.post("/v1/upscale", json={"file_id": file_id, "metadata": facts}),
        client.post("/v1/upscale", json={"file_id": file_id, "metadata": text}),
        client.post("/v1/upscale", data={"file_id": file_id, "metadata": text}),
        client.post("/v1/upscale", files={"file_id": (None, file_id), "metadata": (None, text)}),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        render = answer.json()["render"]
        assert render["metadata"] == facts
        assert client.get(f"/v1/renders/{render['id']}").json()["render"]["metadata"] == facts
    refused = client.post("/v1/upscale", json={"file_id": file_id, "metadata": {"n": 1}})
    assert refused.status_code == 400


def test_a_render_that_is_not_done_in_time_is_canceled(
    client: httpx.Client, file_id: str, database: Database
):
    late, early, done, none = (
        client.post("/v1/upscale", json={"file_id": file_id, **fields}).json()["render"]["id"]
        for fields in ({"cancel_after": 60}, {"cancel_after": 3600}, {"cancel_after": 60}, {})
    )
    with database.write() as session:
        for render_id in (late, done):
            session.get_one(Render, render_id).cancel_at -= timedelta(minutes=2)
        session.get_one(Render, done).status = RenderStatus.COMPLETED

    assert cancel_overdue(database) == [late]
    assert cancel_overdue(database) == []

    shown = {one: client.get(f"/v1/renders/{one}").json()["render"] for one in (late, early, done, none)}
    assert [render["status"] for render in shown.values()] == ["failed", "queued", "completed", "queued"]
    assert shown[late]["error"] == "Canceled: it was not done within 60 seconds."
    assert shown[early]["cancelAfter"] == 3600
    again = client.post(f"/v1/renders/{late}/retry").json()["render"]
    assert (again["status"], again["cancelAfter"]) == ("queued", 60)
