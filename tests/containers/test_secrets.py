"""scripts/secrets: random passwords as files, never written over."""

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from app.platform.settings import Settings
from tests.containers.compose import ROOT, configuration


def make_secrets(directory: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(ROOT / "scripts/secrets"), str(directory)], capture_output=True, text=True, check=False
    )


def contents(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    directory = tmp_path / "secrets"
    assert make_secrets(directory).returncode == 0
    return directory


@pytest.mark.skipif(sys.platform != "linux", reason="Compose is installed for Linux only")
def test_every_secret_of_the_compose_file_is_made(made: Path) -> None:
    named = {Path(secret["file"]).name for secret in configuration("gpu", "monitoring")["secrets"].values()}
    assert set(contents(made)) == named


def test_each_directory_has_secrets_of_its_own(made: Path, tmp_path: Path) -> None:
    assert make_secrets(tmp_path / "other").returncode == 0
    other = contents(tmp_path / "other")
    for name, value in contents(made).items():
        assert value != other[name], name
        assert len(value) >= 16, name


def test_containers_may_read_the_files_and_nobody_else_here_may(made: Path) -> None:
    """A mount of a file goes past the directory that it lies in."""
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in made.iterdir()} == {0o444}


def test_settings_read_them(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGEN_SECRETS_DIR", str(made))
    settings = Settings()
    for name in (
        "secret_key",
        "database_password",
        "broker_password",
        "s3_access_key",
        "s3_secret_key",
        "metrics_token",
    ):
        assert getattr(settings, name).get_secret_value() == (made / f"regen_{name}").read_text()


def test_servers_are_told_the_same_passwords(made: Path) -> None:
    files = contents(made)
    assert files["redis.conf"] == f"requirepass {files['regen_broker_password']}\n"
    (identity,) = json.loads(files["s3.json"])["identities"]
    assert identity["credentials"] == [
        {"accessKey": files["regen_s3_access_key"], "secretKey": files["regen_s3_secret_key"]}
    ]


def test_a_second_run_changes_nothing(made: Path) -> None:
    before = contents(made)
    assert make_secrets(made).returncode == 0
    assert contents(made) == before


def test_what_is_missing_is_made_and_the_rest_kept(made: Path) -> None:
    before = contents(made)
    (made / "regen_metrics_token").unlink()
    again = make_secrets(made)
    after = contents(made)
    assert again.returncode == 0 and "regen_metrics_token" in again.stdout
    assert after.pop("regen_metrics_token") != before.pop("regen_metrics_token")
    assert after == before


def test_a_password_is_not_changed_in_one_of_two_places(made: Path) -> None:
    (made / "regen_s3_secret_key").unlink()
    before = contents(made)
    refused = make_secrets(made)
    assert refused.returncode == 1 and "s3.json" in refused.stderr
    assert contents(made) == before
