import pytest
from typer.testing import CliRunner

from app.cli.application import application


@pytest.fixture
def regen(monkeypatch, tmp_path):
    """Runs `regen` with its data in tmp_path / "data" and returns what came of it."""
    monkeypatch.setenv("REGEN_DATA_DIR", str(tmp_path / "data"))
    runner = CliRunner()
    return lambda *arguments: runner.invoke(application, [str(argument) for argument in arguments])


@pytest.fixture
def database(regen):
    """An empty database at head in the data directory."""
    assert regen("db", "upgrade").exit_code == 0
