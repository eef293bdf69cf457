"""A whole render in one call, as `regen upscale` makes it."""

import threading
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app.platform.errors import Canceled
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits
from app.platform.media.probe import probe_video
from app.platform.media.work_options import WorkOptions
from app.platform.settings import Settings
from models.catalog import DEFAULT_ENGINE
from worker.local import LocalProgress, upscale_file
from worker.video import join_groups
from worker.video.cuts import MAX_SEGMENT_FRAMES
from worker.video.encoder import timestamp_expression
from worker.video.join import timestamp_filter
from worker.video.plan import RenderPlan, SegmentPlan

# Of one argument on Linux (MAX_ARG_STRLEN).
LONGEST_ARGUMENT = 128 * 1024


class GrayNetwork:
    batch_size = 1
    longest_batch_seconds = 0.0
    processor_threads = None

    def __init__(self, render: RenderPlan) -> None:
        self._frame = np.full(render.target.frame_bytes, 128, np.uint8)

    def upscale(self, frames: Sequence[Any]) -> list[Any]:
        return [self._frame for _ in frames]


@pytest.fixture
def upscale(runner: FfmpegRunner, clip: Callable[..., Path], tmp_path: Path) -> Callable[..., Any]:
    def run(
        *arguments: str,
        name: str = "a.mp4",
        target_fps: Fraction | None = Fraction(50),
        segment_seconds: Fraction = Fraction(1, 2),
        **changes: Any,
    ) -> Any:
        source = clip(name, *arguments, frames=30)
        (tmp_path / "work").mkdir()
        return upscale_file(
            runner=runner,
            source=source,
            info=probe_video(runner, source, limits=MediaLimits.from_settings(Settings())),
            destination=tmp_path / "out.mp4",
            options=WorkOptions(engine=DEFAULT_ENGINE, target_fps=target_fps),
            settings=Settings(segment_seconds=segment_seconds),
            make_upscaler=GrayNetwork,
            work_directory=tmp_path / "work",
            **changes,
        ).video

    return run


def test_local_render(upscale: Callable[..., Any], tmp_path: Path) -> None:
    progress: list[LocalProgress] = []
    finished = upscale(on_progress=progress.append, thumbnail=tmp_path / "out.jpg")
    assert (finished.properties.width, finished.properties.height, finished.properties.frames) == (
        256,
        192,
        60,
    )
    assert finished.size_bytes == (tmp_path / "out.mp4").stat().st_size
    assert (tmp_path / "out.jpg").stat().st_size > 0
    assert [one.done for one in progress] == list(range(31))
    assert {one.total for one in progress} == {30}
    assert list((tmp_path / "work").iterdir()) == []


def test_local_render_cancelled(upscale: Callable[..., Any], tmp_path: Path) -> None:
    stop = threading.Event()

    def watch(progress: LocalProgress) -> None:
        if progress.done == 16:
            stop.set()

    with pytest.raises(Canceled):
        upscale(on_progress=watch, cancelled=stop.is_set)
    assert not (tmp_path / "out.mp4").exists()
    assert list((tmp_path / "work").iterdir()) == []


def test_a_title_of_any_length_goes_along_shortened(upscale: Callable[..., Any], tmp_path: Path) -> None:
    """It was one argument of the mux, which the system takes for 128 KiB at most, with the path and all."""
    arguments = ("-metadata:s:v:0", f"title={'long ' * 24_000}")
    finished = upscale(*arguments, name="a.mkv", on_progress=lambda _: None)
    assert (tmp_path / "out.mp4").stat().st_size == finished.size_bytes


def test_segments_whose_times_exceed_one_argument_are_joined_in_groups(
    upscale: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a time base finer than a microsecond. The finish itself compares every time with the plan."""
    fine = ("-r", "30000/1001", "-video_track_timescale", "10000000")
    monkeypatch.setattr(join_groups, "LONGEST_FILTER", 200)
    monkeypatch.setattr(join_groups, "GROUP_SEGMENTS", 2)
    calls: list[int] = []
    join = join_groups.join_groups

    def counted(runner: FfmpegRunner, files: Sequence[Path], **options: Any) -> Any:
        joined = join(runner, files, **options)
        calls.append(len(joined[0]))
        return joined

    monkeypatch.setattr(join_groups, "join_groups", counted)
    finished = upscale(*fine, target_fps=None, segment_seconds=Fraction(1, 5), on_progress=lambda _: None)
    assert finished.properties.frames >= 30
    assert calls and calls[0] >= 3
    assert not finished.warnings


def test_no_argument_is_longer_than_the_system_takes() -> None:
    """The longest: as many durations as a segment may have, all different, in the finest time base that MP4 has."""
    ticks = 2**31
    runs = [(1, ticks - number) for number in range(MAX_SEGMENT_FRAMES)]
    assert len(timestamp_expression(runs)) < LONGEST_ARGUMENT
    count = 3600
    segments = [
        SegmentPlan(
            index=number,
            first_frame=0,
            first_pts=0,
            last_pts=0,
            seek_ticks=(),
            repeats=(1,) * 96,
            checksums=(),
            start_tick=number * 40_040_000 + number % 7,
            runs=((96, 417_083),),
        )
        for number in range(count)
    ]
    whole = SimpleNamespace(
        timescale=10**9,
        segment_timescale=10**9,
        total_ticks=count * 40_040_000,
        offset_ticks=2**40,
        frame_count=count * 96,
    )
    written = SimpleNamespace(pts=[0], dts=[0])

    def length(some: Sequence[SegmentPlan]) -> int:
        return len(timestamp_filter(whole, some, first=written, last=written))  # type: ignore[arg-type]

    assert length(segments) > LONGEST_ARGUMENT
    assert length(segments[: join_groups.GROUP_SEGMENTS]) < LONGEST_ARGUMENT
    assert join_groups.LONGEST_FILTER < LONGEST_ARGUMENT
