"""The compose file as it is, with the images as they are: a clip goes through, and a worker is killed on the way."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits
from app.platform.media.probe import probe_video
from app.platform.settings import Settings
from tests.containers.compose import ONE_SHOT, configuration
from tests.documentation.samples import text_of
from tests.images.conftest import ROOT, Run, script_of_the_page
from tests.images.documented import Folder
from tests.media.encoding import run
from tests.servers.process import free_port, wait_until

CLIP = ROOT / "tests/media/short/bunny-240x136-25fps.mp4"
TIMES = 5
RENDER_SECONDS = 900.0


@pytest.fixture(scope="module")
def client(first_start: Callable[[], str], ports: dict[str, int]) -> Iterator[httpx.Client]:
    key = re.search(r"API key .*: (regen_\S+)$", first_start(), re.MULTILINE)
    assert key
    url = f"http://127.0.0.1:{ports['API_PORT']}"
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key[1]}"}, timeout=60) as client:
        yield client


def test_all_services_are_up(compose: Run) -> None:
    shown = [json.loads(line) for line in compose("ps", "--all", "--format", "json").splitlines()]
    states = {service["Service"]: service["Health"] or service["ExitCode"] for service in shown}
    assert states == dict.fromkeys(configuration()["services"], "healthy") | dict.fromkeys(ONE_SHOT, 0)


def test_the_first_start_ends_with_what_is_ready(first_start: Callable[[], str]) -> None:
    ready = json.loads(first_start().splitlines()[-1])
    assert ready["status"] == "ok"


def test_the_samples_of_an_update(compose: Run, folder: Folder, settings: dict[str, str]) -> None:
    """But for what needs a registry: to build on images that are fetched anew."""
    fetch, build, up = text_of("docs/containers.md", "git pull").splitlines()
    assert fetch == "git pull && scripts/secrets" and build == "docker compose build --pull"
    before = {path.name: path.read_bytes() for path in (folder.path / "secrets").iterdir()}
    folder.run(fetch, seconds=60)
    assert {path.name: path.read_bytes() for path in (folder.path / "secrets").iterdir()} == before
    folder.run(up, seconds=600, **settings)


def test_the_compose_file_by_the_script(compose: Run, folder: Folder, settings: dict[str, str]) -> None:
    """The command of docs/containers.md between `build` and `stop`, with which the tests begin and end."""
    told = script_of_the_page("compose", seconds=600, REGEN_COMPOSE_DIRECTORY=str(folder.path), **settings)
    assert "api" in compose("ps", "--services", "--status", "running"), told


def test_the_mock_in_a_container(folder: Folder) -> None:
    """The sample of docs/mock.md, until it is stopped."""
    port = free_port()
    text = text_of("docs/mock.md", "docker run").replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    name = f"regen-mock-{port}"
    folder.run(text.replace("--rm", f"--rm --detach --name {name}"), seconds=60)
    try:
        headers = {"Authorization": "Bearer regen_mock_key"}

        def answers() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/v1/renders", headers=headers).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers, seconds=60, what="the mock answers")
    finally:
        folder.run(f"docker stop {name}", seconds=60)


def test_a_worker_killed_on_the_way_costs_nothing(compose: Run, client: httpx.Client, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    run("-stream_loop", str(TIMES - 1), "-i", CLIP, "-map", "0:v", "-c", "copy", clip)
    with clip.open("rb") as body:
        render = client.post("/v1/upscale", files={"file": (clip.name, body)}).json()["render"]

    def status() -> str:
        nonlocal render
        render = client.get(f"/v1/renders/{render['id']}").json()["render"]
        return str(render["status"])

    wait_until(lambda: status() == "processing", seconds=RENDER_SECONDS, what="the render starts")
    compose("restart", "--timeout", "0", "worker-cpu")
    assert status() == "processing"
    wait_until(lambda: status() in ("completed", "failed"), seconds=RENDER_SECONDS, what="the render ends")
    assert render["status"] == "completed", compose("logs", "--tail", "60", "worker-cpu")
    output = httpx.get(render["outputFileURL"])
    assert output.status_code == 200
    result = tmp_path / "result.mp4"
    result.write_bytes(output.content)
    assert examined(result) == (960, 544, examined(clip)[2])


def examined(path: Path) -> tuple[int, int, int]:
    """Width, height and frames, by this machine's ffprobe."""
    settings = Settings()
    info = probe_video(FfmpegRunner.for_uploads(settings), path, limits=MediaLimits.from_settings(settings))
    return info.video.width, info.video.height, info.video.frames
