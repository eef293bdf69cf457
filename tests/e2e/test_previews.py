"""Previews over HTTP, made by a real worker that is busy with a segment which takes much longer."""

import subprocess
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray

from tests.servers.process import wait_until

CLIP = Path(__file__).parents[1] / "media" / "bunny-240x136-25fps.mp4"
WIDTH, HEIGHT, FRAMES = 240, 136, 50
SECONDS = 90


def picture(url: str, directory: Path) -> NDArray[np.uint8]:
    """The image under a signed URL, as rows x columns x 3."""
    answer = httpx.get(url)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")
    path = directory / "picture.png"
    path.write_bytes(answer.content)
    width, height = (int.from_bytes(answer.content[at : at + 4]) for at in (16, 20))
    command = ["ffmpeg", "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(height, width, 3)


def frame(number: int) -> NDArray[np.uint8]:
    """By the plain command line, its colours converted by ffmpeg."""
    scale = "scale=in_color_matrix=bt709:in_range=tv:flags=accurate_rnd+full_chroma_int+full_chroma_inp"
    command = ["ffmpeg", "-v", "error", "-i", CLIP, "-vf", f"select=eq(n\\,{number}),{scale},format=rgb24"]
    raw = subprocess.run(
        [*command, "-frames:v", "1", "-f", "rawvideo", "pipe:1"], check=True, capture_output=True
    ).stdout
    return np.frombuffer(raw, np.uint8).reshape(HEIGHT, WIDTH, 3)


def test_they_are_made_while_the_worker_is_in_the_middle_of_a_segment(start_server, tmp_path):
    with start_server(
        stand_in_network="true", stand_in_seconds_per_frame="0.8", segment_seconds="4", device="cpu"
    ) as server:
        render = server.submit(CLIP)
        wait_until(lambda: server.get(render["id"])["progress"] > 0, seconds=SECONDS, what="frames are done")
        crop = {"x": 31, "y": 17, "width": 100, "height": 60}
        asked = [{"crop": crop, "at_seconds": 1.2}, {"at_seconds": 2, "engine": "regen-4x"}]
        made = [
            server.client.post("/v1/previews", json={"file_id": render["fileId"], **fields})
            for fields in asked
        ]
        assert [answer.status_code for answer in made] == [200, 200], [answer.text for answer in made]

        done = []
        for answer in made:
            shown: dict[str, object] = {}
            while shown.get("status") not in ("completed", "failed"):
                held = server.client.get(answer.headers["Location"], headers={"Prefer": "wait=30"})
                shown = held.json()["preview"]
            done.append(shown)
        # One segment, and it goes on all the while.
        before = server.get(render["id"])
        assert (before["status"], 0 < before["progress"] < 1) == ("processing", True)
        wait_until(
            lambda: server.get(render["id"])["progress"] > before["progress"],
            seconds=SECONDS,
            what="the segment goes on",
        )
        assert server.client.post(f"/v1/renders/{render['id']}/cancel").status_code == 200

        part, whole = done
        assert (part["status"], part["crop"], part["wholeFrame"]) == ("completed", crop, False)
        expected = frame(30)[17:77, 31:131].astype(int)
        assert np.abs(picture(part["beforeURL"], tmp_path) - expected).mean() < 2
        after = picture(part["afterURL"], tmp_path)
        assert after.shape == (240, 400, 3)
        assert np.abs(after.reshape(60, 4, 100, 4, 3).mean(axis=(1, 3)) - expected).mean() < 4
        # The whole frame is more than a CPU makes with this engine.
        assert (whole["status"], whole["wholeFrame"]) == ("completed", False)
        assert "computes on a CPU" in whole["warnings"][0]
        shown_crop = whole["crop"]
        columns = slice(shown_crop["x"], shown_crop["x"] + shown_crop["width"])
        rows = slice(shown_crop["y"], shown_crop["y"] + shown_crop["height"])
        assert (
            np.abs(
                picture(whole["beforeURL"], tmp_path) - frame(FRAMES - 1)[rows, columns].astype(int)
            ).mean()
            < 2
        )
