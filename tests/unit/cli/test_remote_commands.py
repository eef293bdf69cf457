"""Commands against servers, without a server: logins, flags, lines, exit codes."""

import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest
import typer
from regen_client import Progress
from regen_client.errors import ApiError, NoAnswer, RegenError, WaitTimeout
from typer.main import get_command

from app.cli.application import ON_SERVERS, application
from app.cli.remote.connection import NoLogin, find_key, find_server, keep_login, logins_file
from app.cli.remote.display import Display
from app.cli.remote.render_flags import FLAG_NAMES, PANEL, given_options
from app.cli.remote.session import ExitCode, exit_code_of
from app.renders.options import RenderOptions

HERE, THERE = "http://127.0.0.1:8000", "https://regen.example.com/api"


@pytest.fixture(autouse=True)
def no_login(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("REGEN_SERVER", raising=False)
    monkeypatch.delenv("REGEN_KEY", raising=False)


class TestLogins:
    def test_the_file_is_its_owners_alone_and_a_key_goes_to_its_own_server(self, monkeypatch):
        keep_login(HERE, "first")
        keep_login(THERE, "second")
        assert stat.S_IMODE(logins_file().stat().st_mode) == 0o600
        assert [path.name for path in logins_file().parent.iterdir()] == ["logins.json"]
        assert (find_server(None), find_key(THERE), find_key(HERE)) == (THERE, "second", "first")
        assert find_server("http://127.0.0.1:8000/v1/") == HERE
        with pytest.raises(NoLogin, match="regen login http://other"):
            find_key("http://other")
        monkeypatch.setenv("REGEN_SERVER", "http://other/v1")
        monkeypatch.setenv("REGEN_KEY", "third")
        assert (find_server(None), find_key("http://other")) == ("http://other", "third")

    def test_without_one_the_way_to_it_is_told(self, regen):
        answer = regen("list")
        assert (answer.exit_code, "regen login" in answer.stderr) == (ExitCode.NO_ACCESS, True)
        logins_file().parent.mkdir(parents=True)
        logins_file().write_text("{")
        answer = regen("list", "--json")
        assert answer.exit_code == ExitCode.NO_ACCESS
        assert "logins.json" in json.loads(answer.stderr)["errors"][0]["message"]
        assert regen("list", "--server", "regen.example.com").exit_code == ExitCode.USAGE


class TestFlags:
    @pytest.fixture
    def given(self, monkeypatch, regen, tmp_path):
        """Runs `regen submit` as far as its options are read."""
        seen = []
        monkeypatch.setattr(
            "app.cli.remote.submit.given_options", lambda context: seen.append(given_options(context))
        )
        monkeypatch.setattr("app.cli.remote.submit.carry_out", lambda *_, **__: None)

        def run(*arguments):
            answer = regen("submit", "an-id", *arguments)
            return seen.pop() if answer.exit_code == 0 else answer.stderr

        return run

    def test_there_is_one_for_each_option_of_the_api(self, regen):
        shown = regen("submit", "--help").stdout
        for name in RenderOptions.model_json_schema()["properties"]:
            assert f"--{FLAG_NAMES.get(name, name)}".replace("_", "-") in shown

    def test_values_are_sent_as_json_has_them(self, given):
        assert given(
            "--target-fps", "29.97", "--scale", "2", "--measure-quality", "--start", "00:00:01.5"
        ) == {
            "target_fps": 29.97,
            "scale": 2,
            "quality": True,
            "start": "00:00:01.5",
        }
        assert given(
            "--target-fps", "30000/1001", "--metadata", "a=b=c", "--metadata", "d=", "--engine", "own"
        ) == {
            "target_fps": "30000/1001",
            "metadata": {"a": "b=c", "d": ""},
            "engine": "own",
        }
        assert given("--priority", "-5", "--codec", "av1") == {"priority": -5, "codec": "av1"}
        assert given() == {}

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["--target-fps", "500"], "target_fps"),
            (["--scale", "2", "--max-width", "100"], "cannot be given together"),
            (["--codec", "mpeg2"], "h264"),
            (["--codec", "prores", "--container", "mp4"], "prores"),
            (["--metadata", "a"], "NAME=VALUE"),
        ],
    )
    def test_faulty_ones_are_refused_before_anything_is_sent(self, given, arguments, told):
        assert told in " ".join(given(*arguments).split())

    def test_files_that_are_not_there_are_named_first(self, regen, tmp_path):
        answer = regen("submit", "absent.mp4")
        assert (answer.exit_code, "absent.mp4" in answer.stderr) == (ExitCode.USAGE, True)
        (tmp_path / "file").touch()
        answer = regen("submit", "an-id", "--output", tmp_path / "file" / "below")
        assert (answer.exit_code, "--output" in answer.stderr) == (ExitCode.USAGE, True)


def test_lines_where_there_is_no_terminal_are_few(capsys):
    with Display() as display:
        show = display.track("clip[1].mp4")
        for done in range(0, 1_000_000, 100):
            show(Progress(stage="upload", done=done, total=1_000_000))
        show(Progress(stage="render", done=0, total=50, status="queued"))
        show(Progress(stage="render", done=7, total=50, status="processing"))
        display.end("clip[1].mp4")
    assert capsys.readouterr().err.splitlines() == [
        "clip[1].mp4: uploading, 0.0 of 1.0 MB",
        "clip[1].mp4: queued, 0 of 50 frames",
        "clip[1].mp4: processing, 7 of 50 frames",
    ]
    with Display(silent=True) as display:
        display.track("clip")(Progress(stage="upload", done=1, total=2))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ApiError(400, ["No."]), ExitCode.FAILED),
        (ApiError(401, ["No."]), ExitCode.NO_ACCESS),
        (ApiError(403, ["No."]), ExitCode.NO_ACCESS),
        (ApiError(503, ["No."]), ExitCode.NO_ANSWER),
        (NoAnswer("No."), ExitCode.NO_ANSWER),
        (RegenError("No."), ExitCode.FAILED),
        (WaitTimeout("No."), ExitCode.TIME_OVER),
        (FileNotFoundError("No."), ExitCode.FAILED),
    ],
)
def test_exit_codes(error, code):
    assert exit_code_of(error) is code


def test_its_page_has_every_command_with_its_flags():
    page = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
    described = {
        words.split()[0]: set(re.findall(r"--[a-z-]+", words))
        for row in re.findall(r"^\| (`.*?) \| ", page, re.MULTILINE)
        for words in re.findall(r"`([^`]+)`", row)
    }
    root: Any = get_command(application)
    known = {
        name: {
            param.opts[0]
            for param in command.get_params(typer.Context(command))
            if param.param_type_name == "option" and param.rich_help_panel != PANEL
        }
        - {"--help", "--server", "--json"}
        for name, command in root.commands.items()
        if command.rich_help_panel == ON_SERVERS
    }
    assert {name: described[name] for name in known} == known
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    assert codes == {0, *ExitCode}
