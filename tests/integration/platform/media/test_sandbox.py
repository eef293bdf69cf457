"""What a program in ffmpeg's place can do, once a hostile file has taken it over: next to nothing."""

import os
import re
import resource
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from app.platform.errors import ConfigurationError, FfmpegError
from app.platform.media import confinement, launcher, sandbox
from app.platform.media.confinement import Confinement
from app.platform.media.ffmpeg import FfmpegRunner, Programs, RunLimits
from app.platform.settings import Settings

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or bool(sandbox.missing_layers()),
    reason="this kernel has no Landlock or no seccomp",
)
LIMITS = RunLimits(wall_seconds=20, memory_bytes=2**33, sandbox=confinement.REQUIRED)


@pytest.fixture
def room(tmp_path: Path, starter: str) -> Path:
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
    assert shell(f"echo made >{room}/out/a.mp4; exec cat {room}/input.mp4") == "input.mp4"
    assert (room / "out" / "a.mp4").read_text() == "made\n"


@pytest.mark.parametrize(
    "script",
    [
        "exec cat {room}/secret",
        "exec cat {room}/others.mp4",
        "exec ls {room}",
        "exec cat /etc/passwd",
        "exec cat /proc/{parent}/environ",
        "exec cat /proc/{parent}/cmdline",
        "exec cat /proc/{parent}/maps",
        "echo x >{room}/input.mp4",
        "echo x >{room}/new",
        "echo x >{room}/out/another",
        "echo x >/tmp/new-{parent}",
        "exec ln -s {room}/secret {room}/out/link",
        "exec ln {room}/secret {room}/out/link",
        "exec mv {room}/secret {room}/out/",
        "exec 3<>/dev/tcp/127.0.0.1/{port}",
        "exec 3<>/dev/udp/127.0.0.1/{port}",
        "kill -0 {parent}",
        "exec prlimit --pid {parent} --nofile=3",
        "exec mount -t tmpfs none {room}/out",
        "exec unshare --user true",
        "/bin/true",
        "(:)",
        "true | true",
        "sleep 77 &",
        "ulimit -n 257",
    ],
)
def test_it_can_do_nothing_else(shell, room, script):
    with socket.create_server(("127.0.0.1", 0)) as server:
        attack = script.format(room=room, parent=os.getpid(), port=server.getsockname()[1])
        with pytest.raises(FfmpegError) as refused:
            shell(attack)
    assert re.search("denied|not permitted|cross-device|cannot mount", refused.value.detail or ""), (
        refused.value.detail
    )
    assert (room / "secret").read_text() == "secret"


def python(confined: Confinement, code: str) -> "subprocess.CompletedProcess[str]":
    command = confined.launching([sys.executable, "-I", "-S", "-c", code])
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_it_has_threads_and_no_other_process(room):
    code = """
import ctypes, os, signal, threading
def refused(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        print(error.strerror)
thread = threading.Thread(target=print, args=("thread",)); thread.start(); thread.join()
refused(os.fork)
refused(os.posix_spawn, "/bin/true", ["true"], {})
libc = ctypes.CDLL(None, use_errno=True)
assert libc.syscall(435, bytes(88), 88) == -1 and ctypes.get_errno() == 38, "clone3"
os.kill(os.getpid(), 0)
refused(os.kill, os.getppid(), 0)
refused(os.kill, -1, signal.SIGKILL)
"""
    done = python(Confinement(2**33, 0, os.getpid(), confinement.REQUIRED, (), (str(room / "out"),)), code)
    assert done.stdout.split("\n") == ["thread", *["Permission denied"] * 4, ""], done.stderr


def test_it_writes_no_file_without_an_output(room):
    confined = Confinement(2**33, 0, os.getpid(), confinement.REQUIRED, (), ())
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_FSIZE))"
    assert python(confined, code).stdout == "(0, 0)\n"


def test_its_output_ends_at_the_size_that_it_may_have(room):
    output = room / "out" / "a.mp4"
    output.touch()
    confined = Confinement(2**33, 0, os.getpid(), confinement.REQUIRED, (), (str(output),), 1000)
    done = python(
        confined, f"file = open({str(output)!r}, 'wb', 0); file.write(bytes(1000)); file.write(b'x')"
    )
    assert (done.returncode, output.stat().st_size) == (1, 1000)
    assert "File too large" in done.stderr


def test_the_size_of_an_output_follows_from_its_inputs(room, shell):
    assert int(shell("ulimit -f")) == (LIMITS.output_bytes + 2 * len("input.mp4")) // 1024


def test_memory_for_reading_follows_from_the_largest_frame(shell):
    """A file of 20 MB, of nothing but ends of pictures, makes ffmpeg's decoder take all that it may have."""
    small = replace(LIMITS, max_pixels=10**6)
    assert int(shell("ulimit -v")) == LIMITS.reading_memory_bytes // 1024
    assert LIMITS.memory_bytes > LIMITS.reading_memory_bytes > small.reading_memory_bytes > 2**31


def test_a_program_becomes_no_other(starter):
    """Nor itself once more."""
    code = """
import ctypes, os, sys
for program in ("/bin/true", sys.executable):
    try:
        os.execv(program, [program])
    except OSError as error:
        print(error.strerror)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.syscall({"x86_64": 322, "aarch64": 281}[os.uname().machine], -100, b"/bin/true", None, None, 0) == -1
print(os.strerror(ctypes.get_errno()))
"""
    done = python(Confinement(2**33, 0, os.getpid(), confinement.REQUIRED, (), ()), code)
    assert done.stdout.split("\n") == [*["Permission denied"] * 3, ""], done.stderr


