import json
import re
import sys

import pytest
from typer.testing import CliRunner

from app.cli.application import application
from models.catalog import ENGINES


@pytest.fixture
def doctor(monkeypatch, tmp_path):
    """Runs `regen doctor` for tmp_path / "data" under some settings."""

    def run(*arguments, **settings):
        for name, value in settings.items():
            monkeypatch.setenv(f"REGEN_{name.upper()}", value)
        return CliRunner().invoke(application, ["doctor", "--data-dir", str(tmp_path / "data"), *arguments])

    return run


def states(report):
    """The state of each subject in the report."""
    return {subject: state for state, subject in re.findall(r"(?m)^(ok|absent|missing) +([^:]+): ", report)}


def test_a_sound_machine_passes_and_is_left_as_it_was(doctor, tmp_path):
    answer = doctor()
    assert answer.exit_code == 0, answer.output
    found = states(answer.stdout)
    for subject in (
        "ffmpeg",
        "ffprobe",
        "encoder libx264",
        "encoder libx265",
        "encoder aac",
        "decoding",
        "filters and muxers",
        "CPU",
    ):
        assert found[subject] == "ok"
    assert {f"weights of {engine}" for engine in ENGINES} <= found.keys()
    assert list(tmp_path.iterdir()) == []


def test_what_is_broken_is_named_and_fails(doctor, tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "regen-4x-lite.safetensors").write_bytes(b"no weights")
    answer = doctor(
        weights_dir=str(tmp_path / "weights"),
        database_url="postgresql+nodriver://user:hunter2@nowhere/regen",
        broker_url="redis://127.0.0.1:1/0",
        ffmpeg="/no/such/ffmpeg",
    )
    assert answer.exit_code == 1
    found = states(answer.stdout)
    for subject in ("ffmpeg and ffprobe", "weights of regen-4x-lite", "database", "broker"):
        assert found[subject] == "missing"
        assert subject in answer.stderr
    assert "hunter2" not in answer.output


def test_a_program_that_is_no_ffmpeg_is_found_out_by_its_work(doctor):
    answer = doctor(ffmpeg="/bin/true", ffprobe="/bin/true")
    assert answer.exit_code == 1
    found = states(answer.stdout)
    for subject in (
        *("encoder libx264", "encoder libx265", "encoder aac"),
        *("decoders", "filters and muxers"),
    ):
        assert found[subject] == "missing"


def test_a_database_without_its_migrations_is_told(doctor, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "regen.db").touch()
    answer = doctor()
    assert answer.exit_code == 1
    assert states(answer.stdout)["database"] == "missing"
    assert "regen db upgrade" in answer.stdout


def test_each_finding_as_json_with_a_remedy_of_its_own_where_one_is_needed(doctor, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "secret").write_text("x" * 64)
    options = {"lease_second": "3", "ffmpeg": "/bin/true", "ffprobe": "/bin/true", "api_processes": "64"}
    answer = doctor("--json", **options)
    assert answer.exit_code == 1
    found = {finding["subject"]: finding for finding in json.loads(answer.stdout)}
    assert found["setting REGEN_LEASE_SECOND"]["fix"] == "rename it to REGEN_LEASE_SECONDS"
    assert found["secret"]["state"] == "missing"
    assert found["API processes"]["state"] == "absent"
    assert "x" * 64 not in answer.output
    for finding in found.values():
        assert bool(finding["fix"]) == (finding["state"] != "ok"), finding
    fixes = [finding["fix"] for finding in found.values() if finding["state"] == "missing"]
    assert len(fixes) == len(set(fixes)) > 3
