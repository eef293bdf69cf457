import importlib.metadata
import os
import subprocess
import sys
from functools import partial

import pytest
from rich.console import Console

from app.cli import reporting
from models.catalog import ENGINES


def test_every_engine_is_listed(regen):
    answer = regen("engines")
    assert answer.exit_code == 0
    for engine in ENGINES.values():
        assert engine.id in answer.stdout
        assert engine.description in answer.stdout


def test_the_version_is_that_of_the_package(regen):
    answer = regen("--version")
    assert answer.exit_code == 0
    assert answer.stdout == f"regen {importlib.metadata.version('regen-server')}\n"


def test_what_is_heavy_is_left_alone_until_a_command_needs_it():
    heavy = "torch numpy celery sqlalchemy fastapi uvicorn ffmpeg worker httpx"
    script = (
        "import sys; from app.cli.application import application\n"
        "try: application(['engines'])\n"
        "except SystemExit: pass\n"
        f"print(sorted(set({heavy.split()}) & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "command",
    [
        *("serve", "mock", "worker", "upscale", "users add", "keys create", "db upgrade", "db status"),
        *("storage check", "storage create-bucket", "engines", "doctor"),
    ],
)
def test_every_command_explains_itself(regen, command):
    answer = regen(*command.split(), "--help")
    assert answer.exit_code == 0
    assert "Usage" in answer.stdout


def test_a_faulty_setting_is_named_with_its_variable(regen, monkeypatch):
    monkeypatch.setenv("REGEN_LEASE_SECONDS", "1")
    answer = regen("keys", "list")
    assert answer.exit_code == 1
    assert "REGEN_LEASE_SECONDS" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_the_value_of_a_secret_is_never_told(regen, monkeypatch):
    monkeypatch.setenv("REGEN_SECRET_KEY", "too-short-secret")
    answer = regen("keys", "list")
    assert answer.exit_code == 1
    assert "REGEN_SECRET_KEY" in answer.stderr
    assert "too-short-secret" not in answer.output


def test_a_directory_that_cannot_be_made_is_told_in_a_sentence(regen, tmp_path):
    (tmp_path / "file").write_text("")
    answer = regen("keys", "list", "--data-dir", tmp_path / "file" / "below")
    assert answer.exit_code == 1
    assert len(answer.stderr.strip().splitlines()) == 1
    assert str(tmp_path / "file") in answer.stderr


def test_the_status_of_a_database_that_is_not_there_makes_none(regen, tmp_path):
    file = tmp_path / "data" / "regen.db"
    answer = regen("db", "status")
    assert answer.exit_code == 1
    assert str(file) in answer.stdout
    assert not file.parent.exists()
    assert regen("db", "upgrade").exit_code == 0
    assert file.exists()
    assert regen("db", "status").exit_code == 0


def test_debug_shows_where_an_error_came_from(regen, database):
    answer = regen("--debug", "keys", "create", "--user", "nobody")
    assert answer.exit_code == 1
    assert type(answer.exception).__name__ == "NotFound"


@pytest.mark.parametrize("missing", ["torch", "numpy"])
@pytest.mark.parametrize("command", ["worker", "serve", "upscale"])
def test_without_the_workers_packages_the_way_to_them_is_told(regen, monkeypatch, tmp_path, command, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    arguments = {"worker": [], "serve": ["--port", "0"], "upscale": [__file__, tmp_path / "out.mp4"]}[command]
    answer = regen(command, *arguments)
    assert answer.exit_code == (os.EX_CONFIG if command == "worker" else 1)
    assert "regen-server[worker]" in answer.stderr


def test_a_table_that_is_wider_than_the_terminal_becomes_lines(monkeypatch, capsys):
    console = partial(Console, width=40)
    monkeypatch.setattr(reporting, "stdout", console)
    reporting.print_rows(("id", "name"), [("XYvJu0123456789a", "[b]a name[/b]")])
    assert "│" in capsys.readouterr().out
    reporting.print_rows(
        ("id", "name"), [("XYvJu0123456789a", "a [bold]name[/bold] of many words, which go on")]
    )
    shown = capsys.readouterr().out
    assert "XYvJu0123456789a" in shown and "[bold]" in shown and "│" not in shown
    assert max(map(len, shown.splitlines())) <= 40
