"""Which runs of ffmpeg and ffprobe count as failures. A shell stands in for both."""

from collections.abc import Callable
from pathlib import Path

import pytest

from app.platform.errors import FfmpegError
from app.platform.media.confinement import OFF
from app.platform.media.process import FfmpegProcess, RunLimits
from app.platform.metrics import ffmpeg_failures

Counts = dict[tuple[str, str], float]


def counts() -> Counts:
    (family,) = ffmpeg_failures.collect()
    return {
        (sample.labels["program"], sample.labels["reason"]): sample.value
        for sample in family.samples
        if sample.name == "regen_ffmpeg_failures_total"
    }


@pytest.fixture
def counted() -> Callable[[], Counts]:
    """What was counted since the test began."""
    before = counts()
    return lambda: {
        labels: value - before.get(labels, 0.0)
        for labels, value in counts().items()
        if value != before.get(labels, 0.0)
    }


def start(script: str, *, program: str | Path = "/bin/sh", wall_seconds: float = 30.0) -> FfmpegProcess:
    return FfmpegProcess(
        command=[str(program), "-c", script],
        purpose="testing",
        # In the sandbox a shell starts no other program.
        limits=RunLimits(wall_seconds=wall_seconds, memory_bytes=2**33, sandbox=OFF),
        stdin=False,
        stdout=False,
    )


@pytest.mark.parametrize(
    ("script", "reason"), [("exit 3", "failed"), ("kill -9 $$", "killed"), ("exec sleep 60", "timeout")]
)
def test_a_failure_counts_once_however_often_it_is_looked_at(counted, script, reason):
    with start(script, wall_seconds=0.3 if reason == "timeout" else 30.0) as process:
        for _time in range(2):
            with pytest.raises(FfmpegError):
                process.wait()

    assert counted() == {("ffmpeg", reason): 1}


def test_programs_are_told_apart(counted, tmp_path):
    ffprobe = tmp_path / "ffprobe-for-tests"
    ffprobe.symlink_to("/bin/sh")

    with pytest.raises(FfmpegError), start("exit 1", program=ffprobe) as process:
        process.wait()
    with pytest.raises(FfmpegError), start("exit 1", program=tmp_path / "none") as process:
        process.wait()

    assert counted() == {("ffprobe", "failed"): 1, ("ffmpeg", "missing"): 1}


def test_what_was_no_longer_wanted_is_no_failure(counted):
    with pytest.raises(FfmpegError), start("exec sleep 60") as process:
        process.wait(cancelled=lambda: True)
    with start("exec sleep 60"):
        pass
    with start("exit 0") as process:
        process.wait()

    assert counted() == {}
