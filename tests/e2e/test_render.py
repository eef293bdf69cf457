"""A real video in over HTTP, four times larger out: size, every frame and timestamp, duration, sound and colour."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from app.platform.settings import Settings
from models.loader import load_network
from tests.e2e.reading import decibels, decode, duration, probe, sound, stream, timestamps

MEDIA = Path(__file__).parents[1] / "media"
SHORT = MEDIA / "bunny-240x136-25fps.mp4"
CLIPS = sorted(MEDIA.glob("*.mp4"))
# Three segments of the server's: of more there would only be more of the same, and these frames are large. Up to
# these packets none is missing that is shown before another.
PACKETS = {"bunny-480x270-25fps": 32, "webb-320x180-25fps": 33, "webb-480x270-2997fps-hevc": 33}
ORDER = ["queued", "pending", "processing", "completed"]


def beginning(clip: Path, path: Path, *, packets: int) -> Path:
    """A file with the clip's first packets of video, and all of its sound."""
    subprocess.run(
        [
            *("ffmpeg", "-v", "error", "-i", str(clip), "-frames:v", str(packets), "-c", "copy"),
            # Newer versions of ffmpeg round the duration to this clock, whose ticks are milliseconds by default.
            *("-movie_timescale", "30000", str(path)),
        ],
        check=True,
    )
    return path


@pytest.mark.parametrize("clip", CLIPS, ids=lambda path: path.stem)
def test_every_frame_sound_and_colour_arrive(stand_in_server: Any, clip: Path, tmp_path: Path) -> None:
    if clip.stem in PACKETS:
        clip = beginning(clip, tmp_path / clip.name, packets=PACKETS[clip.stem])
    seen: list[str] = []
    progress: list[float] = []

    def note(render: dict[str, Any]) -> None:
        seen.append(render["status"])
        progress.append(render["progress"])

    submitted = stand_in_server.submit(clip)
    assert submitted["status"] == "queued"
    assert submitted["queuePosition"] >= 1
    render = stand_in_server.wait(submitted["id"], seen=note)
    assert render["status"] == "completed", render
    assert [ORDER.index(status) for status in seen] == sorted(ORDER.index(status) for status in seen)
    assert progress == sorted(progress)
    assert progress[-1] == 1
    assert "quality" not in render, "it was not asked for"

    output = stand_in_server.download(render["outputFileURL"], tmp_path / "output.mp4")
    before, after = probe(clip), probe(output)
    size = (stream(before, "video")["width"], stream(before, "video")["height"])
    assert (stream(after, "video")["width"], stream(after, "video")["height"]) == (4 * size[0], 4 * size[1])
    assert timestamps(after, "video") == timestamps(before, "video")
    assert duration(after, "video") == duration(before, "video")
    assert stream(after, "video")["avg_frame_rate"] == stream(before, "video")["avg_frame_rate"]
    for tag in ("color_space", "color_transfer", "color_primaries", "color_range"):
        assert stream(after, "video").get(tag) not in (None, "unknown"), tag

    reference, result = (decode(path, width=size[0], height=size[1]) for path in (clip, output))
    assert len(reference) == len(result)
    worst = min(decibels(*pair) for pair in zip(reference, result, strict=True))
    assert worst > 36, f"the worst frame is {worst:.1f} dB from the input"

    sound_before, sound_after = sound(clip), sound(output)
    assert np.array_equal(sound_before, sound_after)
    assert timestamps(after, "audio")[0] == timestamps(before, "audio")[0]

    frames = len(result)
    assert render["output"] == {
        "width": 4 * size[0],
        "height": 4 * size[1],
        "frameRate": pytest.approx(float(Fraction(stream(before, "video")["avg_frame_rate"]))),
        "durationSeconds": pytest.approx(float(duration(before, "video"))),
        "frames": frames,
    }
    assert render["cost"] == pytest.approx(16 * size[0] * size[1] * frames / 1e9, rel=1e-12)

    thumbnail = stand_in_server.download(render["thumbnailURL"], tmp_path / "thumbnail.jpg")
    assert thumbnail.read_bytes()[:3] == b"\xff\xd8\xff"
    assert httpx.head(render["thumbnailURL"]).headers["content-type"] == "image/jpeg"
    original = stand_in_server.download(render["inputFileURL"], tmp_path / "original.mp4")
    assert original.read_bytes() == clip.read_bytes()


@pytest.mark.parametrize(
    ("target_fps", "rate"),
    [("23.976", Fraction(24000, 1001)), ("60", Fraction(60)), ("12.5", Fraction(25, 2)), ("1", Fraction(1))],
)
def test_a_target_rate_keeps_the_duration(
    stand_in_server: Any, target_fps: str, rate: Fraction, tmp_path: Path
) -> None:
    clip = SHORT
    submitted = stand_in_server.submit(clip, target_fps=target_fps, quality="true")
    render = stand_in_server.wait(submitted["id"])
    assert render["status"] == "completed", render
    output = stand_in_server.download(render["outputFileURL"], tmp_path / "output.mp4")
    after = probe(output)
    frames = round(2 * rate)
    assert timestamps(after, "video") == [number / rate for number in range(frames)]
    assert abs(duration(after, "video") - 2) <= 1 / rate / 2
    assert np.array_equal(sound(clip), sound(output))
    assert (render["targetFps"], Fraction(render["targetFpsExact"])) == (float(target_fps), rate)
    assert render["output"]["frames"] == frames
    quality = render["quality"]
    assert quality["psnr"] > 40, "frames are compared with those that they show"
    assert 0.98 < quality["ssim"] <= 1
    assert min(frames, 20) <= quality["frames"] <= 24


