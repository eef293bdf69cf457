import pytest
from typer.testing import CliRunner

from app.cli.application import application
from models.catalog import ENGINES


@pytest.fixture
def doctor(monkeypatch, tmp_path):
    """Runs `regen doctor` for tmp_path / "data" under some settings."""

    def run(**settings):
        for name, value in settings.items():
            monkeypatch.setenv(f"REGEN_{name.upper()}", value)
        return CliRunner().invoke(application, ["doctor", "--data-dir", str(tmp_path / "data")])

    return run


def states(report):
    """The state of each subject in the table."""
    rows = [line.split("│") for line in report.splitlines() if line.count("│") > 3]
    return {row[1].strip(): row[2].strip() for row in rows if row[1].strip()}


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
    for subject in ("encoder libx264", "encoder libx265", "encoder aac", "decoders"):
        assert found[subject] == "missing"


def test_a_database_without_its_migrations_is_told(doctor, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "regen.db").touch()
    answer = doctor()
    assert answer.exit_code == 1
    assert states(answer.stdout)["database"] == "missing"
    assert "regen db upgrade" in answer.stdout
