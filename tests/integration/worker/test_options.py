"""A worker renders what the options of a render ask for."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from app.platform.media.ffmpeg import FfmpegRunner, RunLimits, find_programs
from app.platform.media.limits import MediaLimits
from app.platform.media.probe import probe_video
from app.platform.settings import Settings
from app.renders.statuses import RenderStatus
from app.renders.tables import Render
from tests.integration.worker.conftest import CLIP_FRAMES, CLIP_HEIGHT, CLIP_RATE, CLIP_WIDTH, Workplace
from tests.servers.broker import StartBroker
from tests.servers.process import wait_until


def test_a_part_in_another_size_and_a_render_that_is_late(
    workplace: Callable[..., Workplace], start_broker: StartBroker, tmp_path: Path
) -> None:
    place = workplace(broker_url=start_broker().url)
    start, end = (Fraction(frames, CLIP_RATE) for frames in (5, CLIP_FRAMES - 3))
    made = place.submit(start=str(float(start)), end=str(float(end)), scale="1", metadata='{"a": "b"}')
    late = place.submit(cancel_after="1")
    with place.database.write() as session:
        row = session.get_one(Render, late)
        row.cancel_at = row.created_at
    place.start_worker()
    place.wait_completed(made)
    wait_until(lambda: place.status(late).is_final, seconds=30, what="the late render ends")

    with place.database.read() as session:
        render, canceled = session.get_one(Render, made), session.get_one(Render, late)
    assert (canceled.status, canceled.error) == (
        RenderStatus.FAILED,
        "Canceled: it was not done within 1 second.",
    )
    for video in (render.input, render.output):
        assert (video.width, video.height, video.frames) == (CLIP_WIDTH, CLIP_HEIGHT, CLIP_FRAMES - 8)
        assert video.duration_seconds == end - start
    assert render.cost == CLIP_WIDTH * CLIP_HEIGHT * (CLIP_FRAMES - 8) / 1e9
    assert render.user_metadata == {"a": "b"}
    assert render.output_key is not None
    place.storage.fetch(render.output_key, tmp_path / "output.mp4")
    runner = FfmpegRunner(programs=find_programs(), limits=RunLimits(wall_seconds=60, memory_bytes=8 * 2**30))
    info = probe_video(runner, tmp_path / "output.mp4", limits=MediaLimits.from_settings(Settings()))
    assert (info.video.width, info.video.height, info.video.frames) == (
        CLIP_WIDTH,
        CLIP_HEIGHT,
        CLIP_FRAMES - 8,
    )
