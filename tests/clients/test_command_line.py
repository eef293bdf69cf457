"""Commands against servers, on the mock; on a real server in test_with_a_server.py."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from app.cli.application import application
from app.cli.remote.render_flags import as_flags
from app.cli.remote.session import ExitCode
from app.cli.remote.submit import Submission, _how_to_go_on
from tests.servers.process import wait_until
from tests.servers.receiver import receiving

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture
def command(regen_mock, monkeypatch, tmp_path):
    """Runs `regen` in an empty directory, logged in to the mock."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("REGEN_SERVER", raising=False)
    monkeypatch.delenv("REGEN_KEY", raising=False)
    monkeypatch.setattr("webbrowser.open", lambda _: True)

    def run(*arguments, typed=None):
        return CliRunner().invoke(application, [str(one) for one in arguments], input=typed)

    logged_in = run("login", f"{regen_mock.url}/v1/", typed=f"{regen_mock.key}\n")
    assert logged_in.exit_code == 0, logged_in.stderr
    return run


def renders_of(answer) -> list[dict]:
    assert answer.exit_code == 0, answer.stderr
    return json.loads(answer.stdout)["renders"]


def test_from_video_to_result(command, clip, tmp_path):
    answer = command("submit", clip, "--scale", "2", "--metadata", "order=A-17", "--output", tmp_path)
    assert (answer.exit_code, answer.stdout) == (0, f"{tmp_path}/{clip.stem}-2x.mp4\n")
    (render,) = renders_of(command("list", "--json"))
    assert (render["scale"], render["metadata"]) == (2, {"order": "A-17"})
    written = tmp_path / f"{clip.stem}-2x.mp4"
    assert written.read_bytes() == httpx.get(render["outputFileURL"]).content

    # What is there stays as it is.
    again = command("download", render["id"], "--json")
    assert json.loads(again.stdout)["files"] == [
        {"renderId": render["id"], "path": f"{clip.stem}-2x-{render['id']}.mp4"}
    ]
    assert command("download", render["id"], "--output", "t.jpg", "--result", "thumbnail").exit_code == 0
    assert sorted(path.suffix for path in tmp_path.glob("*.*")) == [".jpg", ".mp4", ".mp4"]
    assert command("download", render["id"], "--output", "new/").stdout == f"new/{clip.stem}-2x.mp4\n"
    assert "960x" not in command("status", render["id"]).stdout
    assert command("open", render["id"], "--json").exit_code == 0
    address = command("stream", render["id"]).stdout.strip()
    assert httpx.get(address).text.startswith("#EXTM3U")
    assert json.loads(command("stream", render["id"], "--json").stdout)["streamURL"].startswith("http")


def test_results_of_one_name_are_all_kept(command, clip, tmp_path):
    answer = command("submit", clip, clip, clip, "--end", "0.2", "--output", "results")
    assert answer.exit_code == 0, answer.stderr
    results = [Path(line) for line in answer.stdout.splitlines()]
    assert sorted(results) == sorted(path.relative_to(tmp_path) for path in (tmp_path / "results").iterdir())
    ids = [render["id"] for render in renders_of(command("list", "--json"))]
    assert {path.stem for path in results} < {f"{clip.stem}-4x", *(f"{clip.stem}-4x-{one}" for one in ids)}
    again = command("download", *ids, ids[0], "--output", "again").stdout.splitlines()
    assert len(set(again)) == len(list((tmp_path / "again").iterdir())) == 3


@pytest.mark.parametrize("name", [b"not\xfftext.mp4", b"red\x1b[31m.mp4", b"two\nlines.mp4", b"-o.mp4"])
def test_names_that_not_every_program_takes(command, clip, tmp_path, name):
    try:
        Path(os.fsdecode(name)).write_bytes(clip.read_bytes())
    except OSError:
        pytest.skip("this file system takes no such name")
    answer = command("submit", "--end", "0.2", "--output", "results", "--", os.fsdecode(name))
    assert answer.exit_code == 0, answer.stderr
    (result,) = (tmp_path / "results").iterdir()
    assert answer.stdout == f"results/{result.name}\n" and result.name.isprintable()
    assert all(line.isprintable() and ".mp4: " in line for line in answer.stderr.splitlines())


def test_one_that_is_refused_keeps_nothing_from_the_others(command, clip, regen_mock):
    regen_mock.faults({"route": "POST *", "times": 2, "action": {"render": {"stuck_in": "queued"}}})
    first, last = (command("submit", clip).stdout.strip() for _ in range(2))
    ended = command("submit", clip).stdout.strip()
    canceled = command("cancel", first, ended, last, "--json")
    assert canceled.exit_code == ExitCode.FAILED and f"{ended}: " in canceled.stderr
    assert [one["id"] for one in json.loads(canceled.stdout)["renders"]] == [first, last]
    for verb in ("status", "watch", "download"):
        answer = command(verb, "nosuch", ended)
        assert answer.exit_code == ExitCode.FAILED and "nosuch: Render not found\n" in answer.stderr, verb
        assert answer.stdout


