"""A whole render in one call, as `regen upscale` makes it."""

import threading
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.platform.errors import Canceled
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits
from app.platform.media.probe import probe_video
from app.platform.settings import Settings
from worker.local import LocalProgress, LocalRenderOptions, upscale_file
from worker.video.plan import RenderPlan


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
    def run(**changes: Any) -> Any:
        source = clip("a.mp4", frames=30)
        (tmp_path / "work").mkdir()
        return upscale_file(
            runner=runner,
            source=source,
            info=probe_video(runner, source, limits=MediaLimits.from_settings(Settings())),
            destination=tmp_path / "out.mp4",
            options=LocalRenderOptions(
                scale=4,
                target_fps=Fraction(50),
                quality="high",
                segment_seconds=Fraction(1, 2),
                segment_max_output_pixels=10**9,
                stall_seconds=30,
            ),
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
