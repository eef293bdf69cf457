"""regen_client and the commands that use it against a real server, which enlarges by a stand-in for the networks."""

import httpx
import pytest
from regen_client import Regen
from typer.testing import CliRunner

from app.cli.application import application
from tests.e2e.conftest import stand_in_server

__all__ = ["stand_in_server"]

pytestmark = pytest.mark.slow


def test_from_video_to_result(stand_in_server, clip, tmp_path):
    url, key = (
        str(stand_in_server.client.base_url),
        stand_in_server.client.headers["Authorization"].split()[1],
    )
    seen = []
    with Regen(url, key) as regen:
        render = regen.upscale(regen.upload(clip), scale=2, end=1)
        events = list(regen.events(render))
        render = regen.wait(render, timeout=120, on_progress=seen.append)
        frame = regen.get_frame(render.file_id, 0.5)
        path = regen.download(render, tmp_path / "out.mp4")
        preview = regen.preview(render.file_id, 0.5, crop={"x": 0, "y": 0, "width": 64, "height": 36})
    assert (render.output.width, render.output.frames, seen[-1].done) == (480, 25, 25)
    assert events[0].id == render.id and events[-1].status == "processing"
    assert frame[:2] == b"\xff\xd8"
    assert path.read_bytes() == httpx.get(render.output_file_url).content
    assert preview.status == "completed" and httpx.get(preview.after_url).content[:4] == b"\x89PNG"


def test_the_command_line(stand_in_server, clip, tmp_path, monkeypatch):
    monkeypatch.setenv("REGEN_SERVER", str(stand_in_server.client.base_url))
    monkeypatch.setenv("REGEN_KEY", stand_in_server.client.headers["Authorization"].split()[1])
    command = ["submit", str(clip), "--scale", "1", "--end", "0.4", "--output", str(tmp_path)]
    answer = CliRunner().invoke(application, command)
    assert answer.exit_code == 0, answer.stderr
    (written,) = tmp_path.iterdir()
    assert answer.stdout == f"{written}\n" and written.read_bytes()[4:8] == b"ftyp"
    assert f"{clip.name}: completed, 10 of 10 frames" in answer.stderr.splitlines()
