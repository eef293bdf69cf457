"""Outputs that reach a target of VMAF: measured from outside, against the same render without loss."""

import errno
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from app.platform.errors import Canceled, ConfigurationError, DiskTooSmall, FfmpegError, FfmpegTimeout
from app.platform.media.codecs import OutputFormat, VmafTarget
from app.platform.media.confinement import OFF
from app.platform.media.containers import VideoCodec
from app.platform.media.ffmpeg import FfmpegRunner, Programs
from app.platform.storage.local import LocalStorage
from app.work.outage_retry import OutageRetry
from tests.integration.video.conftest import NearestNeighbour
from worker.job_files import JobFiles
from worker.pipeline import run_segment
from worker.video.target_encoding import EncodedSegment
from worker.workspace import Workspace

FRAMES = 8
# Grainy pictures, of which encoders lose something.
SOURCE = ("-vf", "noise=alls=40:allf=t:all_seed=7", "-crf", "4", "-threads", "1")
# From the sample's VMAF to the file's; here the sample is all of it.
ROUNDING = 0.01


@pytest.mark.parametrize(("quality", "error"), [(VmafTarget(90), DiskTooSmall), ("high", OSError)])
def test_a_copy_that_the_disk_can_never_hold_is_the_works_own_failure(
    quality: Any,
    error: type[Exception],
    clip: Callable[..., Path],
    planned: Callable[..., Any],
    runner: FfmpegRunner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A disk that holds the input, and a third of the frames' raw bytes."""
    path = clip("in.mp4", "-c:v", "libx264", frames=FRAMES)
    _, render, (segment,) = planned(path)
    raw_bytes = FRAMES * (4 * render.source.width) * (4 * render.source.height) * 3 // 2
    monkeypatch.setattr(Workspace, "capacity_bytes", path.stat().st_size + raw_bytes // 3)
    storage = LocalStorage(root=tmp_path / "storage", url_key=b"secret")
    storage.put_file("files/a/input", path, content_type="video/mp4")
    workspace = Workspace(tmp_path / "work", cache_bytes=0)
    files = JobFiles(storage=storage, workspace=workspace, runner=runner, outage_retry=OutageRetry(seconds=0))
    job: Any = SimpleNamespace(input_key="files/a/input")
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(error), files.room_for_segment(job, render, segment, quality):
        raise full
    workspace.close()


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


@pytest.fixture(scope="session")
def vmaf_of(able: FfmpegRunner) -> Callable[[Path, Path], float]:
    """The VMAF of a file against another by the plain command line."""

    def measure(result: Path, reference: Path) -> float:
        in_order = (
            "settb=1/25,setpts=N,setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
        )
        graph = f"[0:v]{in_order}[a];[1:v]{in_order}[b];[a][b]libvmaf=log_fmt=json:log_path=/dev/stdout:n_threads=2"
        command: list[str | Path] = [able.programs.ffmpeg, "-v", "error", "-i", result, "-i", reference]
        done = subprocess.run(
            [*command, "-lavfi", graph, "-f", "null", "-"], capture_output=True, check=True
        ).stdout
        told = json.loads(done)
        assert len(told["frames"]) == FRAMES
        return float(told["pooled_metrics"]["vmaf"]["mean"])

    return measure


@pytest.fixture
def encoded(
    able: FfmpegRunner, clip: Callable[..., Path], planned: Callable[..., Any], tmp_path: Path
) -> Callable[..., tuple[EncodedSegment, Path]]:
    """Render one segment with the stand-in network; `source` are ffmpeg's arguments for the clip."""

    def run(
        quality: Any,
        *,
        codec: VideoCodec = "h264",
        threads: int | None = None,
        source: tuple[str, ...] = SOURCE,
        name: str = "segment",
        **arguments: Any,
    ) -> tuple[EncodedSegment, Path]:
        path = clip("in.mp4", "-c:v", "libx264", *source, frames=FRAMES)
        _, render, segments = planned(path, form=OutputFormat(codec=codec))
        network = NearestNeighbour(render.source, render.target)
        network.processor_threads = threads
        directory = tmp_path / "work"
        directory.mkdir(exist_ok=True)
        destination = directory / f"{name}.{'mkv' if codec == 'ffv1' else 'mp4'}"
        given: dict[str, Any] = {"runner": able, "cancelled": lambda: False, "stall_seconds": 30, **arguments}
        result = run_segment(
            source=path,
            destination=destination,
            render=render,
            segment=segments[0],
            upscaler=network,
            quality=quality,
            on_frame=lambda done: None,
            **given,
        )
        assert names_in(directory) == [destination.name]
        return result, destination.rename(tmp_path / destination.name)

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("codec", "targets"), [("h264", (85, 94)), ("hevc", (90,)), ("av1", (90,)), ("vp9", (90,))]
)
def test_the_output_has_the_vmaf_that_was_asked_for(
    encoded: Callable[..., tuple[EncodedSegment, Path]],
    vmaf_of: Callable[[Path, Path], float],
    codec: VideoCodec,
    targets: tuple[float, ...],
) -> None:
    _, exact = encoded("lossless", codec="ffv1", name="exact")
    sizes = []
    for target in targets:
        result, path = encoded(VmafTarget(target), codec=codec, name=str(target))
        found = result.quality
        assert found is not None
        # Where x265 codes several frames at a time, they differ a little from those of the trial.
        assert abs(vmaf_of(path, exact) - found.vmaf) < (ROUNDING if codec != "hevc" else 1)
        # The next CRF would not have been enough, and a step costs a few points at most.
        assert target <= found.vmaf < target + 4
        sizes.append(path.stat().st_size)
    assert sizes == sorted(sizes)


@pytest.mark.slow
def test_deep_frames_of_full_range_are_compared_code_by_code(
    encoded: Callable[..., tuple[EncodedSegment, Path]], vmaf_of: Callable[[Path, Path], float]
) -> None:
    source = (*SOURCE, "-pix_fmt", "yuv420p10le", "-color_range", "pc")
    _, exact = encoded("lossless", codec="ffv1", name="exact", source=source)
    result, path = encoded(VmafTarget(90), codec="hevc", source=source)
    assert result.quality is not None
    assert abs(vmaf_of(path, exact) - result.quality.vmaf) < 1
    assert 90 <= result.quality.vmaf < 94


@pytest.mark.slow
def test_workers_of_any_kind_find_the_same(encoded: Callable[..., tuple[EncodedSegment, Path]]) -> None:
    found = [encoded(VmafTarget(92), threads=threads)[0].quality for threads in (1, 8)]
    assert found[0] == found[1]


@pytest.mark.slow
def test_the_best_quality_where_none_is_enough(encoded: Callable[..., tuple[EncodedSegment, Path]]) -> None:
    """libvmaf gives such a picture less than 99 even where it equals itself."""
    still = ("-vf", "trim=end_frame=1,loop=29:1,setpts=N/25/TB", "-crf", "12")
    result, _ = encoded(VmafTarget(99), source=still)
    assert result.quality is not None
    assert result.quality.crf == 8 and result.quality.vmaf < 99


@pytest.fixture
def with_program(able: FfmpegRunner, tmp_path: Path) -> Callable[[str], FfmpegRunner]:
    """A runner of an ffmpeg that runs `script` in place of itself where it is to measure."""

    def make(script: str) -> FfmpegRunner:
        program = tmp_path / "ffmpeg"
        program.write_text(
            f'#!/bin/sh\ncase "$*" in *libvmaf=*) {script};; esac\nexec {able.programs.ffmpeg} "$@"\n'
        )
        program.chmod(0o755)
        programs = Programs(ffmpeg=program, ffprobe=able.programs.ffprobe)
        # A script may start the system's programs alone.
        return FfmpegRunner(programs=programs, limits=replace(able.limits, sandbox=OFF))

    return make


@pytest.mark.parametrize(
    ("script", "error", "sentence"),
    [
        ("echo nonsense; exit 0", FfmpegError, "unreadable answer"),
        ('echo \'{"pooled_metrics": {"vmaf": {"mean": NaN}}, "frames": []}\'; exit 0', FfmpegError, "unread"),
        ('echo \'{"pooled_metrics": {"vmaf": {"mean": 95}}, "frames": [1]}\'; exit 0', FfmpegError, "unread"),
        ("kill -SEGV $$", FfmpegError, "measuring VMAF"),
        (
            "echo \"[error] No such filter: 'libvmaf'\" >&2; exit 1",
            ConfigurationError,
            "has no filter libvmaf",
        ),
    ],
)
def test_libvmaf_at_fault(
    encoded: Callable[..., tuple[EncodedSegment, Path]],
    with_program: Callable[[str], FfmpegRunner],
    tmp_path: Path,
    script: str,
    error: type[Exception],
    sentence: str,
) -> None:
    with pytest.raises(error, match=sentence):
        encoded(VmafTarget(90), runner=with_program(script), source=("-crf", "30"))
    assert names_in(tmp_path / "work") == []


def test_a_measurement_that_hangs(
    encoded: Callable[..., tuple[EncodedSegment, Path]],
    with_program: Callable[[str], FfmpegRunner],
    tmp_path: Path,
) -> None:
    hanging = with_program("exec sleep 60")
    limited = hanging.under(replace(hanging.limits, stall_seconds=1))
    with pytest.raises(FfmpegTimeout):
        encoded(VmafTarget(90), runner=limited, source=("-crf", "30"))
    asked: list[float] = []

    def cancelled() -> bool:
        """Once it measures."""
        asked.append(0)
        return any("trial" in name for name in names_in(tmp_path / "work")) and len(asked) > 20

    with pytest.raises(Canceled):
        encoded(VmafTarget(90), runner=hanging, source=("-crf", "30"), cancelled=cancelled)
    assert names_in(tmp_path / "work") == []


@pytest.mark.slow
def test_parts_of_unlike_quality_are_joined(
    able: FfmpegRunner,
    clip: Callable[..., Path],
    rendered: Callable[..., Any],
    decoded: Callable[..., Any],
) -> None:
    """Plain pictures and noisy ones: each part has its own CRF."""
    noisy = "noise=alls=40:allf=t:enable='gte(t,0.24)'"
    path = clip("in.mp4", "-c:v", "libx264", "-vf", noisy, "-crf", "12", frames=12)
    for codec in ("h264", "hevc"):
        with structlog.testing.capture_logs() as lines:
            result = rendered(
                path,
                quality=VmafTarget(90),
                segment_seconds=Fraction(6, 25),
                form=OutputFormat(codec=codec),
                name=codec,
                runner=able,
            )
        crfs = [line["crf"] for line in lines if line["event"] == "quality_found"]
        assert len(set(crfs)) == 2
        assert len(decoded(result.output).numbers) == 12
