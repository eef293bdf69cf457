"""What goes wrong in the middle of a segment: everything stops, nothing is left behind, the first cause is told."""

import gc
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app.platform.errors import (
    Canceled,
    ConfigurationError,
    FfmpegError,
    LeaseLost,
    PermanentError,
    PipelineStalled,
)
from app.platform.media.confinement import OFF
from app.platform.media.ffmpeg import FfmpegProcess, FfmpegRunner, Programs
from worker.pipeline import run_segment
from worker.video.decoder import FrameReader
from worker.video.muxer import finish_render

Frame = np.ndarray[Any, np.dtype[np.uint8]]


class Network:
    """Gray frames of the right size; `before` is called before each batch with the number of frames so far."""

    batch_size = 2
    longest_batch_seconds = 0.0
    processor_threads = None

    def __init__(self, target_bytes: int, before: Callable[[int], None] = lambda done: None) -> None:
        self.done = 0
        self._target_bytes = target_bytes
        self._before = before

    def upscale(self, frames: Sequence[Frame]) -> list[Frame]:
        self._before(self.done)
        self.done += len(frames)
        return [np.full(self._target_bytes, 128, np.uint8) for _ in frames]


@pytest.fixture
def segment(
    clip: Callable[..., Path], planned: Callable[..., Any], runner: FfmpegRunner, tmp_path: Path
) -> Callable[..., Path]:
    """Run the second of three segments; keyword arguments as for run_segment, `change` alters the plan."""

    def run(
        *,
        before: Callable[[int], None] = lambda done: None,
        change: Callable[[Any, Any], tuple[Any, Any]] = lambda render, one: (render, one),
        size: str = "64x48",
        **options: Any,
    ) -> Path:
        source = clip("a.mp4", frames=75, size=size)
        _, render, segments = planned(source, segment_seconds=Fraction(1))
        render, one = change(render, segments[1])
        destination = tmp_path / "segment.mp4"
        arguments: dict[str, Any] = {
            "runner": runner,
            "quality": "high",
            "on_frame": lambda done: None,
            "cancelled": lambda: False,
            "stall_seconds": 30.0,
            **options,
        }
        run_segment(
            source=arguments.pop("source", source),
            destination=destination,
            render=render,
            segment=one,
            upscaler=Network(render.target.frame_bytes, before),
            **arguments,
        )
        return destination

    return run


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path: Path) -> Any:
    before = threading.active_count()
    yield
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)  # timers of ended processes
    assert threading.active_count() <= before
    assert list(tmp_path.glob("*.part")) == []


def _kill_process(purpose: str) -> Callable[[int], None]:
    """Kills the ffmpeg that runs for `purpose`, in mid-segment."""

    def kill(done: int) -> None:
        if done < 4:
            return
        for item in gc.get_objects():
            # Its class is asked of the interpreter: some of these objects are stand-ins that warn when they are asked.
            if type(item) is FfmpegProcess and item.purpose == purpose:
                item.kill()

    return kill


def test_nothing_goes_wrong(segment: Callable[..., Path]) -> None:
    assert segment().stat().st_size > 0


