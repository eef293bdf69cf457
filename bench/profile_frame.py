"""Where a frame's time goes on its way from file to file, stage by stage, and what is left when they overlap.

    .venv/bin/python -m bench.profile_frame [--engine ENGINE] [--frames 45] [--rounds 3]

Each stage runs alone, with what it runs on in a render: the decoder and its checksums, the conversions, the network,
the encoder with the settings of `high`. Then the whole segment, overlapped, as a worker runs it. Processor time is that
of all threads, ffmpeg's included. What starts a process is left out: decoding, encoding and the whole are measured at
two lengths, and count by the difference. Figures are a frame's; of the rounds the median.

A file takes at least the network's time, and at least all processor time over the cores: the last columns of the second
table say how near the whole is to each. Stages take one frame at a time, also on a GPU. The frames are photographs in
which nearly every pixel changes.
"""

import argparse
import logging
import os
import resource
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import median

import numpy as np
import structlog
import torch

from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits
from app.platform.media.probe import probe_video
from app.platform.media.work_options import WorkOptions
from app.platform.settings import Settings
from bench.ceiling import ceiling_gflops, roofline
from bench.clips import PHOTOGRAPHS, Frame, Size, cut, parse_size
from bench.machine import heading, table
from models.catalog import DEFAULT_ENGINE, ENGINES, Engine
from models.loader import load_network
from worker.inference.colour import planes_to_rgb, rgb_to_planes
from worker.inference.devices import Device, choose_device
from worker.inference.fastest_precision import choose_precision
from worker.inference.runtime import Runtime
from worker.inference.upscaler import make_upscaler
from worker.loaded_upscaler import TypedUpscaler
from worker.pipeline import encoder_threads, run_segment
from worker.video.decoder import FrameReader, decode_points, decoding_stream
from worker.video.encoder import encoding_stream
from worker.video.plan import RenderPlan, SegmentPlan
from worker.video.segmenter import plan_render

# regen-4x costs thirty times as much.
SIZES: dict[str, Size] = {"regen-4x-lite": (320, 180), "regen-4x": (128, 72)}
LONGEST_SEGMENT_SECONDS = Fraction(600)
MOST_PIXELS = 2**40
STALL_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True)
class Cost:
    """`processor` is of all threads and children; both in seconds."""

    processor: float
    wall: float

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(processor=self.processor - other.processor, wall=self.wall - other.wall)

    def __truediv__(self, count: int) -> "Cost":
        return Cost(processor=self.processor / count, wall=self.wall / count)


def cost_of(work: Callable[[], object]) -> Cost:
    started, before = time.perf_counter(), _processor_seconds()
    work()
    return Cost(processor=_processor_seconds() - before, wall=time.perf_counter() - started)


def _processor_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def middle(costs: Sequence[Cost]) -> Cost:
    return Cost(processor=median(cost.processor for cost in costs), wall=median(cost.wall for cost in costs))


