"""A render is canceled while a real worker upscales it: everything stops, and the worker goes on with the next one."""

import subprocess
import time
from pathlib import Path

import pytest

from app.platform.media.programs import find_programs
from tests.servers.process import wait_until

CLIP = Path(__file__).parents[1] / "media" / "bunny-240x136-25fps.mp4"
FRAMES = 50
# So slow that a segment that is not stopped goes on for much longer than it may.
SECONDS_PER_FRAME = 0.3
STOP_SECONDS = 5
SLACK_SECONDS = 10


def descendants(pid: int) -> list[str]:
    """The names of the programs below a process."""
    rows = subprocess.run(
        ["ps", "-e", "-o", "pid=,ppid=,comm="], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    table = [(int(row.split()[0]), int(row.split()[1]), row.split()[2]) for row in rows]
    below, names = {pid}, []
    while found := [row for row in table if row[1] in below and row[0] not in below]:
        below |= {row[0] for row in found}
        names += [row[2] for row in found]
    return names


@pytest.fixture(scope="module")
def short_clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "short.mp4"
    arguments = ["-i", str(CLIP), "-frames:v", "3", "-an"]
    subprocess.run([find_programs().ffmpeg, "-v", "error", *arguments, str(path)], check=True)
    return path


def test_a_canceled_render_leaves_the_worker_at_once(start_server, short_clip):
    with start_server(
        stand_in_network="true", stand_in_seconds_per_frame=str(SECONDS_PER_FRAME), log_format="json"
    ) as server:
        worker = server.worker_pid()
        render_id = server.submit(CLIP)["id"]
        wait_until(lambda: server.get(render_id)["progress"] > 0, seconds=60, what="frames are upscaled")
        assert any("ffmpeg" in name for name in descendants(worker))

        answer = server.client.post(f"/v1/renders/{render_id}/cancel")
        canceled_at = time.monotonic()
        assert answer.status_code == 200
        assert (answer.json()["render"]["status"], answer.json()["render"]["error"]) == ("failed", "Canceled")
        wait_until(
            lambda: not any("ffmpeg" in name for name in descendants(worker)),
            seconds=STOP_SECONDS + SLACK_SECONDS,
            what="no ffmpeg is left",
        )
        stopped_after = time.monotonic() - canceled_at
        progress = server.get(render_id)["progress"]
        assert progress < 1 and stopped_after < (1 - progress) * FRAMES * SECONDS_PER_FRAME

        following = server.submit(short_clip)["id"]
        assert server.wait(following)["status"] == "completed"
        assert server.worker_pid() == worker, "it is the same one"
        assert server.get(render_id)["error"] == "Canceled"
        storage = server.data_dir / "storage" / "renders"
        assert not [path for path in storage.rglob("*") if path.is_file() and render_id in path.parts]
        assert '"work_failed"' not in (server.data_dir / "server.log").read_text()

        assert server.client.delete(f"/v1/renders/{following}").status_code == 204
        assert not [path for path in storage.rglob("*") if path.is_file()]
