"""The units of systemd, as systemd itself reads them."""

import re
import secrets
import shutil
import subprocess
from pathlib import Path

import pytest

from app.platform.settings import Settings
from tests.deploy.command_line import parse
from tests.documentation.samples import text_of

UNITS = Path(__file__).parents[2] / "deploy/systemd"
# It prints the variables of files that it reads as those of EnvironmentFile= are read.
READER = Path("/usr/lib/systemd/user-environment-generators/30-systemd-environment-d-generator")

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


@pytest.mark.skipif(not READER.exists(), reason="this systemd has no environment.d")
def test_the_environment_file_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/operating.md: systemd reads from it what it says, and the settings take it."""
    text = text_of("docs/operating.md", "# /etc/regen/regen.env")
    (tmp_path / "environment.d").mkdir()
    (tmp_path / "environment.d" / "regen.conf").write_text(text)
    own = {"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)}
    told = subprocess.run([READER], capture_output=True, text=True, check=True, env=own).stdout
    read = dict(line.split("=", 1) for line in told.splitlines() if line.startswith("REGEN_"))
    assert read == dict(line.split("=", 1) for line in text.splitlines() if not line.startswith("#"))
    secret = secrets.token_hex(32)
    for name, value in read.items():
        monkeypatch.setenv(name, value.replace("...", secret))
    settings = Settings()
    assert settings.secret_key is not None and settings.secret_key.get_secret_value() == secret
    assert {name.removeprefix("REGEN_").lower() for name in read} <= settings.model_fields_set
    assert f"EnvironmentFile={text.split()[1].rstrip(',')}" in (UNITS / "regen-api.service").read_text()