@dataclass(frozen=True, kw_only=True)
class Film:
    """One clip, planned as one segment."""

    runner: FfmpegRunner
    path: Path
    render: RenderPlan
    segment: SegmentPlan

    @classmethod
    def of(cls, path: Path, settings: Settings, *, scale: int) -> "Film":
        runner = FfmpegRunner.for_work(settings)
        render, (segment,) = plan_render(
            runner,
            path,
            probe_video(runner, path, limits=MediaLimits.from_settings(settings)),
            options=WorkOptions(engine=DEFAULT_ENGINE),
            scale=scale,
            segment_seconds=LONGEST_SEGMENT_SECONDS,
            segment_max_output_pixels=MOST_PIXELS,
        )
        return cls(runner=runner, path=path, render=render, segment=segment)

    def decode(self) -> list[Frame]:
        """Every frame, without its checksum."""
        point = decode_points(self.render, self.segment)[0]
        stream = decoding_stream(
            self.runner, self.path, render=self.render, segment=self.segment, point=point
        )
        frames = [
            np.empty(self.render.source.frame_bytes, np.uint8) for _ in range(self.segment.source_frames)
        ]
        with self.runner.start(stream, purpose="reading the video", stdin=False, stdout=True) as process:
            reader = FrameReader(process, self.segment, verify=False)
            for frame in frames:
                reader.read_into(frame)
            reader.finish()
        return frames

    def encode(self, enlarged: Sequence[Frame], *, threads: int | None) -> None:
        """The segment's frames in turn, of these as many as it has."""
        out = self.path.with_suffix(".encoded.mp4")
        stream = encoding_stream(
            self.runner, out, render=self.render, segment=self.segment, quality="high", threads=threads
        )
        with self.runner.start(stream, purpose="encoding the video", stdin=True, stdout=False) as process:
            for frame in enlarged[: self.segment.source_frames]:
                process.write_all(frame.data)
            process.close_stdin()
            process.wait()
        out.unlink()

    def upscale(self, upscaler: TypedUpscaler) -> None:
        """Decoded, upscaled and encoded at the same time."""
        out = self.path.with_suffix(".out.mp4")
        run_segment(
            runner=self.runner,
            source=self.path,
            destination=out,
            render=self.render,
            segment=self.segment,
            upscaler=upscaler,
            quality="high",
            on_frame=lambda _: None,
            cancelled=lambda: False,
            stall_seconds=STALL_SECONDS,
        )
        out.unlink()


class Stages:
    """The stages of a film's frames, each to be run alone."""

    def __init__(self, film: Film, network: Runtime, device: Device) -> None:
        self._film, self._network, self._device = film, network, device
        self.frames = film.decode()
        self.pictures = [self._picture(frame) for frame in self.frames]
        with torch.inference_mode():
            self._enlarged = network(self.pictures[0])

    def _picture(self, frame: Frame) -> torch.Tensor:
        with torch.inference_mode():
            rgb = planes_to_rgb(
                torch.from_numpy(frame[None]).to(self._device.torch_device), self._film.render.source
            )
            return rgb.contiguous(memory_format=self._network.memory_format)

    def _settle(self) -> None:
        self._device.synchronize()

    def checksum(self) -> None:
        for frame in self.frames:
            zlib.adler32(frame.data, 0)

    def convert_in(self) -> None:
        for frame in self.frames:
            self._picture(frame)
        self._settle()

    def compute(self) -> None:
        with torch.inference_mode():
            for picture in self.pictures:
                self._network(picture)
        self._settle()

    def convert_out(self) -> None:
        with torch.inference_mode():
            for _ in self.frames:
                rgb_to_planes(self._enlarged, self._film.render.target).cpu()


