"""The serial ends of a render: how long its reading and its finish take beside the segments, which many workers share.

    .venv/bin/python -m bench.serial_ends [--segments 3000] [--clip FILE --storage s3]

A film of tiny frames, or a clip over and over, is cut into so many segments of 14 frames. One segment is rendered, and
stands for all others. With S3 a second table has what goes through a real server on this machine, with the processor
time of both sides.
"Before" is what it took when segments waited for the end of the reading, and were read back by a process each. Prints a
table, with the figures for 12,000 segments as in a film of two hours; bytes are as good as none, and come on top at the
rates of network and disk.
"""

import argparse
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from pathlib import Path

from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits
from app.platform.media.probe import probe_video
from app.platform.media.programs import find_programs
from app.platform.media.work_options import WorkOptions
from app.platform.secrets import Secrets
from app.platform.settings import Settings
from app.platform.storage import open_storage
from app.work.outage_retry import OutageRetry
from bench.process_facts import children_of, cpu_seconds
from models.catalog import DEFAULT_ENGINE
from tests.integration.video.conftest import NearestNeighbour
from tests.servers.s3 import S3Server
from worker.pipeline import run_segment
from worker.transfers import StorageTransfers
from worker.video.mp4_boxes import read_video_coding
from worker.video.muxer import finish_render
from worker.video.plan import SegmentPlan
from worker.video.segmenter import EarlyRelease, SettledSegments, plan_render
from worker.video.timestamp_check import read_back

SIZE = "64x36"
RATE = 24
SEGMENT_FRAMES = 14
FILM_SEGMENTS = 12_000
# A process for each segment is measured with so many.
SAMPLE = 50


def make_film(path: Path, *, frames: int, clip: Path | None) -> None:
    """A clip over and over, which takes no time to encode; by default one of 70 s."""
    program: list[str | Path] = [find_programs().ffmpeg, "-v", "error", "-y"]
    if clip is None:
        clip = path.with_name("clip.mp4")
        source = f"testsrc2=size={SIZE}:rate={RATE}:duration=70"
        encode: list[str | Path] = [
            "-f",
            "lavfi",
            "-i",
            source,
            "-pix_fmt",
            "yuv420p",
            "-preset",
            "ultrafast",
            "-g",
            "28",
        ]
        subprocess.run([*program, *encode, clip], check=True)
    repeat: list[str | Path] = [
        "-stream_loop",
        "-1",
        "-i",
        clip,
        "-c",
        "copy",
        "-frames:v",
        str(frames),
        "-shortest",
        path,
    ]
    subprocess.run([*program, *repeat], check=True)


