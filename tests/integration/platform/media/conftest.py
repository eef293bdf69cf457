"""A runner on the real programs, and inputs made with them."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from app.platform.media import confinement
from app.platform.media.ffmpeg import FfmpegRunner, Programs, RunLimits, find_programs
from app.platform.media.limits import MediaLimits
from app.platform.settings import Settings

REPOSITORY = Path(__file__).parents[4]


@pytest.fixture(scope="session")
def clips() -> Path:
    return REPOSITORY / "tests" / "media"


@pytest.fixture(scope="session")
def programs() -> Programs:
    settings = Settings()
    return find_programs(ffmpeg=settings.ffmpeg, ffprobe=settings.ffprobe)


@pytest.fixture
def make_runner(programs: Programs) -> Callable[..., FfmpegRunner]:
    def make(*, wall_seconds: float = 60, memory_bytes: int = 2 * 1024**3) -> FfmpegRunner:
        return FfmpegRunner(
            programs=programs, limits=RunLimits(wall_seconds=wall_seconds, memory_bytes=memory_bytes)
        )

    return make


@pytest.fixture
def runner(make_runner: Callable[..., FfmpegRunner]) -> FfmpegRunner:
    return make_runner()


@pytest.fixture
def limits() -> MediaLimits:
    return MediaLimits.from_settings(Settings())


@pytest.fixture
def make(programs: Programs, tmp_path: Path) -> Callable[..., Path]:
    """`make("name.mkv", "-i", source, ...)`: a file made by ffmpeg itself, without the runner."""

    def run(name: str, *arguments: str | Path) -> Path:
        destination = tmp_path / name
        command = [programs.ffmpeg, "-nostdin", "-loglevel", "error", "-y", *arguments, destination]
        subprocess.run(command, check=True, timeout=60)
        return destination

    return run


@pytest.fixture
def make_moving(make: Callable[..., Path]) -> Callable[..., Path]:
    """`make_moving("name.mp4", ...)`: a second of a moving test picture, 64x48 at 25 frames a second."""

    def run(
        name: str, *arguments: str | Path, source: str = "testsrc2=size=64x48:rate=25:duration=1"
    ) -> Path:
        return make(name, "-f", "lavfi", "-i", source, *arguments)

    return run


@pytest.fixture(params=["compiled", "Python"])
def starter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The launcher of a test, which runs with either."""
    kind: str = request.param
    if kind == "Python":
        monkeypatch.setattr(confinement, "compiled_launcher", lambda: None)
    elif confinement.compiled_launcher() is None:
        pytest.skip("the package was installed without a C compiler")
    return kind
