"""Fixtures: tiny numbered clips made by the real ffmpeg, an exact stand-in network, and whole renders with them."""

import contextlib
import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.platform.errors import FfmpegError
from app.platform.media.codecs import OutputFormat, Quality, VmafTarget
from app.platform.media.ffmpeg import FfmpegRunner, RunLimits, find_programs
from app.platform.media.limits import MediaLimits
from app.platform.media.output_size import OutputSize
from app.platform.media.probe import MediaInfo, probe_video
from app.platform.media.time_range import TimeRange
from app.platform.media.work_options import WorkOptions
from app.platform.settings import Settings
from models.catalog import DEFAULT_ENGINE
from worker.inference.frames import FrameFormat
from worker.pipeline import run_segment
from worker.video.continuous_copy import continuous_source
from worker.video.muxer import FinishedVideo, finish_render
from worker.video.plan import RenderPlan, SegmentPlan
from worker.video.segmenter import plan_render

Plane = NDArray[Any]


class NearestNeighbour:
    """Enlarges by repeating samples, exactly, in the source's own samples wherever the target has them too."""

    longest_batch_seconds = 0.0
    processor_threads: int | None = None

    def __init__(self, source: FrameFormat, target: FrameFormat, *, batch_size: int = 3) -> None:
        self.source, self.target, self.batch_size = source, target, batch_size
        self.frames_seen = 0

    def upscale(self, frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        self.frames_seen += len(frames)
        return [self.target.join(self._planes(frame)) for frame in frames]

    def _planes(self, frame: NDArray[np.uint8]) -> list[Plane]:
        source, target = self.source, self.target
        if (source.layout, source.bit_depth) == (target.layout, target.bit_depth):
            return [
                _enlarge(plane, shape)
                for plane, shape in zip(source.split(frame), target.plane_shapes, strict=True)
            ]
        planes: list[Plane] = [plane.astype(np.float64) for plane in source.split(frame)]
        if source.layout == "gbr":
            planes = self._from_rgb(planes)
        elif source.layout == "gray":
            middle = np.full(planes[0].shape, 2.0 ** (source.bit_depth - 1))
            planes = [planes[0], middle, middle]
        depth_factor = 2.0 ** (target.bit_depth - source.bit_depth)
        codes = [np.floor(plane * depth_factor + 0.5) for plane in planes]
        return [
            _enlarge(plane, shape).clip(0, target.max_code)
            for plane, shape in zip(codes, target.plane_shapes, strict=True)
        ]

    def _from_rgb(self, planes: list[Plane]) -> list[Plane]:
        """BT.709, limited range (ITU-R BT.709)."""
        top = self.source.max_code
        green, blue, red = (plane / top for plane in planes)
        luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
        unit = 2.0 ** (self.source.bit_depth - 8)
        chroma = [(blue - luma) / 1.8556, (red - luma) / 1.5748]
        return [unit * (16 + 219 * luma), *(unit * (128 + 224 * plane) for plane in chroma)]


def _enlarge(plane: Plane, shape: tuple[int, int]) -> Plane:
    rows = np.arange(shape[0]) * plane.shape[0] // shape[0]
    columns = np.arange(shape[1]) * plane.shape[1] // shape[1]
    enlarged: Plane = plane.take(columns, axis=1).take(rows, axis=0)
    return enlarged


@dataclass(frozen=True)
class Frames:
    """Decoded frames: planes, timestamps in seconds, and the numbers that `clip` drew on them."""

    planes: list[list[Plane]]
    seconds: list[Fraction]
    numbers: list[int]


@dataclass(frozen=True)
class Rendered:
    source: Path
    info: MediaInfo
    plan: RenderPlan
    segments: list[SegmentPlan]
    finished: FinishedVideo
    output: Path
    thumbnail: Path
    upscaled: int
    inspected: Callable[[Path], dict[str, Any]] = field(repr=False)

    @property
    def probed(self) -> dict[str, Any]:
        """What ffprobe says of the output."""
        return self.inspected(self.output)

    @property
    def all_streams(self) -> list[dict[str, Any]]:
        streams: list[dict[str, Any]] = self.probed["streams"]
        return streams

    @property
    def stream(self) -> dict[str, Any]:
        return self.all_streams[0]


def _run(*command: str | Path) -> bytes:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done.stdout


@pytest.fixture(scope="session")
def runner() -> FfmpegRunner:
    return FfmpegRunner(programs=find_programs(), limits=RunLimits(wall_seconds=60, memory_bytes=8 * 2**30))


@pytest.fixture(scope="session")
def able(runner: FfmpegRunner) -> FfmpegRunner:
    """A runner whose ffmpeg measures VMAF: the runner's own, or the wheel's."""
    candidates = [runner.programs]
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(FfmpegError):
        patch.setenv("PATH", "")
        candidates.append(find_programs())
    for programs in candidates:
        listing = _run(programs.ffmpeg, "-hide_banner", "-filters")
        if b" libvmaf " in listing:
            return FfmpegRunner(programs=programs, limits=runner.limits)
    pytest.skip("no ffmpeg here has libvmaf (that of the ffmpeg-wheels extra does on Linux x86-64)")


@pytest.fixture(scope="session")
def ffmpeg(runner: FfmpegRunner) -> Callable[..., bytes]:
    """Run ffmpeg itself, apart from the runner."""

    def run(*arguments: str | Path) -> bytes:
        return _run(runner.programs.ffmpeg, "-v", "error", "-y", *arguments)

    return run


@pytest.fixture(scope="session")
def probed(runner: FfmpegRunner) -> Callable[..., dict[str, Any]]:
    """Ask ffprobe itself."""

    def ask(path: Path, *arguments: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(
            _run(runner.programs.ffprobe, "-v", "error", "-of", "json", *arguments, path)
        )
        return answer

    return ask


@pytest.fixture(scope="session")
def inspected(probed: Callable[..., dict[str, Any]]) -> Callable[[Path], dict[str, Any]]:
    """All that ffprobe says of a file at once, asked once for each state of the file: starting it costs the most."""
    sections = ("-show_streams", "-show_format", "-show_chapters")
    entries = ("-show_entries", "frame=stream_index,best_effort_timestamp")

    @lru_cache(maxsize=8)
    def ask(path: Path, size: int, changed: int) -> dict[str, Any]:
        return probed(path, *sections, *entries)

    def inspect(path: Path) -> dict[str, Any]:
        state = path.stat()
        return ask(path, state.st_size, state.st_mtime_ns)

    return inspect


@pytest.fixture(scope="session")
def numbered() -> Callable[..., str]:
    """A lavfi graph of moving pictures with each frame's number as eight bars, the lowest bit leftmost."""

    def graph(*, frames: int = 30, rate: str = "25", size: str = "64x48", after: str = "") -> str:
        bars = ",".join(
            f"drawbox=x=iw*{bit}/8:y=ih/2:w=iw/8:h=ih/2:t=fill:color={colour}:enable='{condition}'"
            for bit in range(8)
            for colour, condition in (
                ("black", f"not(bitand(n,{2**bit}))"),
                ("white", f"bitand(n,{2**bit})"),
            )
        )
        duration = Fraction(frames) / Fraction(rate)
        return f"testsrc2=s={size}:r={rate}:d={float(duration) - 0.001:.6f},{bars}{after}"

    return graph


@pytest.fixture(scope="session")
def clips_made() -> dict[tuple[Any, ...], bytes]:
    """Small clips of all tests, by name and command: many ask for the same ones."""
    return {}


@pytest.fixture
def clip(
    tmp_path: Path,
    ffmpeg: Callable[..., bytes],
    numbered: Callable[..., str],
    clips_made: dict[tuple[Any, ...], bytes],
) -> Callable[..., Path]:
    """Make a numbered clip: `arguments` are ffmpeg's for the output; `before` come before the output's."""

    def make(name: str, *arguments: str, before: Sequence[str] = (), **graph: Any) -> Path:
        path = tmp_path / name
        codec = (
            () if "-c:v" in arguments else ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
        )
        command = ("-f", "lavfi", "-i", numbered(**graph), *before, *codec, *arguments)
        made = clips_made.get((name, *command))
        if made is None:
            ffmpeg(*command, path)
            if path.stat().st_size < 2**20:
                clips_made[name, *command] = path.read_bytes()
        else:
            path.write_bytes(made)
        return path

    return make


@pytest.fixture(scope="session")
def decoded(
    ffmpeg: Callable[..., bytes], inspected: Callable[[Path], dict[str, Any]]
) -> Callable[..., Frames]:
    """Decode all of a file's first video stream with the plain command line."""

    def decode(path: Path, *, pix_fmt: str = "yuv420p", filters: str = "null") -> Frames:
        listing = inspected(path)
        video = next(stream for stream in listing["streams"] if stream["codec_type"] == "video")
        time_base = Fraction(video["time_base"])
        frame_seconds = 1 / Fraction(video["r_frame_rate"])
        seconds: list[Fraction] = []
        for frame in listing["frames"]:
            if frame.get("stream_index") != video["index"]:  # subtitles have none
                continue
            # AVI and MPEG-PS leave some out, each of them a frame after the one before.
            at = frame.get("best_effort_timestamp")
            seconds.append(seconds[-1] + frame_seconds if at is None else int(at) * time_base)
        raw = ffmpeg(
            *("-i", path, "-map", "0:v:0", "-fps_mode", "passthrough", "-vf", f"{filters},format={pix_fmt}"),
            *("-f", "yuv4mpegpipe", "-strict", "-1", "pipe:1"),
        )
        header, _, body = raw.partition(b"\n")
        fields = {word[:1]: word[1:] for word in header.split()[1:]}
        width, height = int(fields[b"W"]), int(fields[b"H"])
        depth = 10 if "10" in pix_fmt else 8
        shape = FrameFormat(width=width, height=height, bit_depth=depth)
        step = shape.frame_bytes + len(b"FRAME\n")
        planes = [
            list(shape.split(np.frombuffer(body, np.uint8, shape.frame_bytes, at + len(b"FRAME\n"))))
            for at in range(0, len(body), step)
        ]
        return Frames(planes=planes, seconds=seconds, numbers=[_number(frame[0], depth) for frame in planes])

    return decode


def _number(luma: Plane, depth: int) -> int:
    height, width = luma.shape
    row = luma[height * 3 // 4].astype(int) >> (depth - 8)
    return sum(2**bit for bit in range(8) if row[width * (2 * bit + 1) // 16] > 128)


@pytest.fixture(scope="session")
def planned_in(runner: FfmpegRunner) -> Callable[..., tuple[MediaInfo, RenderPlan, list[SegmentPlan]]]:
    def plan(
        directory: Path,
        path: Path,
        *,
        part: TimeRange | None = None,
        size: OutputSize | None = None,
        form: OutputFormat = OutputFormat(),  # noqa: B008  (frozen)
        segment_seconds: Fraction = Fraction(10),
        segment_max_output_pixels: int = 500_000_000,
        **asked: Any,
    ) -> tuple[MediaInfo, RenderPlan, list[SegmentPlan]]:
        begins, ends = (None, None) if part is None else (part.start, part.end)
        options = WorkOptions(
            engine=DEFAULT_ENGINE,
            start_seconds=begins,
            end_seconds=ends,
            codec=form.codec,
            container=form.container,
            **asked | (asdict(size) if size else {}),
        )
        info = probe_video(runner, path, limits=MediaLimits.from_settings(Settings()))
        path, info, continuous = continuous_source(
            runner, path, info, directory=directory, cancelled=lambda: False
        )
        render, segments = plan_render(
            runner,
            path,
            info,
            options=options,
            scale=4,
            segment_seconds=segment_seconds,
            segment_max_output_pixels=segment_max_output_pixels,
            continuous=continuous,
        )
        # As the database hands it to another worker.
        render = RenderPlan.from_json(render.to_json())
        return info, render, [SegmentPlan.from_json(segment.to_json()) for segment in segments]

    return plan


@pytest.fixture
def planned(
    planned_in: Callable[..., tuple[MediaInfo, RenderPlan, list[SegmentPlan]]], tmp_path: Path
) -> Callable[..., tuple[MediaInfo, RenderPlan, list[SegmentPlan]]]:
    return partial(planned_in, tmp_path)


@pytest.fixture
def rendered(rendered_in: Callable[..., Rendered], tmp_path: Path) -> Callable[..., Rendered]:
    """Render a file from start to end with the stand-in network."""
    return partial(rendered_in, tmp_path)


@pytest.fixture(scope="session")
def rendered_in(
    runner: FfmpegRunner,
    planned_in: Callable[..., tuple[MediaInfo, RenderPlan, list[SegmentPlan]]],
    inspected: Callable[[Path], dict[str, Any]],
) -> Callable[..., Rendered]:
    """Render a file in a directory, which tests may share."""

    def render_file(
        directory: Path,
        path: Path,
        *,
        quality: Quality | VmafTarget = "lossless",
        name: str = "output",
        runner: FfmpegRunner = runner,
        **options: Any,
    ) -> Rendered:
        info, render, segments = planned_in(directory, path, **options)
        if render.continuous is not None:
            path = directory / "continuous.ts"
        directory = directory / name
        directory.mkdir()
        files = [directory / f"segment-{segment.index}.mp4" for segment in segments]
        network = NearestNeighbour(render.source, render.target)
        for segment, file in zip(segments, files, strict=True):
            # As by workers of different kinds: with one thread to encode, and with as many as the encoder likes.
            network.processor_threads = segment.index % 2 or None
            done: list[int] = []
            run_segment(
                runner=runner,
                source=path,
                destination=file,
                render=render,
                segment=segment,
                upscaler=network,
                quality=quality,
                on_frame=done.append,
                cancelled=lambda: False,
                stall_seconds=30,
            )
            assert done == list(range(1, segment.used_frames + 1))
        output, thumbnail = directory / "output.mp4", directory / "thumbnail.jpg"
        finished = finish_render(
            runner=runner,
            source=path,
            segment_files=files,
            render=render,
            segments=segments,
            destination=output,
            thumbnail=thumbnail,
            cancelled=lambda: False,
        )
        return Rendered(
            source=path,
            info=info,
            plan=render,
            segments=segments,
            finished=finished,
            output=output,
            thumbnail=thumbnail,
            upscaled=network.frames_seen,
            inspected=inspected,
        )

    return render_file


@pytest.fixture
def gray_film(ffmpeg: Callable[..., bytes], tmp_path: Path) -> Callable[[Sequence[Plane]], Path]:
    """A lossless grey film of these frames (floats, 0 to 255), 25 a second."""

    def make(frames: Sequence[Plane]) -> Path:
        rows, columns = frames[0].shape
        raw, path = tmp_path / "film.raw", tmp_path / "film.mkv"
        raw.write_bytes(b"".join(np.rint(frame).clip(0, 255).astype(np.uint8).tobytes() for frame in frames))
        form = ("-f", "rawvideo", "-pix_fmt", "gray", "-s", f"{columns}x{rows}", "-r", "25")
        ffmpeg(*form, "-i", raw, "-c:v", "ffv1", "-y", path)
        return path

    return make
