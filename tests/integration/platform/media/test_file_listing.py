"""A listing of a small file, against separate runs of ffprobe."""

from pathlib import Path

import pytest

from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.file_listing import list_file
from worker.video.sound_runs import PACKETS

BUNNY = "bunny-240x136-25fps.mp4"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".mov", ".avi"])
def test_it_tells_of_each_packet_what_a_run_for_its_stream_tells(
    runner: FfmpegRunner, clips: Path, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"clip{suffix}"
    runner.run(runner.output(runner.input(clips / BUNNY), path, c="copy", t=1), purpose="copying")
    listing = list_file(runner, path)
    assert listing is not None
    of_video = (
        "-select_streams",
        "v",
        "-show_entries",
        "packet=pts,dts,duration,size,pos,flags",
        "-of",
        "csv=p=0",
    )
    assert list(listing.packets_of(0)) == [_bare(line) for line in runner.scan_lines(path, *of_video) if line]
    assert list(listing.sound_packets()) == [
        _bare(line) for line in runner.scan_lines(path, *PACKETS) if line
    ]


def _bare(line: str) -> str:
    """ffprobe ends some lines with the place of side data that is not there."""
    return line.rstrip(",")