def test_threads_of_its_user_are_counted(starter):
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_NPROC)[1])"
    done = python(Confinement(2**33, 0, os.getpid(), confinement.REQUIRED, (), ()), code)
    allowed = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    assert int(done.stdout) == (
        confinement.MOST_PROCESSES if allowed < 0 else min(allowed, confinement.MOST_PROCESSES)
    )


def test_the_memory_of_the_server_is_closed_where_there_is_no_landlock():
    """To a program of the same user, of root too once it has lost root's capabilities."""
    code = """
import os
from app.platform.media import confinement, launcher, sandbox
from app.platform.settings import Settings
launcher.keep_capabilities(confinement.CAP_DAC_OVERRIDE)
for settings in (Settings(debuggable=True), Settings()):
    sandbox.close_memory(settings)
    open("/proc/self/environ").close()
    os.listdir("/proc/self/fd")
    if os.fork() == 0:
        for name in ("environ", "mem"):
            try:
                open(f"/proc/{os.getppid()}/{name}", "rb").close()
                print("open", flush=True)
            except PermissionError:
                print("closed", flush=True)
        os._exit(0)
    os.wait()
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["open", "open", "closed", "closed"], done.stderr


@pytest.mark.parametrize(
    ("group", "expected"), [(None, 4), ("max", 4), (str(8 * 2**30), 2), (str(2**30), 1), (str(2**60), 4)]
)
def test_memory_is_a_share_of_what_machine_and_container_have(monkeypatch, tmp_path, group, expected):
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**24}.__getitem__)
    monkeypatch.setattr(sandbox, "GROUP_LIMITS", (tmp_path / "memory.max",))
    if group is not None:
        (tmp_path / "memory.max").write_text(group + "\n")
    gib = 2**30
    assert sandbox.memory_limit(None, most=4 * gib, least=gib, share=1 / 4) == expected * gib
    assert sandbox.memory_limit(5, most=4 * gib, least=gib) == 5


def test_the_files_of_a_list_are_read_where_their_links_lead(room, shell):
    (room / "list").mkdir()
    (room / "parts").mkdir()
    (room / "parts" / "0.mp4").write_text("a part")
    (room / "list" / "0.mp4").symlink_to(room / "parts" / "0.mp4")
    (room / "list" / "all.ffconcat").write_text("ffconcat version 1.0\nfile 0.mp4\n")
    program = room / "ffmpeg"
    program.write_text(f"#!/bin/bash\nexec cat {room}/list/0.mp4\n")
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
        programs=Programs(ffmpeg=program, ffprobe=program), limits=replace(LIMITS, sandbox=confinement.OFF)
    )
    assert runner.run(["-version"], purpose="starting", stdout_limit_bytes=100).stdout == b"secret"


@pytest.mark.parametrize("name", ["a b", "a\tb\nc", "a\\tb", "a\\\\n", "ä", "a:b", "--"])
def test_any_path_comes_through(room, name):
    (room / name).write_text("found")
    confined = Confinement(2**33, 0, os.getpid(), confinement.REQUIRED, (str(room / name),), ())
    command = confined.launching(["/bin/cat", str(room / name)])
    assert subprocess.check_output(command, timeout=60) == b"found"


def state(confined: Confinement) -> list[str]:
    """What a program knows of its own limits, with how it dies when its parent does."""
    code = """
import ctypes
signal = ctypes.c_int()
ctypes.CDLL(None).prctl(2, ctypes.byref(signal))
print("PDEATHSIG:", signal.value)
names = ("NoNewPrivs", "Seccomp", "Seccomp_filters", "CapInh", "CapPrm", "CapEff", "SigIgn", "SigBlk")
print(*(line for line in open("/proc/self/status") if line.split(":")[0] in names), open("/proc/self/limits").read())
"""
    return python(confined, code).stdout.split("\n")


def test_both_launchers_leave_the_same_state(tmp_path, monkeypatch):
    if confinement.compiled_launcher() is None:
        pytest.skip("the package was installed without a C compiler")
    confined = Confinement(2**33, 77, os.getpid(), confinement.REQUIRED, (), (str(tmp_path),), 12345)
    compiled = state(confined)
    monkeypatch.setattr(confinement, "compiled_launcher", lambda: None)
    assert state(confined) == compiled
    words = [" ".join(line.split()) for line in compiled]
    assert {"PDEATHSIG: 9", "NoNewPrivs: 1", "Seccomp: 2", "Max core file size 0 0 bytes"} < set(words)
    assert {"Max cpu time 77 77 seconds", "Max file size 12345 12345 bytes"} < set(words)


def test_a_layer_that_the_kernel_refuses_ends_the_start_only_if_it_is_required(room, monkeypatch):
    monkeypatch.setattr(confinement, "RIGHTS_BY_VERSION", (1 << 60,))
    for mode, expected in ((confinement.AUTO, (0, b"secret")), (confinement.REQUIRED, (127, b""))):
        confined = Confinement(2**33, 0, os.getpid(), mode, (), ())
        command = confined.launching(["/bin/cat", str(room / "secret")])
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == expected
    assert done.stderr.startswith(launcher.LAUNCHER_PREFIX.encode()) and b"Invalid argument" in done.stderr
