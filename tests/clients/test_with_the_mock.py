"""regen_client against the mock and its faults, by both of its clients."""

import asyncio
import io
import threading
from pathlib import Path

import httpx
import pytest
from PIL import Image
from regen_client import ApiError, AsyncRegen, NoAnswer, Regen, RegenError, RenderFailed, WaitTimeout

from tests.servers.process import wait_until
from tests.servers.receiver import receiving

pytestmark = pytest.mark.slow

SYNC = pytest.mark.parametrize("regen", ["sync"], indirect=True)


def asked(regen_mock, method: str, path: str = "") -> list[dict]:
    return [one for one in regen_mock.requests if one["method"] == method and one["path"].startswith(path)]


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestFromVideoToResult:
    def test_all_of_it(self, regen, regen_mock, clip, tmp_path):
        seen = []
        options = {"target_fps": "30000/1001", "metadata": {"order": "A-17"}, "end": 1}
        estimate = regen.estimate(clip, **options)
        render = regen.upscale(clip, **options, quality=True, on_progress=seen.append)
        assert (render.status, render.ended, render.metadata) == ("queued", False, {"order": "A-17"})
        render = regen.wait(render, timeout=60, on_progress=seen.append)
        path = regen.download(render, tmp_path / "out.mp4", on_progress=seen.append)

        assert (render.output.width, render.output.frames, estimate.output.frames) == (960, 30, 30)
        assert render.created_at.tzinfo and render.raw["quality"]["frames"]
        assert path.read_bytes() == httpx.get(render.output_file_url).content
        assert left_in(tmp_path) == ["out.mp4"]
        stages = {one.stage: one for one in seen}
        assert [(one.done, one.total) for one in stages.values()] == [
            (clip.stat().st_size, clip.stat().st_size),
            (30, 30),
            (path.stat().st_size, path.stat().st_size),
        ]
        assert len({one["headers"]["idempotency-key"] for one in asked(regen_mock, "POST")}) == 2

        again = regen.upscale(render.file_id, engine="regen-4x", option_of_tomorrow=1)
        assert [one.id for one in regen.list_renders(limit=5)] == [again.id, render.id]
        assert regen.list_renders(engine="regen-4x", limit=1)[0].warnings
        assert (
            regen.download(render.id, tmp_path / "t.jpg", result="thumbnail").read_bytes()[:2] == b"\xff\xd8"
        )

    @SYNC
    def test_what_there_is_beside_renders(self, regen, clip):
        file = regen.upload(clip)
        assert (file.name, file.size_bytes, file.width) == (clip.name, clip.stat().st_size, 240)
        picture = Image.open(io.BytesIO(regen.get_frame(file, 1.2)))
        assert (picture.format, picture.width) == ("JPEG", 240)
        assert picture.width / picture.height == pytest.approx(16 / 9, abs=0.01)  # as displayed
        preview = regen.preview(file, 1.2, crop={"x": 8, "y": 8, "width": 64, "height": 36})
        assert (preview.status, preview.file_id, preview.crop["width"]) == ("completed", file.id, 64)
        assert [one.id for one in regen.engines() if one.default] == ["regen-4x-lite"]
        assert regen.usage().totals.storage_bytes >= clip.stat().st_size


@SYNC
class TestRefused:
    def test_messages_and_the_requests_id(self, regen, regen_mock):
        with pytest.raises(ApiError, match="target_fps") as refused:
            regen.upscale("abc123", target_fps=500, engine="regen-8x")
        assert refused.value.status == 400 and len(refused.value.messages) == 2 and refused.value.request_id
        with pytest.raises(ApiError, match="404"):
            regen.get_render("none")
        assert len(regen_mock.requests) == 2

    def test_a_render_that_failed(self, regen, regen_mock, clip):
        regen_mock.faults(
            {"route": "POST /v1/upscale", "times": 1, "action": {"render": {"fail": "The film tore."}}}
        )
        with pytest.raises(RenderFailed, match="The film tore") as failed:
            regen.wait(regen.upscale(clip))
        assert regen.wait(regen.retry(failed.value.render)).retry_of == failed.value.render.id
        regen_mock.faults({"route": "POST *", "times": 1, "action": {"render": {"stuck_in": "queued"}}})
        stuck = regen.upscale(clip)
        with pytest.raises(WaitTimeout):
            regen.wait(stuck, timeout=0.1)
        assert regen.cancel(stuck).status == "failed"


