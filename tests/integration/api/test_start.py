import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.main import create_app
from app.platform.errors import ConfigurationError, FfmpegMissing, RegenError

ROOT = Path(__file__).parents[3]


def start(settings) -> None:
    async def run() -> None:
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            pass

    asyncio.run(run())


def test_the_api_loads_neither_torch_nor_the_worker():
    program = (
        "import sys, app.main; app.main.create_app\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'numpy', 'worker')])"
    )

    shown = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert shown.stdout == "[]\n"


def test_importing_and_making_the_application_touches_nothing(settings):
    create_app(settings)

    assert not settings.data_dir.exists()


@pytest.mark.parametrize("rule", ["often", "0/minute", "100", "100/fortnight", "-1/second"])
def test_a_rate_limit_that_makes_no_sense(settings, rule):
    with pytest.raises(ConfigurationError, match="must look like 100/minute"):
        start(settings.model_copy(update={"rate_limit": rule}))


@pytest.mark.parametrize("program", ["ffmpeg", "ffprobe"])
def test_a_program_that_is_not_there(settings, program):
    with pytest.raises(FfmpegMissing) as error:
        start(settings.model_copy(update={program: "/nowhere/program"}))

    assert isinstance(error.value, RegenError)


def test_uploads_that_a_crash_left_are_removed_after_a_day(settings, spool_files):
    settings.spool_dir.mkdir(parents=True)
    for name, age_hours in (("upload-old", 25), ("upload-young", 23), ("something-else", 25)):
        path = settings.spool_dir / name
        path.touch()
        os.utime(path, (0, time.time() - age_hours * 3600))

    start(settings)

    assert spool_files() == ["something-else", "upload-young"]
