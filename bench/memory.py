"""Whether memory stays flat: with longer videos, with more segments, from render to render, and with larger uploads.

    .venv/bin/python -m bench.memory [--frames 60 600] [--renders 10] [--uploads 1 100 1024]

Peaks are the kernel's own count (VmHWM), of `regen upscale` and each ffmpeg it starts, of a worker that goes from
render to render, and of `regen serve --no-worker`; growth is a straight line through what was resident every 50 ms of
the second half. The network is `regen-4x-lite`, on the CPU. Uploads are valid videos, made larger by an MP4 box that is
skipped, sent as they are read and kept by the server. Prints tables.
"""

import argparse
import http.client
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np

from bench.laptop import Laptop, clean_environment
from bench.machine import heading, table
from bench.padded_video import BLOCK_BYTES, box_head, make_clip
from bench.process_facts import MIB, children_of, command_of, forget_peak, peak_bytes, resident_bytes
from tests.e2e.client import RegenClient
from tests.servers.process import ServerProcess

SAMPLE_SECONDS = 0.05
START_SECONDS = 60.0
RUN_SECONDS = 600.0
MANY_SEGMENTS_SECONDS = "0.2"
BOUNDARY = "a-boundary-that-is-in-no-video"


class Watched:
    """Peaks and growth of a process and of what it starts, as far as somebody calls `look` often enough."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.peak_bytes = 0
        self.children: dict[str, int] = {}
        """The largest peak of any one child, by the name of its program."""
        self.seen: list[tuple[float, int]] = []

    def look(self) -> None:
        try:
            self.peak_bytes = peak_bytes(self._pid)
            self.seen.append((time.monotonic(), resident_bytes(self._pid)))
        except ProcessLookupError:
            return
        for child in children_of(self._pid):
            try:
                peak = peak_bytes(child)
            except ProcessLookupError:
                continue
            # The program that limits it is a small Python, which becomes it.
            name = command_of(child)
            if name.startswith("ff"):
                self.children[name] = max(self.children.get(name, 0), peak)

    def until(self, condition: Callable[[], object]) -> None:
        """Look until it is true."""
        deadline = time.monotonic() + RUN_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "it takes too long"
            self.look()
            time.sleep(SAMPLE_SECONDS)

    @property
    def bytes_per_second(self) -> float:
        """How fast the process grew over the second half of what was seen."""
        half = np.array(self.seen[len(self.seen) // 2 :], dtype=float)
        return float(np.polyfit(half[:, 0] - half[0, 0], half[:, 1], 1)[0]) if len(half) > 1 else 0.0


def upscale(clip: Path, directory: Path, *, name: str, segment_seconds: str | None = None) -> list[str]:
    """The row of one `regen upscale`."""
    settings = {} if segment_seconds is None else {"segment_seconds": segment_seconds}
    frames, seconds = name.partition(" ")[0], time.monotonic()
    process = ServerProcess(
        [
            *(sys.executable, "-m", "app.cli", "upscale", clip, directory / "out.mp4", "--overwrite"),
            *("--device", "cpu", "--data-dir", directory / "data"),
        ],
        log=directory / "upscale.log",
        environment=clean_environment(**settings),
    )
    try:
        watched = Watched(process.pid)
        watched.until(lambda: process.status is not None)
    finally:
        process.kill()
    assert process.status == 0, process.tail()
    seconds = time.monotonic() - seconds
    per_thousand = watched.bytes_per_second * seconds / int(frames) * 1000
    return [
        name,
        f"{seconds:.1f} s",
        mib(watched.peak_bytes),
        f"{per_thousand / MIB:+.1f} MiB",
        *(mib(watched.children.get(program, 0)) for program in ("ffmpeg", "ffprobe")),
    ]


def renders(clip: Path, number: int, directory: Path) -> list[list[str]]:
    """A row for the first, the middle and the last render of one worker."""
    with Laptop() as laptop:
        user = client_of(laptop)
        command = ("worker", "--device", "cpu", "--data-dir", laptop.root / "data")
        worker = ServerProcess(
            [sys.executable, "-m", "app.cli", *command],
            log=directory / "worker.log",
            environment=clean_environment(),
        )
        try:
            rows = []
            watched = Watched(worker.pid)
            for count in range(1, number + 1):
                render = user.submit(clip)
                watched.until(lambda render=render: user.get(render["id"])["status"] == "completed")  # type: ignore[misc]
                watched.look()
                resident = watched.seen[-1][1]
                rows.append([f"{count}", mib(resident), mib(watched.peak_bytes)])
        finally:
            worker.stop()
    return [rows[place] for place in sorted({0, 1, number // 2, number - 1}) if place < number]


def uploads(sizes: Sequence[int], clip: Path) -> list[list[str]]:
    """A row per size in MiB. Before each the server's peak is forgotten."""
    rows = []
    with Laptop() as laptop:
        for size in sizes:
            pid = laptop.api.pid
            forget_peak(pid)
            before = resident_bytes(pid)
            started_at = time.monotonic()
            send(laptop, clip, size_bytes=size * MIB)
            seconds = time.monotonic() - started_at
            rows.append(
                [
                    *(f"{size} MiB", f"{seconds:.1f} s", mib(before), mib(peak_bytes(pid))),
                    mib(peak_bytes(pid) - before),
                    mib(resident_bytes(pid)),
                ]
            )
    return rows