def timed(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def worker_seconds() -> float:
    """The processor time of this process, and of the programs that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def processor_seconds() -> tuple[float, float]:
    """What the worker and the processes of the server have used so far."""
    served = [cpu_seconds(pid) for pid in children_of(os.getpid())]
    return worker_seconds(), sum(used.own + used.children for used in served)


def measure_storage(directory: Path, *, film: Path, segments: Sequence[Path], output: Path) -> None:
    """What a render's two ends ask of an S3 server: the input, all segments, the output, and the removal."""
    sizes = [sum(path.stat().st_size for path in paths) for paths in ([film], segments, [output])]
    server = S3Server()
    try:
        server.start()
        values = server.settings(server.create_bucket())
        settings = Settings(
            data_dir=directory / "data", secret_key="a secret of this measurement and no other", **values
        )
        storage = open_storage(settings, Secrets.load(settings))
        transfers = StorageTransfers(storage=storage, outage_retry=OutageRetry(seconds=0))
        keys = {f"renders/one/segments/{path.name}": path for path in segments}
        put = partial(transfers.put, content_type="video/mp4", cancelled=lambda: False)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(put, keys, keys.values()))
        put("input", film)
        copies = {key: directory / "fetched" / path.name for key, path in keys.items()}
        (directory / "fetched").mkdir()
        steps = (
            ("fetch the input", 1, sizes[0], lambda: storage.fetch("input", directory / "input")),
            (
                "fetch the segments",
                len(keys),
                sizes[1],
                lambda: transfers.fetch_all(copies, cancelled=lambda: False),
            ),
            ("store the output", 1, sizes[2], lambda: put("output", output)),
            (
                "list and remove the segments",
                len(keys),
                0,
                lambda: storage.delete_all([found.key for found in storage.list("renders/one/segments/")]),
            ),
        )
        print(
            "\n| S3 server on this machine | objects | bytes | time | processor, worker | processor, server "
            f"| {FILM_SEGMENTS:,} segments: time | worker | server |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        for what, count, size, action in steps:
            before = processor_seconds()
            times = [
                timed(action),
                *(after - used for after, used in zip(processor_seconds(), before, strict=True)),
            ]
            of_film = " | ".join(f"{seconds * FILM_SEGMENTS / len(segments):.0f} s" for seconds in times)
            row = " | ".join(f"{seconds:.1f} s" for seconds in times)
            print(f"| {what} | {count:,} | {size:,} | {row} | {of_film} |", flush=True)
        assert not list(storage.list("renders/one/segments/"))
    finally:
        server.stop()


def measure(directory: Path, *, segments: int, clip: Path | None, storage: str) -> None:
    film = directory / "film.mp4"
    make_film(film, frames=segments * SEGMENT_FRAMES, clip=clip)
    settings = Settings()
    runner = FfmpegRunner.for_work(settings)
    info = probe_video(runner, film, limits=MediaLimits.from_settings(settings))
    began, releases = time.monotonic(), list[tuple[float, int]]()

    def take(settled: SettledSegments) -> bool:
        releases.append((time.monotonic() - began, len(settled.segments)))
        return True

    render, plans = plan_render(
        runner,
        film,
        info,
        options=WorkOptions(engine=DEFAULT_ENGINE),
        scale=4,
        segment_seconds=Fraction(4),
        segment_max_output_pixels=SEGMENT_FRAMES * info.video.width * info.video.height * 16,
        release=EarlyRelease(take=take),
    )
    reading_seconds = time.monotonic() - began
    network = NearestNeighbour(render.source, render.target)
    made: dict[int, Path] = {}

    def file_of(plan: SegmentPlan) -> Path:
        path = directory / f"segment-{plan.index}.mp4"
        if plan.output_frames in made:
            os.link(made[plan.output_frames], path)
            return path
        run_segment(
            runner=runner,
            source=film,
            destination=path,
            render=render,
            segment=plan,
            upscaler=network,
            quality="high",
            on_frame=lambda _done: None,
            cancelled=lambda: False,
            stall_seconds=300,
        )
        made[plan.output_frames] = path
        return path

    files = [file_of(plan) for plan in plans]
    sample = files[:: max(1, len(files) // SAMPLE)]
    by_process = timed(lambda: [read_back(runner, path) for path in sample]) / len(sample)
    by_boxes = timed(lambda: [read_video_coding(path) for path in files]) / len(files)
    used_before = worker_seconds()
    finish_seconds = timed(
        lambda: finish_render(
            runner=runner,
            source=film,
            segment_files=files,
            render=render,
            segments=plans,
            destination=directory / "output.mp4",
            thumbnail=directory / "thumbnail.jpg",
            cancelled=lambda: False,
        )
    )
    finish_processor = worker_seconds() - used_before
    count, times = len(plans), FILM_SEGMENTS / len(plans)
    first, last = releases[0][0] if releases else reading_seconds, releases[-1][0] if releases else 0.0
    before = finish_seconds + count * (by_process - by_boxes)
    print(f"| {count:,} segments | before | now | {FILM_SEGMENTS:,} segments before | now |")
    print("|---|---|---|---|---|")
    row = "| {} | {:.1f} s | {:.1f} s | {:.0f} s | {:.0f} s |".format
    print(row("until a segment is ready", reading_seconds, first, reading_seconds * times, first))
    print(row("reading after the last release", 0, reading_seconds - last, 0, reading_seconds - last))
    print(row("compare the segments", count * by_process, count * by_boxes, FILM_SEGMENTS * by_process, 0))
    print(row("finish, in all", before, finish_seconds, before * times, finish_seconds * times))
    print(
        f"\nThe finish took {finish_processor:.1f} s of the worker's processor time, "
        f"{finish_processor * times:.1f} s in proportion."
    )
    print(f"\n{len(releases)} releases of {', '.join(str(size) for _, size in releases)} segments")
    if storage == "s3":
        measure_storage(directory, film=film, segments=files, output=directory / "output.mp4")


def main() -> None:
    parser = argparse.ArgumentParser(description="How long the serial ends of a render take.")
    parser.add_argument("--segments", type=int, default=3000)
    parser.add_argument("--clip", type=Path, help="what the film is, over and over")
    parser.add_argument("--storage", choices=("none", "s3"), default="none")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="regen-ends-") as name:
        measure(Path(name), segments=options.segments, clip=options.clip, storage=options.storage)


if __name__ == "__main__":
    main()
