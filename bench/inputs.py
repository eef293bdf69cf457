"""What machines fetch of one input: N machines with caches of their own upscale its segments, from a real S3 server.

    .venv/bin/python -m bench.inputs [--machines 2 8] [--frames 2500] [--suffix .mp4]

Another machine reads the video before. The machines are workers in threads of this process; each claims segments as
fast as it does them. A relay before the server counts the bytes. "Whole" is a plan that names no ranges. Compares the
segments of both, byte for byte, and prints a table.
"""

import argparse
import hashlib
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

from app.platform.media.programs import find_programs
from app.platform.settings import Settings
from app.platform.work_kinds import WorkQueue
from tests.integration.worker.conftest import Workplace, make_workplace
from tests.integration.worker.worker_in_process import WorkerInProcess
from tests.servers.relay import Relay
from tests.servers.s3 import S3Server
from worker.video import input_ranges

SIZE, RATE, GOP_FRAMES = "192x108", 25, 50
MB = 1_000_000


def make_clip(path: Path, *, frames: int) -> None:
    """Noise without loss: many bytes for few pixels."""
    source = f"testsrc2=size={SIZE}:rate={RATE},noise=alls=60:allf=t"
    command = [
        "-f",
        "lavfi",
        "-i",
        source,
        "-f",
        "lavfi",
        "-i",
        "sine",
        "-frames:v",
        str(frames),
        "-shortest",
    ]
    coding = ["-pix_fmt", "yuv420p", "-preset", "ultrafast", "-qp", "0", "-g", str(GOP_FRAMES), "-c:a", "aac"]
    subprocess.run([find_programs().ffmpeg, "-v", "error", *command, *coding, path], check=True)


def work_as(place: Workplace, root: Path, queue: WorkQueue) -> None:
    """As a machine of that queue alone, until nothing is left to do."""
    settings = Settings(**{**place.settings.model_dump(), "data_dir": root})
    worker = WorkerInProcess(place, settings=settings)
    worker.ledger.queues = frozenset({queue})
    try:
        worker.work()
    finally:
        worker.close()


def render(place: Workplace, relay: Relay, root: Path, *, machines: int) -> tuple[int, int, Sequence[str]]:
    """The bytes that the machines fetched, how many segments they made, and the segments' digests."""
    render_id = place.submit(scale=1)
    work_as(place, root / "reader", WorkQueue.CPU)
    before = relay.passed_down
    threads = [
        threading.Thread(target=work_as, args=(place, root / f"machine-{number}", WorkQueue.GPU))
        for number in range(machines)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    fetched = relay.passed_down - before
    stored = sorted(place.storage.list(f"renders/{render_id}/segments/"), key=lambda one: one.key)
    digests = [hashlib.sha256(b"".join(place.storage.read(one.key))).hexdigest() for one in stored]
    return fetched, len(digests), digests


def main() -> None:
    parser = argparse.ArgumentParser(description="What machines fetch of one input.")
    parser.add_argument("--machines", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--frames", type=int, default=2500)
    parser.add_argument("--suffix", default=".mp4")
    options = parser.parse_args()
    rows = []
    server = S3Server()
    with tempfile.TemporaryDirectory(prefix="regen-inputs-") as directory:
        root = Path(directory)
        clip = root / f"clip{options.suffix}"
        make_clip(clip, frames=options.frames)
        size_bytes = clip.stat().st_size
        server.start()
        relay = Relay(server.port)
        try:
            bucket = server.settings(server.create_bucket())
            values = {**bucket, "s3_endpoint_url": f"http://127.0.0.1:{relay.port}", "segment_seconds": "4"}
            place = make_workplace(root / "place", clip, **values)
            for machines in options.machines:
                with patch.object(input_ranges, "LEAST_BYTES", 2**62):
                    whole, count, expected = render(
                        place, relay, root / f"whole-{machines}", machines=machines
                    )
                parts, _, digests = render(place, relay, root / f"parts-{machines}", machines=machines)
                assert digests == expected and count > 0
                rows.append(
                    f"| {machines} | {count} | {whole / MB:.0f} MB | {parts / MB:.0f} MB | {parts / whole:.0%} |"
                )
            place.close()
        finally:
            relay.close()
            server.stop()
    print(f"{options.suffix}, {size_bytes / MB:.0f} MB, segments equal to the last byte\n")
    print("| machines | segments | whole | ranges | |\n|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
