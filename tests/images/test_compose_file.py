"""The compose file as it is, with the images as they are: a clip goes through, and a worker is killed on the way."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits
from app.platform.media.probe import probe_video
from app.platform.settings import Settings
from tests.containers.compose import ONE_SHOT, configuration
from tests.images.conftest import ROOT, Run
from tests.media.encoding import run
from tests.servers.process import wait_until

CLIP = ROOT / "tests/media/short/bunny-240x136-25fps.mp4"
TIMES = 5
RENDER_SECONDS = 900.0


@pytest.fixture(scope="module")
def client(compose: Run, ports: dict[str, int]) -> Iterator[httpx.Client]:
    key = re.search(r"API key .*: (regen_\S+)$", compose("logs", "--no-log-prefix", "api"), re.MULTILINE)
    assert key
    url = f"http://127.0.0.1:{ports['API_PORT']}"
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key[1]}"}, timeout=60) as client:
        yield client


def test_all_services_are_up(compose: Run) -> None:
    shown = [json.loads(line) for line in compose("ps", "--all", "--format", "json").splitlines()]
    states = {service["Service"]: service["Health"] or service["ExitCode"] for service in shown}
    assert states == dict.fromkeys(configuration()["services"], "healthy") | dict.fromkeys(ONE_SHOT, 0)


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