def test_a_folder_is_no_video(command, tmp_path):
    (tmp_path / "videos").mkdir()
    answer = command("submit", "videos")
    assert (answer.exit_code, "is a folder" in answer.stderr) == (ExitCode.USAGE, True)


def test_a_result_is_sent_again(command, clip):
    with receiving() as receiver:
        submitted = command("submit", clip, "--wait", "--json", "--destination", receiver.url)
        (render,) = renders_of(submitted)
        wait_until(lambda: len(receiver.received) == 1, seconds=30, what="the result is sent")
        other = receiver.url.replace("/hook", "/other")
        shown = json.loads(command("status", render["id"], "--json").stdout)["renders"][0]["destination"]
        wait_until(
            lambda: command("deliver", render["id"], "--destination", other).exit_code == 0,
            seconds=30,
            what="the first attempt has ended",
        )
        wait_until(lambda: len(receiver.received) == 2, seconds=30, what="it is sent again")
        assert [put.path for put in receiver.received] == ["/hook", "/other"] and shown["url"] == receiver.url
    two = command("deliver", render["id"], render["id"], "--destination", other)
    assert two.exit_code == ExitCode.USAGE and "one render" in two.stderr


def test_several_that_fail_in_different_ways(command, clip, regen_mock, tmp_path):
    # Of any that are accepted: the order in which they are sent is not certain.
    regen_mock.faults({"route": "POST /v1/upscale", "action": {"render": {"fail": "The film tore."}}})
    (tmp_path / "text.mp4").write_text("no video")
    answer = command("submit", clip, "text.mp4", clip, "--wait", "--json")
    shown = json.loads(answer.stdout)["renders"]
    told = [error["message"] for error in json.loads(answer.stderr)["errors"]]
    regen_mock.clear_faults()
    assert [render["status"] for render in shown] == ["failed", "failed"] and len(told) == 3
    assert str(told).count("The film tore.") == 2 and "text.mp4: " in str(told)
    assert answer.exit_code == ExitCode.RENDER_FAILED, "as the first of the command's"
    failed = next(one["id"] for one in renders_of(command("list", "--json", "--status", "failed")))
    assert command("watch", failed).exit_code == ExitCode.RENDER_FAILED
    nothing = command("stream", failed)
    assert (nothing.exit_code, "which is failed" in nothing.stderr) == (ExitCode.FAILED, True)
    (retried,) = renders_of(command("retry", failed, "--json"))
    lines = [
        json.loads(line)["render"] for line in command("watch", retried["id"], "--json").stdout.splitlines()
    ]
    assert lines[-1]["status"] == "completed" and lines[-1]["retryOf"] == failed
    assert {one["id"] for one in lines} == {retried["id"]}
    assert command("watch").exit_code == 0
    regen_mock.faults({"route": "POST *", "times": 1, "action": {"render": {"stuck_in": "queued"}}})
    late = command("submit", clip, "--wait", "--timeout", "0.1", "--json")
    assert (late.exit_code, "has not ended" in late.stderr) == (ExitCode.TIME_OVER, True)
    assert command("cancel", retried["id"]).exit_code == ExitCode.FAILED


def test_a_key_that_is_refused_and_a_server_that_is_away(command, monkeypatch):
    monkeypatch.setenv("REGEN_KEY", "wrong")
    answer = command("status", "abc123")
    assert (answer.exit_code, "regen login" in answer.stderr) == (ExitCode.NO_ACCESS, True)
    answer = command("login", "http://127.0.0.1:9")
    assert (answer.exit_code, "does not answer" in answer.stderr) == (ExitCode.NO_ANSWER, True)
    monkeypatch.delenv("REGEN_KEY")
    assert command("list").exit_code == 0, "a login that failed changed nothing"
    for key in ("ключ", "two\nlines", "a word"):
        monkeypatch.setenv("REGEN_KEY", key)
        for words in (["list"], ["verify-api", "http://127.0.0.1:9"], ["login", "http://127.0.0.1:9"]):
            answer = command(*words)
            assert (answer.exit_code, "was it copied whole" in answer.stderr) == (ExitCode.NO_ACCESS, True), (
                words
            )
            assert key not in answer.output


