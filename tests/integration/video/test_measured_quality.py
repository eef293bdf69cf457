"""The quality of whole renders, measured on files: every frame against its own, whatever the kind of video."""

import shutil
from collections.abc import Callable
from fractions import Fraction
from math import log10
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from app.platform.errors import Canceled, FfmpegError, FfmpegKilled
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits
from app.platform.media.probe import probe_video
from app.platform.media.rates import Retime
from app.platform.media.work_options import WorkOptions
from app.platform.settings import Settings
from app.platform.work_kinds import WorkKind
from app.work.drain import Drain
from app.work.outage_retry import OutageRetry
from app.work.queries import Claim, Job, SegmentJob
from models.catalog import DEFAULT_ENGINE
from tests.integration.video.conftest import NearestNeighbour
from worker.local import LocalRender, upscale_file
from worker.video import quality
from worker.video.quality import NOT_MEASURED, MeasuredQuality, measure_if_possible, measure_quality
from worker.video.similarity_metrics import MAX_DECIBELS
from worker.work_units import WorkUnits
from worker.workspace import Workspace

Measure = Callable[..., MeasuredQuality]


@pytest.fixture
def measured(runner: FfmpegRunner, tmp_path: Path) -> Callable[..., LocalRender]:
    """Render a file with the stand-in network, losslessly, and measure the result."""

    def run(source: Path, **options: Any) -> LocalRender:
        asked: dict[str, Any] = {
            "engine": DEFAULT_ENGINE,
            "output_quality": "lossless",
            "measures_quality": True,
        }
        return upscale_file(
            runner=runner,
            source=source,
            info=probe_video(runner, source, limits=MediaLimits.from_settings(Settings())),
            destination=tmp_path / "out.mp4",
            options=WorkOptions(**asked | options),
            settings=Settings(segment_seconds=Fraction(1, 2)),
            make_upscaler=lambda plan: NearestNeighbour(plan.source, plan.target),
            work_directory=tmp_path,
            on_progress=lambda progress: None,
        )

    return run


@pytest.fixture
def measure(runner: FfmpegRunner) -> Measure:
    """Measure a render, or another file that claims to be its output."""

    def run(render: Any, output: Path | None = None, *, runner: FfmpegRunner = runner, **more: Any) -> Any:
        way = more.pop("way", measure_quality)
        return way(
            runner,
            source=render.source,
            output=output or render.output,
            render=render.plan,
            segments=render.segments,
            **{"cancelled": lambda: False, "stall_seconds": 60} | more,
        )

    return run


@pytest.fixture(scope="module")
def plain(
    tmp_path_factory: pytest.TempPathFactory,
    ffmpeg: Callable[..., bytes],
    numbered: Callable[..., str],
    rendered_in: Callable[..., Any],
) -> Any:
    """A render of 15 frames that no test changes."""
    directory = tmp_path_factory.mktemp("plain")
    source = directory / "in.mp4"
    ffmpeg("-f", "lavfi", "-i", numbered(frames=15), "-preset", "ultrafast", "-pix_fmt", "yuv420p", source)
    return rendered_in(directory, source)


@pytest.fixture
def degraded(ffmpeg: Callable[..., bytes], tmp_path: Path) -> Callable[..., Path]:
    """A file once more, hardly any bits left."""

    def encode(video: Path, *, crf: int = 42) -> Path:
        path = tmp_path / "bad.mp4"
        ffmpeg("-i", video, "-c:v", "libx264", "-crf", str(crf), "-fps_mode", "passthrough", path)
        return path

    return encode


VARIABLE = "setpts='(N+floor(N/3))/25/TB'"
INTERLACED = ("-vf", "tinterlace=interleave_top,setfield=tff", "-c:v", "mpeg2video", "-flags", "+ildct+ilme")


@pytest.mark.parametrize(
    ("arguments", "options", "graph", "frames"),
    [
        (("-vf", VARIABLE, "-fps_mode", "passthrough"), {}, {"frames": 10, "size": "54x38"}, 10),
        ((), {"target_fps": Fraction(60)}, {"frames": 20}, 24),
        ((), {"target_fps": Fraction(60), "retime": Retime.BLEND}, {"frames": 20}, 24),
        ((), {"target_fps": Fraction(60), "retime": Retime.MOTION}, {"frames": 8}, 19),
        (("-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-x265-params", "log-level=error"), {}, {}, 24),
        (("-pix_fmt", "yuvj420p"), {}, {"frames": 1}, 1),
        (INTERLACED, {}, {"frames": 20, "rate": "50"}, 10),
    ],
    ids=["variable", "faster", "blend", "motion", "10-bit", "one full-range frame", "interlaced"],
)
def test_an_exact_output_is_found_exact(
    clip: Callable[..., Path],
    measured: Callable[..., LocalRender],
    arguments: tuple[str, ...],
    options: dict[str, Any],
    graph: dict[str, Any],
    frames: int,
) -> None:
    """No frame is compared with its neighbour: each shows another number."""
    result = measured(clip("in.mkv", *arguments, **graph), **options)
    assert result.quality == MeasuredQuality(
        psnr=MAX_DECIBELS,
        ssim=pytest.approx(1, abs=1e-9),
        vmaf=result.quality and result.quality.vmaf,
        frames=frames,
        warping_errors=result.quality and result.quality.warping_errors,
    )