def measure(
    engine: Engine, size: Size, arguments: argparse.Namespace, directory: Path
) -> tuple[list[tuple[str, Cost]], Cost, float | None]:
    """The stages' costs of a frame, those of the whole, overlapped, and on a CPU its ceiling in GFLOP/s."""
    weights = directory / "weights"
    settings = Settings(data_dir=directory / "data", weights_dir=weights)
    lengths: tuple[int, int] = (max(1, arguments.frames // 3), arguments.frames)
    films = []
    for length in lengths:
        path = directory / f"{engine.id}-{length}.mp4"
        cut(arguments.clip, path, frames=length, size=size)
        films.append(Film.of(path, settings, scale=engine.scale))
    short, long = films
    device = choose_device(arguments.device)
    plain = load_network(engine.id, weights_directory=weights)
    precision = choose_precision(device, "auto", plain, engine_id=engine.id, kept_in=[weights])
    network = device.make_runtime(plain, properties=plain.properties, precision=precision)
    stages = Stages(long, network, device)
    upscaler = make_upscaler(
        engine_id=engine.id,
        source=long.render.source,
        target=long.render.target,
        weights_directory=weights,
        device=arguments.device,
    )
    typed = TypedUpscaler(upscaler)
    enlarged = [upscaler.upscale([frame])[0] for frame in stages.frames]

    def further(work: Callable[[Film], object]) -> Cost:
        return (cost_of(lambda: work(long)) - cost_of(lambda: work(short))) / (lengths[1] - lengths[0])

    def alone(work: Callable[[], None]) -> Cost:
        return cost_of(work) / lengths[1]

    measures: dict[str, Callable[[], Cost]] = {
        "decode": lambda: further(Film.decode),
        "checksum": lambda: alone(stages.checksum),
        "convert in": lambda: alone(stages.convert_in),
        "network": lambda: alone(stages.compute),
        "convert out": lambda: alone(stages.convert_out),
        "encode": lambda: further(lambda film: film.encode(enlarged, threads=encoder_threads(typed))),
        "overlapped": lambda: further(lambda film: film.upscale(typed)),
    }
    costs: dict[str, list[Cost]] = {name: [] for name in measures}
    ceilings = []
    for _ in range(arguments.rounds):
        if not device.is_accelerator:
            ceilings.append(ceiling_gflops(precision))
        for name, take in measures.items():
            costs[name].append(take())
    found = {name: middle(values) for name, values in costs.items()}
    overlapped = found.pop("overlapped")
    return list(found.items()), overlapped, median(ceilings) if ceilings else None


def stage_lines(engine: Engine, stages: Sequence[tuple[str, Cost]]) -> list[Sequence[str]]:
    total = sum(cost.processor for _, cost in stages)
    return [
        (
            engine.id,
            name,
            f"{1000 * cost.processor:.2f} ms",
            f"{cost.processor / total:.1%}",
            f"{1000 * cost.wall:.2f} ms",
        )
        for name, cost in stages
    ]


def whole_line(engine: Engine, stages: Sequence[tuple[str, Cost]], overlapped: Cost) -> Sequence[str]:
    network = dict(stages)["network"].wall
    least = sum(cost.processor for _, cost in stages) / (os.cpu_count() or 1)
    one_after_the_other = sum(cost.wall for _, cost in stages)
    return (
        engine.id,
        *(f"{1000 * wall:.1f} ms" for wall in (one_after_the_other, overlapped.wall, network, least)),
        f"{1000 * overlapped.processor:.1f} ms",
        f"{network / overlapped.wall:.0%}",
        f"{least / overlapped.wall:.0%}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Where a frame's time goes.")
    parser.add_argument("--engine", choices=tuple(ENGINES), help="default: both")
    parser.add_argument("--clip", type=Path, default=PHOTOGRAPHS)
    parser.add_argument("--size", type=parse_size, help="columns x rows of its middle, even numbers")
    parser.add_argument("--frames", type=int, default=45, help="of the longer; the shorter has a third")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if arguments.frames < 2:
        parser.error("two lengths need at least 2 frames")
    parts: list[Sequence[str]] = []
    wholes: list[Sequence[str]] = []
    rooflines = []
    engines = [ENGINES[arguments.engine]] if arguments.engine else [*ENGINES.values()]
    sizes = {engine.id: arguments.size or SIZES[engine.id] for engine in engines}
    # Its lines about every file are for servers.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory(prefix="regen-bench-") as name:
        directory = Path(name)
        for engine in engines:
            size = sizes[engine.id]
            stages, overlapped, ceiling = measure(engine, size, arguments, directory)
            if ceiling is not None:
                alone = dict(stages)["network"].wall
                rates = {"network_alone": alone, "file_to_file": overlapped.wall}
                rooflines += ["", roofline(engine, size, ceiling=ceiling, **rates)]
            parts += stage_lines(engine, stages)
            wholes.append(whole_line(engine, stages, overlapped))
    shown = ", ".join(f"{engine_id} at {columns}x{rows}" for engine_id, (columns, rows) in sizes.items())
    print(
        f"{heading()} {arguments.clip.name}: {shown}; {arguments.frames} frames, {arguments.rounds} rounds.\n"
    )
    print(table(("engine", "stage", "processor", "share", "alone, wall"), parts))
    print()
    head = (
        "engine",
        "one after the other",
        "overlapped",
        "network alone",
        "all processor time over the cores",
        "processor, overlapped",
        "network of overlapped",
        "processor bound of overlapped",
    )
    print("\n".join([table(head, wholes), *rooflines]))


if __name__ == "__main__":
    main()