def test_an_interrupted_upload_leaves_nothing_and_the_way_on(
    command, clip, regen_mock, tmp_path, heeded_interrupts
):
    video = tmp_path / "large.mp4"
    content = clip.read_bytes()
    padding = 33 * 1024 * 1024 - len(content)
    video.write_bytes(content + padding.to_bytes(4) + b"free")
    with video.open("r+b") as file:
        file.truncate(len(content) + padding)  # three parts
    regen_mock.faults({"route": "PUT *", "after": 1, "action": {"latency_seconds": 30}})
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "clients/python/src")])}
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "submit", "large.mp4", "--wait"],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr and "uploading" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, told = process.communicate(timeout=20)
    assert (process.returncode, out) == (ExitCode.INTERRUPTED, "")
    assert re.search(r"Interrupted\.\n.*regen submit --wait large\.mp4\n$", told), told

    regen_mock.clear_faults()
    answer = command("submit", "large.mp4", "--wait")
    assert answer.exit_code == 0, answer.stderr
    opened = [one for one in regen_mock.requests if one["path"] == "/v1/uploads" and one["method"] == "POST"]
    assert len(opened) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config", "large.mp4"]


def test_before_a_render(command, clip, tmp_path):
    estimate = json.loads(command("estimate", clip, "--scale", "2", "--end", "1", "--json").stdout)[
        "estimate"
    ]
    assert (estimate["accepted"], estimate["output"]["width"], estimate["output"]["frames"]) == (
        True,
        480,
        25,
    )
    refused = command("estimate", clip, "--start", "100")
    assert (refused.exit_code, "no video from 100 s" in refused.stderr) == (ExitCode.FAILED, True)
    made = command("preview", clip, "--at", "0.5", "--crop", "8,8,64,36", "--scale", "2")
    assert made.exit_code == 0, made.stderr
    pictures = [Path(line) for line in made.stdout.splitlines()]
    assert len(set(pictures)) == 2 and all(path.read_bytes()[:4] == b"\x89PNG" for path in pictures)
    made = json.loads(command("preview", clip, "--crop", "64,36", "--json").stdout)
    assert made["preview"]["crop"] == {"x": 88, "y": 50, "width": 64, "height": 36}
    assert command("preview", clip, "--crop", "8,8,8").exit_code == ExitCode.USAGE


def test_a_server_that_keeps_to_the_description_but_for_one_answer(command, regen_mock):
    regen_mock.faults({"route": "GET /v1/engines", "times": 1, "after": 4, "action": {"status": 418}})
    answer = command("verify-api", regen_mock.url, "--json")
    assert answer.exit_code == ExitCode.FAILED
    told = {check["name"]: check["differences"] for check in json.loads(answer.stdout)["checks"]}
    assert [name for name, differences in told.items() if differences] == ["engines"] and len(told) == 9
    assert "GET /v1/engines answers 418 rather than 200: This fault was requested." in told["engines"]
    assert renders_of(command("list", "--json")) == [], "what it made it deleted"
    assert command("verify-api", "http://127.0.0.1:9").exit_code == ExitCode.NO_ACCESS, "no key is known"


def test_what_keeps_a_server_from_being_verified(command, regen_mock, monkeypatch):
    monkeypatch.setenv("REGEN_KEY", "of-nobody")
    answer = command("verify-api", regen_mock.url)
    assert answer.exit_code == ExitCode.NO_ACCESS and "refuses this key" in answer.stderr
    assert answer.stdout == ""
    assert command("verify-api", "http://127.0.0.1:9").exit_code == ExitCode.NO_ANSWER


def test_after_an_interruption_each_video_has_its_way_on(tmp_path):
    running, done = SimpleNamespace(id="running", ended=False), SimpleNamespace(id="done", ended=True)
    submissions: Any = [
        Submission("-a b.mp4", "-a b.mp4"),
        Submission("b.mp4", "b.mp4", render=running),
        Submission("c.mp4", "c.mp4", render=done),
        Submission("d.mp4", "d.mp4", render=done, path=tmp_path / "d-4x.mp4"),
    ]
    options = {"target_fps": 12.5, "metadata": {"order": "A 17"}, "quality": True}
    assert as_flags(options) == ["--target-fps=12.5", "--metadata=order=A 17", "--measure-quality"]
    told = list(_how_to_go_on(submissions, as_flags(options), Path("out"), "http://other"))
    assert [line.rpartition(": ")[2] for line in told] == [
        "regen submit --target-fps=12.5 '--metadata=order=A 17' --measure-quality --server=http://other -- '-a b.mp4'",
        "regen watch running --server=http://other",
        "regen cancel running --server=http://other",
        "regen download running done --output=out --server=http://other",
    ]