@pytest.mark.parametrize(
    ("pix_fmt", "least"),
    # What is lost is what the output's own codes cannot say.
    [("yuv422p12le", 65), ("gbrp", 57)],
)
def test_luma_of_other_formats_agrees(
    clip: Callable[..., Path], measured: Callable[..., LocalRender], pix_fmt: str, least: float
) -> None:
    result = measured(clip("in.mkv", "-c:v", "ffv1", "-pix_fmt", pix_fmt, frames=5))
    assert result.quality is not None
    assert least < result.quality.psnr <= MAX_DECIBELS


def test_figures_agree_with_ffmpegs_own(
    plain: Any,
    measure: Measure,
    degraded: Callable[..., Path],
    runner: FfmpegRunner,
) -> None:
    bad = degraded(plain.output)
    found = measure(plain, bad)
    reduced = (
        "[0:v]scale=64:48:flags=area+accurate_rnd,settb=AVTB,setpts=N[a];[1:v]settb=AVTB,setpts=N[b];[a][b]"
    )

    def ask(name: str) -> float:
        both = (runner.input(path)["v:0"] for path in (bad, plain.source))
        arguments = [word for stream in both for word in stream.output("x").get_args()[:-3]]
        graph = f"{reduced}{name}=stats_file=-"
        done = runner.run(
            [*arguments, "-filter_complex", graph, "-f", "null", "-"],
            purpose="comparing",
            stdout_limit_bytes=100_000,
        )
        lines = done.stdout.decode().splitlines()
        assert len(lines) == found.frames == 15
        values = [
            float(dict(word.split(":") for word in line.split() if ":" in word)[key])
            for line in lines
            for key in ({"psnr": "mse_y", "ssim": "Y"}[name],)
        ]
        return sum(values) / len(values)

    # It reduces to whole codes, and looks through windows of 8x8.
    assert found.psnr < 38
    assert found.psnr == pytest.approx(10 * log10(255**2 / ask("psnr")), abs=0.05)
    assert found.ssim < 0.995
    assert found.ssim == pytest.approx(ask("ssim"), abs=0.004)


def test_flicker_shows_in_the_stability(
    clip: Callable[..., Path],
    rendered: Callable[..., Any],
    measure: Measure,
    ffmpeg: Callable[..., bytes],
    tmp_path: Path,
) -> None:
    """In every other frame brighter by 4 codes; or in all of them, which is no flicker."""
    render = rendered(clip("in.mp4", frames=30, size="48x32"), segment_seconds=Fraction(1, 2))
    assert measure(render).frames == 24

    def brightened(name: str, when: str) -> Path:
        path = tmp_path / name
        ffmpeg(
            *("-i", render.output, "-vf", f"lutyuv=y=clip(val+4\\,0\\,255):enable='{when}'"),
            *("-c:v", "libx264", "-qp", "0", "-preset", "ultrafast", "-fps_mode", "passthrough"),
            *("-enc_time_base", f"1/{render.plan.timescale}"),
            *("-video_track_timescale", str(render.plan.timescale), path),
        )
        return path

    flickering = measure(render, brightened("flicker.mp4", "mod(n,2)"))
    steady = measure(render, brightened("steady.mp4", "1"))
    assert flickering.psnr == pytest.approx(20 * log10(255 / 4) + 10 * log10(2), abs=0.8)
    assert change(flickering) - change(measure(render)) == pytest.approx((4 / 255) ** 2, rel=0.2)
    assert steady.psnr == pytest.approx(20 * log10(255 / 4), abs=0.3)
    assert change(steady) == pytest.approx(change(measure(render)), rel=0.1)


def change(found: MeasuredQuality) -> float:
    """What temporal stability counts, as a share of white squared."""
    assert found.warping_errors is not None and found.warping_errors.explained is not None
    return found.warping_errors.explained


