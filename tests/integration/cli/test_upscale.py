import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

CLIP = Path(__file__).parents[2] / "media" / "bunny-240x136-25fps.mp4"


def start(*arguments, environment=()):
    return subprocess.Popen(
        [sys.executable, "-m", "app.cli", "upscale", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "REGEN_STAND_IN_NETWORK": "1", **dict(environment)},
    )


def probe(path):
    answer = subprocess.run(
        ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json", str(path)],
        capture_output=True,
        check=True,
    )
    return {stream["codec_type"]: stream for stream in json.loads(answer.stdout)["streams"]}


def test_a_local_file_is_enlarged_at_another_rate(tmp_path):
    output = tmp_path / "out.mp4"
    options = ("--target-fps", "12.5", "--quality", "small", "--measure-quality")
    process = start(CLIP, output, *options, "--data-dir", tmp_path / "data")
    told, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    video = probe(output)["video"]
    assert (video["width"], video["height"]) == (960, 544)
    assert video["nb_read_frames"] == "25"
    assert video["avg_frame_rate"] == "25/2"
    assert probe(output)["audio"]["codec_name"] == "aac"
    for fact in ("240x136", "960x544", "12.500 (25/2)", "2.000 s", "PSNR", "SSIM", "temporal stability"):
        assert fact in told
    assert list(tmp_path.iterdir()) == [output]


def test_what_is_no_video_is_told_and_nothing_is_written(tmp_path):
    source = tmp_path / "notes.mp4"
    source.write_text("no video at all")
    process = start(source, tmp_path / "out.mp4")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert len(errors.strip().splitlines()) == 1
    assert "not a video" in errors
    assert list(tmp_path.iterdir()) == [source]


def test_stopped_half_way_it_leaves_nothing(tmp_path):
    # The real network takes long enough to be stopped in the middle.
    process = start(CLIP, tmp_path / "out.mp4", environment={"REGEN_STAND_IN_NETWORK": "0"})
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".regen-*/upscale-*/*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []
