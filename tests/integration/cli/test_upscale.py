import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.forked import ForkedServerProcess
from tests.servers.process import wait_until

CLIP = Path(__file__).parents[2] / "media" / "bunny-240x136-25fps.mp4"


@pytest.fixture
def start(tmp_path_factory):
    """Start `regen upscale ARGUMENTS`. What it prints, to either stream, is in its log."""
    log = tmp_path_factory.mktemp("upscale") / "log"

    def start_one(*arguments, environment=()):
        environment = {**os.environ, "REGEN_STAND_IN_NETWORK": "1", **dict(environment)}
        return ForkedServerProcess(["upscale", *arguments], log=log, environment=environment)

    return start_one


def end_of(process, *, seconds=120):
    """Its exit status, once it has ended by itself."""
    wait_until(lambda: process.status is not None, seconds=seconds, what="it ends")
    return process.status


def probe(path):
    answer = subprocess.run(
        ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json", str(path)],
        capture_output=True,
        check=True,
    )
    return {stream["codec_type"]: stream for stream in json.loads(answer.stdout)["streams"]}


def test_a_local_file_is_enlarged_at_another_rate(start, tmp_path):
    output = tmp_path / "out.mp4"
    options = ("--target-fps", "12.5", "--quality", "small", "--measure-quality")
    process = start(CLIP, output, *options, "--data-dir", tmp_path / "data")
    assert end_of(process) == 0, process.tail()
    told = process.tail()
    video = probe(output)["video"]
    assert (video["width"], video["height"]) == (960, 544)
    assert video["nb_read_frames"] == "25"
    assert video["avg_frame_rate"] == "25/2"
    assert probe(output)["audio"]["codec_name"] == "aac"
    for fact in ("240x136", "960x544", "12.500 (25/2)", "2.000 s", "PSNR", "SSIM", "temporal stability"):
        assert fact in told
    assert list(tmp_path.iterdir()) == [output]


def test_what_is_no_video_is_told_and_nothing_is_written(start, tmp_path):
    source = tmp_path / "notes.mp4"
    source.write_text("no video at all")
    process = start(source, tmp_path / "out.mp4")
    assert end_of(process) == 1
    told = process.tail()
    assert len(told.strip().splitlines()) == 1
    assert "not a video" in told
    assert list(tmp_path.iterdir()) == [source]


def test_stopped_half_way_it_leaves_nothing(start, tmp_path):
    # The real network takes long enough to be stopped in the middle.
    process = start(CLIP, tmp_path / "out.mp4", environment={"REGEN_STAND_IN_NETWORK": "0"})
    process.wait_until(
        lambda: list(tmp_path.glob(".regen-*/upscale-*/*")), seconds=60, what="it is in the middle"
    )
    process.send_signal(signal.SIGINT)
    assert end_of(process) == 130, process.tail()
    assert "Traceback" not in process.tail()
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