def test_what_cannot_be_measured_does_not_fail_the_render(
    plain: Any, measure: Measure, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(plain.output.read_bytes()[:2000])
    with structlog.testing.capture_logs() as lines:
        assert measure(plain, broken, way=measure_if_possible) is None
    assert [line["event"] for line in lines if line["log_level"] == "warning"] == ["quality_not_measured"]
    with pytest.raises(FfmpegError):
        measure(plain, broken, way=measure_if_possible, is_fatal=lambda error: True)
    with pytest.raises(Canceled):
        measure(plain, way=measure_if_possible, cancelled=lambda: True)


def killed(*arguments: Any, **options: Any) -> Any:
    raise FfmpegKilled("The video program was killed while measuring the quality.")


def test_a_local_render_that_is_not_measured_says_so(
    clip: Callable[..., Path], measured: Callable[..., LocalRender], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "measure_quality", killed)
    result = measured(clip("in.mp4", frames=3))
    assert result.quality is None
    assert result.video.warnings == (NOT_MEASURED,)


class FakePlace:
    """A storage whose keys are files, and a ledger that knows one render and what was told of it."""

    def __init__(self, render: Any) -> None:
        self._render = render
        self._segments = [render.output.with_name(f"segment-{one.index}.mp4") for one in render.segments]
        self.told: list[dict[str, Any]] = []

    def fetch(self, key: str, path: Path, *, in_parts: bool = True) -> None:
        shutil.copy(key, path)

    def put_file(self, key: str, path: Path, *, content_type: str) -> None:
        assert path.stat().st_size

    def delete_all(self, keys: list[str]) -> None:
        pass

    def list(self, prefix: str) -> list[Any]:
        return []

    def job(self) -> Job:
        return Job(
            kind=WorkKind.FINISH,
            render_id="r",
            segment_id=None,
            attempt=2,
            request_id=None,
            file_id="f",
            input_key=str(self._render.source),
            engine=DEFAULT_ENGINE,
            target_fps=None,
            retime=Retime.NEAREST,
            measures_quality=True,
            plan=self._render.plan.to_json(),
            segments=[
                SegmentJob(position=number, plan=segment.to_json(), storage_key=str(path))
                for number, (segment, path) in enumerate(
                    zip(self._render.segments, self._segments, strict=True)
                )
            ],
        )

    def finished(self, claim: Claim, **values: Any) -> None:
        self.told.append(values)


def test_the_finish_tells_the_figures_or_why_there_are_none(
    plain: Any,
    runner: FfmpegRunner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place: Any = FakePlace(plain)
    workspace, drain = Workspace(tmp_path / "work", cache_bytes=10**9), Drain(grace_seconds=60)
    nothing: Any = None
    units = WorkUnits(
        settings=Settings(),
        ledger=place,
        storage=place,
        workspace=workspace,
        runner=runner,
        limits=nothing,
        networks=nothing,
        outage_retry=OutageRetry(seconds=0),
        drain=drain,
        wake=lambda _ready: None,
        on_device_hang=lambda: None,
    )
    job = place.job()
    heartbeat: Any = SimpleNamespace(end=lambda: None)

    units.finish(job, heartbeat, lambda: False)
    figures = place.told.pop()
    assert figures["warnings"] == []
    assert (figures["quality"]["psnr"], figures["quality"]["frames"]) == (MAX_DECIBELS, 15)

    monkeypatch.setattr(quality, "measure_quality", killed)
    units.finish(job, heartbeat, lambda: False)
    figures = place.told.pop()
    assert (figures["warnings"], figures["quality"]) == ([NOT_MEASURED], None)

    # Who ends the worker may have killed its ffmpeg: another one measures.
    drain.request()
    with pytest.raises(FfmpegKilled):
        units.finish(job, heartbeat, lambda: False)
    assert not place.told
    workspace.close()


def test_vmaf_where_ffmpeg_has_it(
    plain: Any,
    measure: Measure,
    degraded: Callable[..., Path],
    able: FfmpegRunner,
) -> None:
    exact = measure(plain, runner=able).vmaf
    lossy = measure(plain, degraded(plain.output, crf=51), runner=able).vmaf
    assert exact is not None and lossy is not None
    assert 97 < exact <= 100
    assert 10 < lossy < exact - 2


def test_pictures_too_small_for_vmaf_have_the_other_figures(
    clip: Callable[..., Path], rendered: Callable[..., Any], measure: Measure, able: FfmpegRunner
) -> None:
    found = measure(rendered(clip("in.mp4", frames=3, size="32x10")), runner=able)
    assert (found.vmaf, found.psnr) == (None, MAX_DECIBELS)
