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


def test_stopped_half_way_it_leaves_nothing(tmp_path, heeded_interrupts):
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


READ_WITHOUT_TORCH = """
import sys
from pathlib import Path

sys.modules["torch"] = sys.modules["cv2"] = None  # an import raises ImportError
from app.cli.local_render import render_locally
from app.platform.settings import Settings
from app.platform.media.work_options import WorkOptions

seen = []
try:
    render_locally(
        Settings(), source=Path(sys.argv[1]), destination=Path(sys.argv[2]),
        options=WorkOptions(engine="regen-4x-lite"), work_directory=Path(sys.argv[2]).parent,
        on_progress=lambda at: seen.append(at.total), cancelled=lambda: False,
    )
except ImportError:
    print(seen)
"""


def test_a_video_is_read_while_torch_is_being_imported(tmp_path):
    command = [sys.executable, "-c", READ_WITHOUT_TORCH, str(CLIP), str(tmp_path / "out.mp4")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.splitlines()[-1:] == ["[50]"], done.stderr
