"""Upscales one video through a private server, over HTTP as any client would. Run it as `scripts/demo`.

Exit status 0 only if the output was downloaded, is a video of exactly four times the input's displayed size, and no
process was left behind.
"""

import argparse
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.platform.media.programs import find_programs

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_VIDEO = ROOT / "tests" / "media" / "bunny-240x136-25fps.mp4"
SCALE = 4
START_SECONDS = 60
STOP_SECONDS = 30
LEFTOVER_SECONDS = 5
POLL_SECONDS = 0.3
LOG_LINES = 40
# What would make the server other than a private one of its own.
SHARED_SETTINGS = (
    "DATA_DIR",
    "DATABASE_URL",
    "BROKER_URL",
    "PUBLIC_URL",
    "STORAGE",
    "SECRET_KEY",
    "RATE_LIMIT",
)
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h

console = Console()


class DemoFailed(Exception):
    """The sentence says what went wrong."""


@dataclass(frozen=True, kw_only=True)
class Video:
    """What ffprobe says of a file. Width and height are as displayed, after rotation."""

    width: int
    height: int
    frame_rate: Fraction
    frames: int
    duration_seconds: float
    size_bytes: int


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/demo", description="Upscale a video through a private server."
    )
    parser.add_argument("video", type=Path, nargs="?", default=DEFAULT_VIDEO, metavar="VIDEO")
    parser.add_argument("--engine", help="regen-4x-lite (the default) or regen-4x")
    parser.add_argument("--target-fps", help="the output's frame rate; the input's when not given")
    parser.add_argument("--output", type=Path, help="where the result goes; under demo/ when not given")
    options = parser.parse_args()
    output: Path = options.output or ROOT / "demo" / f"{options.video.stem}-{SCALE}x.mp4"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    try:
        if not options.video.is_file():
            raise DemoFailed(f"There is no file {options.video}.")
        output.parent.mkdir(parents=True, exist_ok=True)
        fields = {"engine": options.engine, "target_fps": options.target_fps}
        with private_server() as (url, key):
            with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
                client.headers["Authorization"] = f"Bearer {key}"
                render = upscale(client, options.video, {k: v for k, v in fields.items() if v is not None})
            download(render["outputFileURL"], output)
            download(render["thumbnailURL"], output.with_suffix(".jpg"))
            show(render, options.video, output, seconds=time.monotonic() - started)
    except DemoFailed as error:
        console.print(f"[red]{escape(str(error))}[/red]", soft_wrap=True)
        return 1
    except (httpx.HTTPError, OSError) as error:
        console.print(f"[red]{escape(type(error).__name__)}: {escape(str(error))}[/red]", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("[yellow]Stopped.[/yellow]")
        return 130
    return 0


@contextmanager
def private_server() -> Iterator[tuple[str, str]]:
    """A server of its own on a free port with a temporary data directory: its URL and key. Nothing of it stays."""
    adopt_orphans()
    directory = Path(tempfile.mkdtemp(prefix="regen-demo-"))
    log_path = directory / "server.log"
    ready_file = directory / "ready.json"
    environment = {k: v for k, v in os.environ.items() if k.removeprefix("REGEN_") not in SHARED_SETTINGS}
    with log_path.open("wb") as log:
        server = subprocess.Popen(
            [
                *(str(Path(sys.executable).with_name("regen")), "serve", "--port", "0"),
                *("--data-dir", str(directory / "data"), "--ready-file", str(ready_file)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            preexec_fn=end_with_us if sys.platform == "linux" else None,  # noqa: PLW1509 - no threads yet
        )
    failed = True
    try:
        yield wait_until_ready(server, ready_file)
        failed = False
    except (KeyboardInterrupt, SystemExit):
        failed = False
        raise
    finally:
        # Stopping is bounded in time; a second Ctrl-C would leave things behind.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        stop(server)
        leftovers = end_leftovers(directory)
        if failed:
            # Our own polling would fill the tail.
            lines = log_path.read_text(errors="replace").splitlines()
            tail = [escape(line) for line in lines if '" 200 ' not in line][-LOG_LINES:]
            console.print("The end of the server's log:", *tail, sep="\n", soft_wrap=True, highlight=False)
        shutil.rmtree(directory)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if leftovers:
            raise DemoFailed(f"The server left processes behind, which were killed: {leftovers}.")


def wait_until_ready(server: subprocess.Popen[bytes], ready_file: Path) -> tuple[str, str]:
    deadline = time.monotonic() + START_SECONDS
    with console.status("Starting a private server ..."):
        while not ready_file.exists():
            if server.poll() is not None:
                raise DemoFailed(f"The server ended with status {server.returncode} before it was ready.")
            if time.monotonic() > deadline:
                raise DemoFailed(f"The server was not ready after {START_SECONDS} s.")
            time.sleep(0.05)
    ready = json.loads(ready_file.read_text())
    return ready["url"], ready["key"]


def upscale(client: httpx.Client, video: Path, fields: dict[str, str]) -> dict[str, Any]:
    """Submit the video and follow its render to the end."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("uploading", total=1.0)
        with video.open("rb") as file:
            answer = client.post("/v1/upscale", data=fields, files={"file": (video.name, file, "video/mp4")})
        render = read_render(answer)
        while render["status"] not in ("completed", "failed"):
            time.sleep(POLL_SECONDS)
            render = read_render(client.get(f"/v1/renders/{render['id']}"))
            progress.update(task, description=render["status"], completed=render.get("progress", 0.0))
    if render["status"] == "failed":
        raise DemoFailed(f"The render failed: {render.get('error', 'no reason given')}")
    return render


def read_render(answer: httpx.Response) -> dict[str, Any]:
    if answer.status_code != httpx.codes.OK:
        try:
            told = " ".join(error["message"] for error in answer.json()["errors"])
        except (ValueError, KeyError, TypeError):
            told = answer.text[:500]
        raise DemoFailed(f"The server answered {answer.status_code}: {told}")
    render: dict[str, Any] = answer.json()["render"]
    return render


def download(url: str, path: Path) -> None:
    """Fetch a signed URL, which needs no key, to `path`: whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        with httpx.stream("GET", url, trust_env=False, timeout=60) as answer, part.open("wb") as file:
            answer.raise_for_status()
            for chunk in answer.iter_bytes():
                file.write(chunk)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def show(render: dict[str, Any], video: Path, output: Path, *, seconds: float) -> None:
    before, after = examine(video), examine(output)
    table = Table("", "input", "output")
    table.add_row("file", escape(video.name), escape(output.name))
    table.add_row("size", f"{before.width}x{before.height}", f"{after.width}x{after.height}")
    table.add_row("frame rate", rate(before.frame_rate), rate(after.frame_rate))
    table.add_row("frames", str(before.frames), str(after.frames))
    table.add_row("duration", f"{before.duration_seconds:.3f} s", f"{after.duration_seconds:.3f} s")
    table.add_row("file size", f"{before.size_bytes / 1e6:.2f} MB", f"{after.size_bytes / 1e6:.2f} MB")
    console.print(table)
    console.print(f"Engine {render['engine']}, cost {render['cost']} gigapixels, {seconds:.1f} s in all.")
    console.print(f"Output: {output}", soft_wrap=True, highlight=False)
    console.print(f"Thumbnail: {output.with_suffix('.jpg')}", soft_wrap=True, highlight=False)
    for warning in render.get("warnings", []):
        console.print(f"[yellow]{escape(warning)}[/yellow]", soft_wrap=True)
    if (after.width, after.height) != (before.width * SCALE, before.height * SCALE):
        raise DemoFailed(f"The output is not {SCALE} times the input's size.")
    if not output.with_suffix(".jpg").read_bytes().startswith(b"\xff\xd8"):
        raise DemoFailed("The thumbnail is not a JPEG.")


def examine(path: Path) -> Video:
    """What ffprobe says of the first video stream. Fails when the file is no video."""
    ffprobe = find_programs(
        ffmpeg=os.environ.get("REGEN_FFMPEG"), ffprobe=os.environ.get("REGEN_FFPROBE")
    ).ffprobe
    answer = subprocess.run(
        [
            *(str(ffprobe), "-v", "error", "-select_streams", "v:0", "-count_packets"),
            *("-show_streams", "-show_format", "-of", "json", f"file:{path.absolute()}"),
        ],
        capture_output=True,
        check=False,
    )
    streams = json.loads(answer.stdout or b"{}").get("streams") or []
    if answer.returncode != 0 or not streams:
        raise DemoFailed(f"{path} is not a video.")
    stream = streams[0]
    turns = [int(data["rotation"]) for data in stream.get("side_data_list", []) if "rotation" in data]
    size = (stream["width"], stream["height"])
    width, height = size[::-1] if turns and turns[0] % 180 else size
    duration = stream.get("duration") or json.loads(answer.stdout)["format"].get("duration", "nan")
    return Video(
        width=width,
        height=height,
        frame_rate=Fraction(stream["avg_frame_rate"]),
        frames=int(stream["nb_read_packets"]),
        duration_seconds=float(duration),
        size_bytes=path.stat().st_size,
    )


def rate(value: Fraction) -> str:
    return str(value) if value.denominator == 1 else f"{float(value):.3f} ({value})"


def adopt_orphans() -> None:
    """On Linux, become the parent of whatever descendant loses its own, so that nothing can slip away unseen."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_us() -> None:
    """In the server, before it starts: have the kernel stop it when we are killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def end_leftovers(directory: Path) -> list[int]:
    """The processes of the stopped server that were still there, and had to be killed."""
    if sys.platform != "linux":
        listed = subprocess.run(["ps", "-axo", "pid=,command="], capture_output=True, text=True, check=True)  # noqa: S607
        found = [int(line.split()[0]) for line in listed.stdout.splitlines() if str(directory) in line]
    else:
        found = children_after(LEFTOVER_SECONDS)
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    return found


def children_after(seconds: float) -> list[int]:
    """The children, our own or adopted, that do not end within `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            pid, _status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return []
        if pid == 0:
            if time.monotonic() > deadline:
                listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
                return [int(pid) for pid in listed.split()]
            time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
