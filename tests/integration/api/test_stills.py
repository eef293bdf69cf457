"""`GET /v1/files/{id}/frame`: one frame of a file as a small picture, judged by ffmpeg's command line."""

import contextlib
import os
import shutil
import subprocess
import threading
from pathlib import Path

import httpx
import pytest

from app.files import local_copies
from tests.integration.api.test_shares import MOST_TIMES_AS_LONG, SLACK_SECONDS, seconds_of
from tests.servers.process import wait_until

# Luma of frame N is 20 + 8 N in these clips; in a picture of full range that is this much.
FORMATS = {
    "mkv": ["-c:v", "libx265", "-x265-params", "log-level=none", "-g", "10"],
    "mov": ["-c:v", "prores_ks"],
    "ts": ["-c:v", "mpeg2video", "-q:v", "2", "-g", "10"],
}


def level_of(number: int) -> float:
    return (20 + 8 * number - 16) * 255 / 219


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory):
    """Makes a clip of 25 frames in one second, each brighter than the one before."""
    directory = tmp_path_factory.mktemp("graded")

    def make(suffix: str, source: str = "nullsrc=size=128x96:rate=25:duration=1", *more: str) -> Path:
        path = directory / f"graded.{suffix}"
        graph = f"{source},format=yuv420p,geq=lum=20+N*8:cb=128:cr=128"
        command = [
            "ffmpeg",
            "-v",
            "error",
            "-y",
            "-f",
            "lavfi",
            "-i",
            graph,
            *FORMATS[suffix],
            *more,
            str(path),
        ]
        subprocess.run(command, check=True)
        return path

    return make


def upload(client: httpx.Client, path: Path) -> str:
    with path.open("rb") as content:
        answer = client.post("/v1/files", files={"file": (path.name, content)})
    return str(answer.raise_for_status().json()["file"]["id"])


def grey(picture: bytes) -> int:
    """The picture's mean brightness, as ffmpeg sees it."""
    command = ["ffmpeg", "-v", "error", "-i", "-", "-vf", "scale=1:1:flags=area", "-pix_fmt", "gray"]
    done = subprocess.run([*command, "-f", "rawvideo", "-"], input=picture, capture_output=True, check=True)
    return done.stdout[0]


def size_of(picture: bytes) -> tuple[int, int]:
    command = ["ffprobe", "-v", "error", "-show_entries", "stream=width,height", "-of", "csv=p=0", "-"]
    done = subprocess.run(command, input=picture, capture_output=True, check=True)
    width, height = done.stdout.decode().strip().split(",")[:2]
    return int(width), int(height)


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_frame_of_the_moment(client, graded, suffix):
    file_id = upload(client, graded(suffix))
    for number in (0, 13, 24):
        answer = client.get(f"/v1/files/{file_id}/frame", params={"at_seconds": (number + 0.5) / 25})
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert "private" in answer.headers["Cache-Control"]
        assert size_of(answer.content) == (128, 96)
        assert abs(grey(answer.content) - level_of(number)) < 3, number


def test_large_frames_are_reduced_and_pixels_are_square(client, graded):
    source = "nullsrc=size=1440x1080:rate=25:duration=0.2,setsar=4/3"
    file_id = upload(client, graded("mov", source))
    assert size_of(client.get(f"/v1/files/{file_id}/frame").content) == (960, 540)


@pytest.mark.parametrize(
    ("aspect", "size"),
    [("640/639", (852, 479)), ("639/640", (851, 480)), ("4/1", (852, 120)), ("1/4", (213, 480))],
)
def test_square_pixels_are_no_more_than_the_frame_has(client, graded, aspect, size):
    """852x480 is shown as 16:9 by an aspect of 640:639, at which it would have a column more."""
    file_id = upload(
        client, graded("mov", f"nullsrc=size=852x480:rate=25:duration=0.04,setsar={aspect}:max=1000")
    )
    assert size_of(client.get(f"/v1/files/{file_id}/frame").content) == size


def test_hdr_is_tone_mapped(client, tmp_path):
    """White of 203 cd/m2 is 58 % of PQ's range, and nearly white on a screen."""
    path = tmp_path / "white.mkv"
    source = "nullsrc=size=64x64:rate=25:duration=0.2,format=yuv420p10le,geq=lum=573:cb=512:cr=512"
    tags = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:log-level=none"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, "-c:v", "libx265", "-x265-params", tags]
    subprocess.run([*command, str(path)], check=True)
    picture = client.get(f"/v1/files/{upload(client, path)}/frame").content
    assert grey(picture) > 0.75 * 255