def send(laptop: Laptop, clip: Path, *, size_bytes: int) -> None:
    """Upload the clip, brought to that size on its way. Fails unless it is accepted."""
    start = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="clip.mp4"\r\n\r\n'.encode()
    )
    end = f"\r\n--{BOUNDARY}--\r\n".encode()
    connection = http.client.HTTPConnection(urlsplit(laptop.url).netloc, timeout=RUN_SECONDS)
    try:
        connection.request(
            "POST",
            "/v1/files",
            body=padded(start, clip.read_bytes(), end, size_bytes=size_bytes),
            headers={
                "Authorization": f"Bearer {laptop.key}",
                "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
                "Content-Length": str(len(start) + size_bytes + len(end)),
            },
        )
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == http.client.OK, content
        assert json.loads(content)["file"]["sizeBytes"] == size_bytes
    finally:
        connection.close()


def padded(start: bytes, video: bytes, end: bytes, *, size_bytes: int) -> Iterator[bytes]:
    box_bytes = size_bytes - len(video)
    head = box_head(box_bytes)
    yield start + video + head
    left_bytes = box_bytes - len(head)
    while left_bytes:
        block = bytes(min(BLOCK_BYTES, left_bytes))
        yield block
        left_bytes -= len(block)
    yield end


def client_of(laptop: Laptop) -> RegenClient:
    headers = {"Authorization": f"Bearer {laptop.key}"}
    return RegenClient(client=httpx.Client(base_url=laptop.url, headers=headers, timeout=60))


def mib(size_bytes: float) -> str:
    return f"{size_bytes / MIB:.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description="Whether memory stays flat.")
    parser.add_argument("--frames", type=int, nargs="+", default=[60, 600])
    parser.add_argument("--renders", type=int, default=10)
    parser.add_argument("--uploads", type=int, nargs="+", default=[1, 100, 1024], help="in MiB")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="regen-memory-") as name:
        directory = Path(name)
        clips = {
            frames: make_clip(directory / f"{frames}.mp4", frames=frames) for frames in sorted(options.frames)
        }
        lines = [upscale(clip, directory, name=f"{frames} frames") for frames, clip in clips.items()]
        frames, clip = max(clips.items())
        many = f"{frames} frames, segments of {MANY_SEGMENTS_SECONDS} s"
        lines.append(upscale(clip, directory, name=many, segment_seconds=MANY_SEGMENTS_SECONDS))
        render_lines = renders(clips[min(clips)], options.renders, directory)
        upload_lines = uploads(options.uploads, clips[min(clips)])
    print(f"{heading()}\n")
    head = ["`regen upscale` of 64x48", "took", "peak", "growth per 1000 frames"]
    print(table([*head, "ffmpeg's peak", "ffprobe's peak"], lines))
    print("\n" + table(["renders of one worker", "resident afterwards", "peak so far"], render_lines))
    head = ["upload", "took", "API before", "API's peak", "beyond before", "API afterwards"]
    print("\n" + table(head, upload_lines))


if __name__ == "__main__":
    main()
