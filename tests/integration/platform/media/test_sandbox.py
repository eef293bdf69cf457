"""What a program in ffmpeg's place can do, once a hostile file has taken it over: next to nothing."""

import os
import re
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from app.platform.errors import ConfigurationError, FfmpegError
from app.platform.media import launcher, sandbox
from app.platform.media.ffmpeg import FfmpegRunner, Programs, RunLimits
from app.platform.media.launcher import Confinement
from app.platform.settings import Settings

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or bool(sandbox.missing_layers()),
    reason="this kernel has no Landlock or no seccomp",
)
LIMITS = RunLimits(wall_seconds=20, memory_bytes=2**33, sandbox=launcher.REQUIRED)


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A directory with an input, a directory for the output, and what belongs to somebody else."""
    for name in ("input.mp4", "others.mp4", "secret"):
        (tmp_path / name).write_text(name)
    (tmp_path / "out").mkdir()
    return tmp_path


@pytest.fixture
def shell(room: Path):
    """Runs a shell script as ffmpeg, with `input.mp4` as its input and `out/` for its output. Gives what it printed."""

    def run(script: str) -> str:
        program = room / "program" / "ffmpeg"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/bash\n{script}\n")
        program.chmod(0o755)
        runner = FfmpegRunner(programs=Programs(ffmpeg=program, ffprobe=program), limits=LIMITS)
        stream = runner.output(runner.input(room / "input.mp4"), room / "out" / "a.mp4")
        return runner.run(stream, purpose="attacking", stdout_limit_bytes=2**16).stdout.decode()

    return run


def test_it_reads_its_input_and_writes_its_output(shell, room):
    assert shell(f"cat {room}/input.mp4; echo made >{room}/out/a.mp4") == "input.mp4"
    assert (room / "out" / "a.mp4").read_text() == "made\n"


@pytest.mark.parametrize(
    "script",
    [
        "cat {room}/secret",
        "cat {room}/others.mp4",
        "ls {room}",
        "cat /etc/passwd",
        "cat /proc/{parent}/environ",
        "cat /proc/{parent}/cmdline",
        "echo x >{room}/input.mp4",
        "echo x >{room}/new",
        "echo x >/tmp/new-{parent}",
        "ln -s {room}/secret {room}/out/link && cat {room}/out/link",
        "ln {room}/secret {room}/out/link",
        "mv {room}/secret {room}/out/",
        "exec 3<>/dev/tcp/127.0.0.1/{port}",
        "exec 3<>/dev/udp/127.0.0.1/{port}",
        "kill -0 {parent}",
        "mount -t tmpfs none {room}/out",
    ],
)
def test_it_can_do_nothing_else(shell, room, script):
    with socket.create_server(("127.0.0.1", 0)) as server:
        attack = script.format(room=room, parent=os.getpid(), port=server.getsockname()[1])
        with pytest.raises(FfmpegError) as refused:
            shell(attack)
    assert re.search("denied|not permitted|cross-device", refused.value.detail or "")
    assert (room / "secret").read_text() == "secret"


def test_the_files_of_a_list_are_read_where_their_links_lead(room, shell):
    (room / "list").mkdir()
    (room / "parts").mkdir()
    (room / "parts" / "0.mp4").write_text("a part")
    (room / "list" / "0.mp4").symlink_to(room / "parts" / "0.mp4")
    (room / "list" / "all.ffconcat").write_text("ffconcat version 1.0\nfile 0.mp4\n")
    program = room / "ffmpeg"
    program.write_text(f"#!/bin/bash\ncat {room}/list/0.mp4\n")
    program.chmod(0o755)
    runner = FfmpegRunner(programs=Programs(ffmpeg=program, ffprobe=program), limits=LIMITS)
    joined = runner.output(runner.concat_input(room / "list" / "all.ffconcat"), room / "out" / "a.mp4")
    assert runner.run(joined, purpose="joining", stdout_limit_bytes=2**16).stdout == b"a part"


def test_a_layer_that_is_required_and_missing_starts_nothing(monkeypatch):
    monkeypatch.setattr(sandbox, "missing_layers", lambda: ["Landlock"])
    with pytest.raises(ConfigurationError, match="REGEN_SANDBOX=required"):
        sandbox.require_sandbox(Settings(sandbox="required"))
    sandbox.require_sandbox(Settings(sandbox="auto"))


def test_off_is_off(room):
    program = room / "ffmpeg"
    program.write_text(f"#!/bin/bash\ncat {room}/secret\n")
    program.chmod(0o755)
    runner = FfmpegRunner(
        programs=Programs(ffmpeg=program, ffprobe=program), limits=replace(LIMITS, sandbox=launcher.OFF)
    )
    assert runner.run(["-version"], purpose="starting", stdout_limit_bytes=100).stdout == b"secret"


@pytest.mark.parametrize("path", ["/a b", "/a\tb\nc", "/a\\tb", "/a\\\\n", "/ä"])
def test_any_path_comes_through(path):
    sent = Confinement(1, 2, 3, launcher.AUTO, (path, "/b"), (path,))
    assert vars(Confinement.of_word(sent.to_word())) == vars(sent)