def test_a_steady_render_tells_what_the_filter_did(stand_in_server: Any) -> None:
    render = stand_in_server.wait(stand_in_server.submit(SHORT, stabilise="2", quality="true")["id"])
    assert render["status"] == "completed", render
    effect = render["quality"]["stabiliseEffect"]
    # Of two seconds, at 1/8 s and every half a second after it.
    assert effect["pairs"] == 4
    assert 0 < effect["warpingErrorAfter"] < effect["warpingErrorBefore"]
    assert 0 < effect["sharpnessLost"] < 1
    assert 25 < effect["psnrToUnfiltered"] < 60


def test_an_uploaded_file_is_rendered_again_and_again(stand_in_server: Any, tmp_path: Path) -> None:
    with beginning(SHORT, tmp_path / "clip.mp4", packets=10).open("rb") as body:
        answer = stand_in_server.client.post("/v1/files", files={"file": ("clip.mp4", body)})
    file = answer.json()["file"]
    assert (file["width"], file["height"], file["frameRate"]) == (240, 136, 25)
    for engine in ("regen-4x-lite", "regen-4x"):
        answer = stand_in_server.client.post("/v1/upscale", json={"file_id": file["id"], "engine": engine})
        render = stand_in_server.wait(answer.json()["render"]["id"])
        assert (render["status"], render["engine"], render["fileId"]) == ("completed", engine, file["id"])


def test_a_file_cut_off_in_the_middle_is_rendered_as_far_as_it_goes(
    stand_in_server: Any, tmp_path: Path
) -> None:
    whole = tmp_path / "whole.mp4"
    subprocess.run(
        [
            *("ffmpeg", "-v", "error", "-i", str(SHORT)),
            *("-c", "copy", "-movflags", "+faststart", str(whole)),
        ],
        check=True,
    )
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    render = stand_in_server.wait(stand_in_server.submit(cut)["id"])
    assert render["status"] == "completed", render
    assert len(render["warnings"]) == 1
    output = stand_in_server.download(render["outputFileURL"], tmp_path / "output.mp4")
    frames = len(timestamps(probe(output), "video"))
    assert 20 <= frames < 50
    assert render["output"]["frames"] == frames


def test_a_killed_worker_costs_one_segment(start_server: Callable[..., Any], tmp_path: Path) -> None:
    """The worker is killed in mid-render; another is started, and the render completes: whole, and right."""
    clip = beginning(SHORT, tmp_path / "clip.mp4", packets=24)
    with start_server(lease_seconds="2", segment_seconds="0.2") as server:
        render_id = server.submit(clip)["id"]
        deadline = time.monotonic() + 120
        while not 0.1 < server.get(render_id)["progress"] < 0.9:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        killed = server.worker_pid()
        os.kill(killed, signal.SIGKILL)
        render = server.wait(render_id)
        assert render["status"] == "completed", render
        assert server.worker_pid() != killed
        output = server.download(render["outputFileURL"], tmp_path / "output.mp4")
        weights_dir = Settings(data_dir=server.data_dir).weights_dir
    assert timestamps(probe(output), "video") == timestamps(probe(clip), "video")

    # What came out is the network's own work on the frames that went in.
    rgb = torch.from_numpy(decode(clip, width=240, height=136)[[0, 20]].copy())
    network = load_network("regen-4x-lite", weights_directory=weights_dir)
    with torch.inference_mode():
        expected = network(rgb.permute(0, 3, 1, 2) / 255).clamp(0, 1).mul(255).round().to(torch.uint8)
    results = decode(output, width=960, height=544)[[0, 20]]
    for reference, result in zip(expected.permute(0, 2, 3, 1).numpy(), results, strict=True):
        assert decibels(reference, result) > 36


def test_a_stopped_server_goes_on_where_it_was(start_server: Callable[..., Any], tmp_path: Path) -> None:
    """SIGTERM gives the segment in hand back uncharged, without waiting for its lease; the next start goes on."""
    settings = {
        "lease_seconds": "300",
        "segment_seconds": "0.4",
        "max_attempts": "1",
        "stand_in_network": "true",
        "stand_in_seconds_per_frame": "0.06",
    }
    with start_server(**settings) as server:
        render_id = server.submit(SHORT)["id"]
        deadline = time.monotonic() + 120
        while not 0.2 < server.get(render_id)["progress"] < 0.9:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        key = server.client.headers["Authorization"]
    assert server.process.poll() == 0
    with start_server(**settings) as server:
        server.client.headers["Authorization"] = key
        assert server.get(render_id)["status"] == "processing"
        assert server.get(render_id)["progress"] >= 0.2  # one segment of five is done
        render = server.wait(render_id)
    assert render["status"] == "completed", render