def test_encoder_dies(segment: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(FfmpegError, match="encoding the video") as raised:
        segment(before=_kill_process("encoding the video"))
    assert raised.value.__cause__ is not raised.value, "who follows the causes would never come to an end"
    assert not (tmp_path / "segment.mp4").exists()


def test_decoder_dies(segment: Callable[..., Path], tmp_path: Path) -> None:
    """Frames too large for the pipe, so that the decoder still has some to deliver."""
    with pytest.raises(FfmpegError, match="reading the video"):
        segment(before=_kill_process("reading the video"), size="640x480")
    assert not (tmp_path / "segment.mp4").exists()


def test_network_raises(segment: Callable[..., Path], tmp_path: Path) -> None:
    def fail(done: int) -> None:
        if done >= 4:
            raise MemoryError("no room for a frame")

    with pytest.raises(MemoryError, match="no room"):
        segment(before=fail)
    assert not (tmp_path / "segment.mp4").exists()


def test_progress_callback_raises(segment: Callable[..., Path]) -> None:
    def refuse(done: int) -> None:
        raise LeaseLost("somebody else has it")

    with pytest.raises(LeaseLost, match="somebody else"):
        segment(on_frame=refuse)


def test_cancelled(segment: Callable[..., Path], tmp_path: Path) -> None:
    cancelled = threading.Event()

    def slow(done: int) -> None:
        if done >= 2:
            cancelled.set()
        time.sleep(0.2)

    with pytest.raises(Canceled):
        segment(before=slow, cancelled=cancelled.is_set)
    assert not (tmp_path / "segment.mp4").exists()


def test_the_question_whether_to_go_on_fails(segment: Callable[..., Path]) -> None:
    def broken() -> bool:
        raise OSError("no database")

    with pytest.raises(OSError, match="no database"):
        segment(before=lambda done: time.sleep(0.2), cancelled=broken)


def test_network_hangs_for_a_while(segment: Callable[..., Path]) -> None:
    with pytest.raises(PipelineStalled):
        segment(before=lambda done: time.sleep(2.0 if done >= 4 else 0), stall_seconds=0.7)


def test_network_hangs_for_good(segment: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The hook runs while the call still hangs; there it frees the call, where a worker would end its process."""
    monkeypatch.setattr("worker.video.watchdog.GRACE_SECONDS", 0.3)
    freed = threading.Event()
    with pytest.raises(PipelineStalled):
        segment(before=lambda done: freed.wait(30) and None, stall_seconds=0.5, on_stall=freed.set)
    assert freed.is_set()


def test_frames_that_are_not_as_planned_are_looked_for(segment: Callable[..., Path]) -> None:
    """A seek that lands too late is noticed by the first frame, and decoding starts further ahead."""

    def seek_past_it(render: Any, one: Any) -> tuple[Any, Any]:
        return render, replace(one, seek_ticks=(one.last_pts + 12_800,))

    assert segment(change=seek_past_it).stat().st_size > 0


def test_other_decoder_with_other_rounding(segment: Callable[..., Path]) -> None:
    """All checksums differ, but every way of decoding agrees, and the number is right."""

    def other_sums(render: Any, one: Any) -> tuple[Any, Any]:
        return render, replace(one, checksums=tuple(sum_ ^ 1 for sum_ in one.checksums))

    assert segment(change=other_sums).stat().st_size > 0


def test_damage_that_each_reading_conceals_differently(
    segment: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first reading differs from the plan, the search for a place to begin does not, and what follows does."""
    readings: list[None] = []

    def note(*_arguments: Any) -> None:
        readings.append(None)

    def unsteady(data: Any, start: int) -> int:
        return zlib.adler32(data, start) ^ len(readings) % 2

    begin = FrameReader.__init__
    monkeypatch.setattr(FrameReader, "__init__", lambda *given, **named: (note(), begin(*given, **named))[1])
    monkeypatch.setattr("worker.video.decoder.zlib", SimpleNamespace(adler32=unsteady))
    assert segment().stat().st_size > 0
    assert len(readings) == 3


def test_file_with_fewer_frames_than_planned(segment: Callable[..., Path], clip: Callable[..., Path]) -> None:
    shorter = clip("shorter.mp4", frames=30)
    with pytest.raises(PermanentError, match="different frames at each reading"):
        segment(source=shorter)


def test_ffmpeg_without_the_encoder(
    segment: Callable[..., Path], runner: FfmpegRunner, tmp_path: Path
) -> None:
    poor = tmp_path / "ffmpeg"
    poor.write_text(
        "#!/bin/sh\n"
        f'for word; do shift; [ "$word" = libx264 ] && word=libx264gone; set -- "$@" "$word"; done\n'
        f'exec {runner.programs.ffmpeg} "$@"\n'
    )
    poor.chmod(0o755)
    programs = Programs(ffmpeg=poor, ffprobe=runner.programs.ffprobe)
    with pytest.raises(ConfigurationError, match="encoder"):
        # A script may start the system's programs alone, and this one's ffmpeg can be a wheel's.
        segment(runner=FfmpegRunner(programs=programs, limits=replace(runner.limits, sandbox=OFF)))


def test_segments_encoded_differently_are_not_joined(
    clip: Callable[..., Path], planned: Callable[..., Any], runner: FfmpegRunner, tmp_path: Path
) -> None:
    source = clip("a.mp4", frames=50)
    _, render, segments = planned(source, segment_seconds=Fraction(1))
    files = []
    for one, quality in zip(segments, ("high", "small"), strict=True):
        files.append(tmp_path / f"{one.index}.mp4")
        run_segment(
            runner=runner,
            source=source,
            destination=files[-1],
            render=render,
            segment=one,
            upscaler=Network(render.target.frame_bytes),
            quality=quality,  # type: ignore[arg-type]
            on_frame=lambda done: None,
            cancelled=lambda: False,
            stall_seconds=30,
        )
    with pytest.raises(PermanentError, match="different versions"):
        finish_render(
            runner=runner,
            source=source,
            segment_files=files,
            render=render,
            segments=segments,
            destination=tmp_path / "out.mp4",
            thumbnail=tmp_path / "out.jpg",
            cancelled=lambda: False,
        )
    assert not (tmp_path / "out.mp4").exists()