def test_a_result_that_its_destination_refuses_is_sent_to_another(regen, regen_mock, clip):
    def ended(render):
        wait_until(
            lambda: regen.get_render(render).destination["status"] in ("delivered", "failed"),
            seconds=30,
            what="the result is sent",
        )
        return regen.get_render(render).destination

    with receiving() as receiver:
        receiver.answer = lambda _put: 403
        render = regen.wait(regen.upscale(clip, destination=receiver.url))
        assert ended(render)["message"] == "It answered 403."
        receiver.answer = lambda put: 200 if put.path == "/other" else 403
        assert regen.deliver(render).destination["status"] == "pending"
        assert ended(render)["status"] == "failed"
        regen.deliver(render.id, destination=receiver.url.replace("/hook", "/other"))
        assert ended(render)["status"] == "delivered"
        assert [put.path for put in receiver.received] == ["/hook", "/hook", "/other"]
        assert receiver.received[-1].body == httpx.get(render.output_file_url).content


class TestTriedAgain:
    def test_503_twice_and_a_lost_answer_make_one_render(self, regen, regen_mock, clip):
        answer = {"status": 503, "headers": {"Retry-After": "0.02"}}
        regen_mock.faults(
            {"route": "POST /v1/upscale", "times": 2, "action": answer},
            {"route": "POST /v1/upscale", "times": 1, "action": {"cut": "after"}},
        )
        render = regen.upscale(clip)
        assert [one.id for one in regen.list_renders()] == [render.id]
        sent = asked(regen_mock, "POST")
        assert len(sent) == 4 and len({one["headers"]["idempotency-key"] for one in sent}) == 1

    @SYNC
    def test_not_for_ever(self, regen, regen_mock):
        regen_mock.faults({"route": "GET /v1/engines", "times": 4, "action": {"status": 429}})
        with pytest.raises(ApiError, match="429"):
            regen.engines()
        assert len(regen_mock.requests) == 4
        long = {"status": 503, "headers": {"Retry-After": "3600"}}
        regen_mock.faults({"route": "GET /v1/engines", "times": 1, "action": long})
        with pytest.raises(ApiError) as refused:
            regen.engines()
        assert refused.value.retry_after == 3600 and len(regen_mock.requests) == 5

    def test_a_server_that_is_not_there(self):
        told = []
        with (
            Regen("http://127.0.0.1:9", "key", retries=1, on_retry=told.append) as client,
            pytest.raises(NoAnswer),
        ):
            client.engines()
        assert [type(error) for error in told] == [NoAnswer]


class TestDownloads:
    @pytest.fixture
    def made(self, regen_mock, clip):
        with Regen(regen_mock.url, regen_mock.key) as client:
            return client.wait(client.upscale(clip))

    # The stall lasts until the client leaves, however slow the machine is.
    @pytest.mark.parametrize("timeout", [1.0])
    def test_one_that_stalls_goes_on_where_it_stopped(self, regen, regen_mock, made, tmp_path):
        stall = {"stall_after_bytes": 200_000, "stall_seconds": 600}
        regen_mock.faults({"route": "GET /storage/*", "times": 1, "action": {"download": stall}})
        path = regen.download(made, tmp_path / "out.mp4")
        assert path.read_bytes() == httpx.get(made.output_file_url).content
        first, second = (one["headers"] for one in asked(regen_mock, "GET", "/storage")[:2])
        assert first["range"] == "bytes=0-" and "if-range" not in first
        assert second["range"] == "bytes=200000-" and second["if-range"]

    def test_one_that_breaks_off_is_not_in_place_and_goes_on_another_day(
        self, regen, regen_mock, made, tmp_path
    ):
        whole = httpx.get(made.output_file_url)
        cut = {"route": "GET /storage/*", "times": 1, "action": {"cut": "mid-body"}}
        regen_mock.faults(cut)
        with Regen(regen_mock.url, regen_mock.key, retries=0) as other, pytest.raises(NoAnswer):
            other.download(made, tmp_path / "out.mp4")
        (rest,) = tmp_path.iterdir()
        assert rest.name.endswith(".part") and 0 < rest.stat().st_size < len(whole.content)
        regen_mock.faults({"route": "GET /v1/renders/*", "times": 1, "action": {"expired_urls": True}})
        assert regen.download(made, tmp_path / "out.mp4").read_bytes() == whole.content
        assert asked(regen_mock, "GET", "/storage")[-1]["headers"]["range"] != "bytes=0-"

        # A file that has changed since; and one that is complete but was not put in place.
        other = tmp_path / ".new.mp4.%22other%22.part"
        other.write_bytes(b"of another file")
        assert regen.download(made, tmp_path / "new.mp4").read_bytes() == whole.content
        (tmp_path / "new.mp4").rename(tmp_path / rest.name.replace("out", "late"))
        assert regen.download(made, tmp_path / "late.mp4").read_bytes() == whole.content
        assert left_in(tmp_path) == ["late.mp4", "out.mp4"]

    def test_of_a_long_name_and_beside_another_long_name(self, regen, regen_mock, made, tmp_path):
        """Whose unfinished files are not each other's."""
        names = [f"{'long ' * 40}{number}.mp4" for number in (1, 2)]
        cut = {"route": "GET /storage/*", "times": 1, "action": {"cut": "mid-body"}}
        regen_mock.faults(cut)
        with Regen(regen_mock.url, regen_mock.key, retries=0) as other, pytest.raises(NoAnswer):
            other.download(made, tmp_path / names[0])
        (rest,) = tmp_path.iterdir()
        regen.download(made, tmp_path / names[1])
        assert left_in(tmp_path) == sorted([rest.name, names[1]])
        regen.download(made, tmp_path / names[0])
        assert left_in(tmp_path) == names
        assert asked(regen_mock, "GET", "/storage")[-1]["headers"]["range"] != "bytes=0-"


