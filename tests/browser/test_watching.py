"""A render is watched in the console while its worker stands still, and to its end."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.browser.conftest import key_of, url_of
from tests.e2e.conftest import Server
from tests.servers.process import wait_until

SECONDS = 6
# Of both videos: where it is, whether it has a picture, and the red of its middle.
STATE = """() => [...document.querySelectorAll("video")].map((video) => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 8;
  canvas.getContext("2d").drawImage(video, 0, 0, 8, 8);
  return [video.currentTime, video.readyState, canvas.getContext("2d").getImageData(4, 4, 1, 1).data[0]];
})"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It becomes brighter from frame to frame, and has sound."""
    path = tmp_path_factory.mktemp("clip") / "brighter.mp4"
    picture = f"nullsrc=size=160x96:rate=25:duration={SECONDS},format=yuv420p,geq=lum=20+N:cb=128:cr=128"
    sound = f"sine=frequency=440:duration={SECONDS}"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound]
    subprocess.run([*command, "-c:v", "libx264", "-qp", "10", str(path)], check=True)
    return path


@contextmanager
def halted_render(server: Server, clip: Path) -> Iterator[str]:
    """The id of a render of which something is finished, and no more is done inside the block."""
    render_id = str(server.submit(clip)["id"])
    worker, deadline = server.worker_pid(), time.monotonic() + 60
    while "streamURL" not in server.get(render_id):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(worker, signal.SIGSTOP)
    try:
        yield render_id
    finally:
        os.kill(worker, signal.SIGCONT)


def test_what_is_finished_is_watched(server, sign_in, clip):
    page = sign_in(url_of(server), key_of(server))
    with halted_render(server, clip) as render_id:
        assert server.get(render_id)["status"] == "processing"
        page.goto(f"{url_of(server)}/#/renders/{render_id}")
        page.get_by_role("button", name="Watch what is finished").click()
        figure = page.get_by_role("figure", name="What is finished")
        page.wait_for_function("() => document.querySelector('video').readyState >= 2")
        figure.get_by_role("button", name="Play").click()
        # It plays what is there, and waits.
        page.wait_for_function("() => document.querySelector('video').currentTime > 0.3")
        time.sleep(2)
        (at, *_), (follows, *_) = page.evaluate(STATE)
        assert at < SECONDS - 1 and abs(at - follows) < 0.2
        assert re.fullmatch(
            r"[0-9.]+ s( / [0-9.]+ s)?, frame [0-9]+", figure.get_by_label("Time").inner_text()
        )
    page.wait_for_function("() => document.querySelector('video').ended", timeout=120_000)
    server.wait(render_id)
    (at, _, after), (follows, _, before) = page.evaluate(STATE)
    assert abs(at - SECONDS) < 0.05 and abs(follows - SECONDS) < 0.2
    assert page.evaluate("() => document.querySelector('video').duration") == pytest.approx(SECONDS, abs=0.05)
    assert abs(after - before) < 12 and after > 100, "the last moment"
    # What was played first is still there.
    figure.get_by_label("Position").evaluate(
        "(range) => { range.value = 1; range.dispatchEvent(new Event('input')); }"
    )

    def is_shown() -> bool:
        (_, ready, after), (_, _, before) = page.evaluate(STATE)
        return ready >= 2 and abs(after - before) < 12 and after < 80

    wait_until(is_shown, seconds=30, what="both players show the same early moment")
    assert page.evaluate("() => document.querySelector('video').webkitAudioDecodedByteCount") > 0