def test_what_is_refused(client, graded, make_key):
    file_id = upload(client, graded("mov"))
    late = client.get(f"/v1/files/{file_id}/frame", params={"at_seconds": 1.5})
    assert late.status_code == 400
    assert late.json()["errors"] == [
        {"message": "`at_seconds` is after the video's end: it lasts 1 seconds."}
    ]
    for wrong in ("-1", "nan", "soon"):
        assert client.get(f"/v1/files/{file_id}/frame", params={"at_seconds": wrong}).status_code == 400
    headers = {"Authorization": f"Bearer {make_key('other')}"}
    assert client.get(f"/v1/files/{file_id}/frame", headers=headers).status_code == 404
    assert client.get("/v1/files/abc123/frame").status_code == 404
    client.delete(f"/v1/files/{file_id}").raise_for_status()
    assert client.get(f"/v1/files/{file_id}/frame").status_code == 404


def test_a_copy_is_kept_for_a_moment_and_removed(client, app, settings, graded):
    file_id = upload(client, graded("mov"))
    client.get(f"/v1/files/{file_id}/frame").raise_for_status()
    (kept,) = settings.spool_dir.iterdir()
    client.get(f"/v1/files/{file_id}/frame", params={"at_seconds": 0.5}).raise_for_status()
    assert [*settings.spool_dir.iterdir()] == [kept]
    # What tidies the directory may remove it meanwhile.
    kept.unlink()
    client.get(f"/v1/files/{file_id}/frame", params={"at_seconds": 0.5}).raise_for_status()
    app.state.resources.local_copies.drop_unused()
    assert kept.exists()
    app.state.resources.local_copies.drop_unused(kept_seconds=0)
    assert [*settings.spool_dir.iterdir()] == []


def test_a_storage_that_copies_is_not_made_to_copy_the_largest(client, app, graded, monkeypatch):
    file_id = upload(client, graded("mov"))
    monkeypatch.setattr(type(app.state.resources.storage), "links_files", False)
    client.get(f"/v1/files/{file_id}/frame").raise_for_status()
    monkeypatch.setattr(local_copies, "MOST_COPIED_BYTES", 100)
    answer = client.get(f"/v1/files/{file_id}/frame")
    assert answer.status_code == 413
    assert "too large to be looked through" in answer.json()["errors"][0]["message"]


def test_a_client_that_leaves_ends_the_work(serve, key, settings, graded, tmp_path):
    """With an ffmpeg that never ends: without a client it is killed."""
    endless = f"sleep 600.{os.getpid()}"
    program = tmp_path / "ffmpeg"
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *image2pipe*) exec {endless} ;; esac\nexec {shutil.which("ffmpeg")} "$@"\n'
    )
    program.chmod(0o755)
    client = serve(settings.model_copy(update={"ffmpeg": str(program)}), key=key)
    file_id = upload(client, graded("mov"))

    def is_running() -> bool:
        listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        return endless in listed.splitlines()

    def look() -> None:
        with pytest.raises(httpx.ReadTimeout):
            client.get(f"/v1/files/{file_id}/frame", timeout=5)

    looking = threading.Thread(target=look)
    looking.start()
    wait_until(is_running)
    looking.join()
    wait_until(lambda: not is_running(), seconds=10)


def test_stills_that_take_for_ever_hold_up_nobody_else(serve, key, make_key, settings, graded, tmp_path):
    """With an ffmpeg that never ends for files with that title."""
    title, endless = "NEVER ENDS", f"sleep 700.{os.getpid()}"
    program = tmp_path / "ffmpeg"
    look = f'grep -qs -- "{title}" "${{word#file:}}" && exec {endless}'
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *image2pipe*) for word; do {look}; done ;; esac\n'
        f'exec {shutil.which("ffmpeg")} "$@"\n'
    )
    program.chmod(0o755)
    client = serve(settings.model_copy(update={"ffmpeg": str(program), "sandbox": "off"}), key=key)
    other = {"Authorization": f"Bearer {make_key('bob')}"}
    source = "nullsrc=size=128x96:rate=25:duration=1"
    hostile = upload(client, graded("mov", source, "-metadata", f"title={title}"))
    with graded("mov").open("rb") as content:
        answer = client.post("/v1/files", files={"file": ("b.mov", content)}, headers=other)
    address = f"/v1/files/{answer.raise_for_status().json()['file']['id']}/frame"

    def held() -> int:
        listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        return listed.splitlines().count(endless)

    ended = threading.Event()

    def attack() -> None:
        with httpx.Client(base_url=client.base_url, headers=dict(client.headers), timeout=10) as attacker:
            while not ended.is_set():
                with contextlib.suppress(httpx.ReadTimeout):
                    attacker.get(f"/v1/files/{hostile}/frame")

    alone_seconds = seconds_of(lambda: client.get(address, params={"at_seconds": 0.2}, headers=other))
    attackers = [threading.Thread(target=attack) for _ in range(12)]
    for attacker in attackers:
        attacker.start()
    wait_until(held, what="the attacker's share is used up")
    try:
        beside_seconds = seconds_of(lambda: client.get(address, params={"at_seconds": 0.6}, headers=other))
        assert held()
    finally:
        ended.set()
        for attacker in attackers:
            attacker.join()
    assert beside_seconds < MOST_TIMES_AS_LONG * alone_seconds + SLACK_SECONDS
    wait_until(lambda: not held(), seconds=10)