class TestWaiting:
    @pytest.mark.parametrize("action", [{"status": 404}, {"cut": "before"}, None])
    def test_with_events_and_without(self, regen, regen_mock, clip, action):
        if action:
            regen_mock.seed(transitions="polls:1")
        else:
            regen_mock.seed(transitions="seconds:0.3", clock=None)
        if action:
            regen_mock.faults({"route": "GET /v1/renders/*/events", "action": action})
        seen = []
        assert regen.wait(regen.upscale(clip), timeout=30, on_progress=seen.append).status == "completed"
        assert seen[-1].status == "completed"
        # By the clock, a slow machine may miss the first.
        assert not action or seen[0].status == "queued"
        if action is None:
            assert len(asked(regen_mock, "GET")) == 3  # the render, its events, the render


class TestEvents:
    def test_until_the_end_over_streams_that_break_off(self, regen, regen_mock, clip):
        regen_mock.seed(transitions="seconds:60")
        route = "GET /v1/renders/*/events"
        regen_mock.faults(
            {"route": route, "times": 1, "action": {"cut": "before"}},
            {"route": route, "times": 1, "action": {"cut": "mid-body"}},
            {"route": route, "times": 1, "action": {"status": 503}},
        )
        render = regen.upscale(clip)
        seen = []
        for event in regen.events(render):
            seen.append(event)
            regen_mock.advance(60)
        assert {one.id for one in seen} == {render.id}
        assert list(dict.fromkeys(one.status for one in seen)) == ["queued", "pending", "processing"]
        assert (seen[0].queue_position, seen[-1].frames) == (1, 50)
        assert regen.get_render(render).status == "completed"
        assert len(asked(regen_mock, "GET", f"/v1/renders/{render.id}/events")) == 4

    def test_a_reader_that_leaves_early_and_a_render_that_is_not_there(self, regen, regen_mock, clip):
        regen_mock.faults({"route": "POST *", "times": 1, "action": {"render": {"stuck_in": "queued"}}})
        events = regen.events(regen.upscale(clip))
        assert next(events).status == "queued"
        events.close()
        with pytest.raises(ApiError, match="404"):
            next(regen.events("none"))


def test_a_large_video_in_parts_which_goes_on_later(regen_mock, clip, tmp_path):
    video = tmp_path / "large.mp4"
    content = clip.read_bytes()
    padding = 33 * 1024 * 1024 - len(content)
    box = padding.to_bytes(4) + b"free"
    video.write_bytes(content + box)
    with video.open("r+b") as file:
        file.truncate(len(content) + padding)  # three parts
    refused = {"route": "PUT *", "after": 1, "times": 1, "action": {"status": 400}}
    regen_mock.faults(refused)
    with (
        Regen(regen_mock.url, regen_mock.key, parts_at_once=1) as other,
        pytest.raises(ApiError, match="400"),
    ):
        other.upload(video)
    assert [one["status"] for one in asked(regen_mock, "PUT")] == [200, 400]

    # Of the same name and size, and another one all the same: what arrived of the first is not taken for it.
    with video.open("r+b") as file:
        file.seek(len(content) + 100)
        file.write(b"changed")
    regen_mock.faults({"route": "PUT *", "times": 1, "action": {"cut": "before"}})
    seen, threads = [], set()

    def note(progress):
        seen.append(progress.done)
        threads.add(threading.get_ident())

    async def upload():
        client = AsyncRegen(regen_mock.url, regen_mock.key)
        uploaded = await client.upload(video, on_progress=note)
        await client.close()
        return uploaded

    uploaded = asyncio.run(upload())
    assert (uploaded.size_bytes, uploaded.width) == (33 * 1024 * 1024, 240)
    assert len(asked(regen_mock, "PUT")) == 2 + 4
    assert seen[-1] == uploaded.size_bytes and len(threads) == 1
    render_input = regen_mock.client.post("/v1/upscale", json={"file_id": uploaded.id}).json()["render"]
    url = regen_mock.client.get(f"/v1/renders/{render_input['id']}").json()["render"]["inputFileURL"]
    assert httpx.get(url).content == video.read_bytes()


