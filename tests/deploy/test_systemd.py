"""The units of systemd, as systemd itself reads them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from app.platform.settings import Settings
from tests.deploy.command_line import parse

UNITS = Path(__file__).parents[2] / "deploy/systemd"

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units beside a program at the path that they name."""
    directory = tmp_path_factory.mktemp("units")
    program = directory / "regen"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for unit in UNITS.glob("*.service"):
        text = unit.read_text().replace("/opt/regen/bin/regen", str(program))
        (directory / unit.name.replace("@.", "@gpu.")).write_text(text)
    return directory


def test_systemd_understands_every_line(installed: Path) -> None:
    units = sorted(str(unit) for unit in installed.glob("*.service"))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    ours = [line for line in verified.stderr.splitlines() if "regen" in line]
    assert len(units) == 2 and not ours


def test_stopping_leaves_time_to_drain() -> None:
    drain = Settings.model_fields["drain_seconds"].default
    for unit in UNITS.glob("*.service"):
        (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit.read_text(), re.MULTILINE)
        # A worker ends itself eight seconds after REGEN_DRAIN_SECONDS (docs/cluster.md).
        assert int(seconds) >= drain + 10


def test_commands_exist() -> None:
    commands = [
        line
        for unit in UNITS.glob("*.service")
        for line in re.findall(r"^Exec\w+=/opt/regen/bin/regen (.+)$", unit.read_text(), re.MULTILINE)
    ]
    assert len(commands) == 3
    for line in commands:
        parse(line.replace("%i", "gpu").replace("$WORKER_OPTIONS", "--all-gpus").split())