@pytest.fixture
def padded(clip, tmp_path):
    """Makes a video of 9 MiB, which is sent in parts, with a mark of its own in its padding."""

    def make(folder: str, mark: bytes) -> Path:
        path = tmp_path / folder / "clip.mp4"
        path.parent.mkdir()
        content = clip.read_bytes()
        padding = 9 * 1024 * 1024 - len(content)
        path.write_bytes(content + padding.to_bytes(4) + b"free" + mark + bytes(padding - 8 - len(mark)))
        return path

    return make


def content_of(regen_mock, file) -> bytes:
    render = regen_mock.client.post("/v1/upscale", json={"file_id": file.id}).json()["render"]
    render = regen_mock.client.get(f"/v1/renders/{render['id']}").json()["render"]
    return httpx.get(render["inputFileURL"]).content


class TestUploadsOfTheSameNameAndSize:
    def test_none_takes_the_upload_of_another_one(self, regen_mock, padded):
        videos = [padded("one", b"1"), padded("two", b"2"), padded("three", b"3")]
        asked_for = {"name": "clip.mp4", "size_bytes": videos[0].stat().st_size}
        regen_mock.client.post("/v1/uploads", json=asked_for).raise_for_status()

        async def upload() -> list:
            async with AsyncRegen(regen_mock.url, regen_mock.key) as client:
                return await asyncio.gather(*map(client.upload, videos))

        files = asyncio.run(upload())
        assert [content_of(regen_mock, one) for one in files] == [one.read_bytes() for one in videos]
        opened = [one for one in asked(regen_mock, "POST") if one["path"] == "/v1/uploads"]
        assert len(opened) == 3, "the one that was open is taken by one of them"

    @SYNC
    @pytest.mark.parametrize(
        ("route", "status"), [("PUT *", 409), ("PUT *", 404), ("POST /v1/uploads/*/complete", 400)]
    )
    def test_another_program_took_the_upload(self, regen, regen_mock, padded, route, status):
        regen_mock.faults({"route": route, "times": 1, "action": {"status": status}})
        file = regen.upload(video := padded("one", b"1"))
        assert content_of(regen_mock, file) == video.read_bytes()
        regen_mock.faults({"route": route, "action": {"status": status}})
        with pytest.raises(ApiError, match=str(status)):
            regen.upload(padded("two", b"2"))

    @SYNC
    def test_one_that_changes_meanwhile_is_refused(self, regen, regen_mock, padded):
        video = padded("one", b"1")

        def change(_progress) -> None:
            with video.open("r+b") as file:
                file.write(b"changed")

        with pytest.raises(RegenError, match="changed while it was sent"):
            regen.upload(video, on_progress=change)
        assert not [one for one in asked(regen_mock, "POST") if one["path"].endswith("/complete")]


def test_a_wait_and_a_download_that_are_interrupted(regen_mock, clip, tmp_path):
    async def interrupted() -> None:
        async with AsyncRegen(regen_mock.url, regen_mock.key) as client:
            regen_mock.faults({"route": "POST *", "times": 1, "action": {"render": {"stuck_in": "queued"}}})
            stuck = await client.upscale(clip)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.wait(stuck), 0.3)
            render = await client.wait(await client.upscale(clip))
            stall = {"stall_after_bytes": 200_000, "stall_seconds": 600}
            regen_mock.faults({"route": "GET /storage/*", "times": 1, "action": {"download": stall}})
            begun = asyncio.Event()
            waiting = asyncio.ensure_future(
                client.download(render, tmp_path / "out.mp4", on_progress=lambda _: begun.set())
            )
            await begun.wait()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
            await client.download(render, tmp_path / "out.mp4")
            assert left_in(tmp_path) == ["out.mp4"]

    asyncio.run(interrupted())


def test_a_video_at_a_url_becomes_a_file(regen_mock, clip):
    async def upload(url):
        async with AsyncRegen(regen_mock.url, regen_mock.key) as client:
            return await client.upload(url)

    with Regen(regen_mock.url, regen_mock.key) as client:
        url = client.get_render(client.upscale(clip)).input_file_url
        for file in (client.upload(url), asyncio.run(upload(url))):
            assert (file.size_bytes, file.width) == (clip.stat().st_size, 240)
        assert client.preview(url).status == "completed"
        with pytest.raises(ApiError, match="400"):
            client.upload(f"{regen_mock.url}/none")
    sent = ["/v1/upscale", "/v1/files", "/v1/files", "/v1/files", "/v1/previews", "/v1/files"]
    assert [one["path"] for one in asked(regen_mock, "POST")] == sent
