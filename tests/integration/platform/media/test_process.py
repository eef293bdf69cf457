"""Running a program: its limits, its pipes, its end. Python stands in for ffmpeg where ffmpeg would behave."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from app.platform.errors import (
    FfmpegCancelled,
    FfmpegError,
    FfmpegInterrupted,
    FfmpegKilled,
    FfmpegMissing,
    FfmpegTimeout,
)
from app.platform.media import launcher
from app.platform.media.confinement import AUTO, OFF, Confinement
from app.platform.media.pipes import STDERR_KEPT_BYTES
from app.platform.media.process import FfmpegProcess, RunLimits
from tests.servers.process import SOON_SECONDS, is_alive, wait_until

pytestmark = pytest.mark.slow

MIB = 1024**2

on_linux = pytest.mark.xfail(sys.platform != "linux", reason="a limit that only Linux has")


def start(
    code: str,
    *,
    stdin: bool = False,
    stdout: bool = False,
    wall_seconds: float = SOON_SECONDS,
    memory_bytes: int = 1024 * MIB,
    sandbox: str = AUTO,
    cpu_seconds: int | None = None,
) -> FfmpegProcess:
    return FfmpegProcess(
        command=[sys.executable, "-I", "-S", "-c", code],
        purpose="testing",
        limits=RunLimits(
            wall_seconds=wall_seconds, memory_bytes=memory_bytes, sandbox=sandbox, cpu_seconds=cpu_seconds
        ),
        stdin=stdin,
        stdout=stdout,
    )


def test_a_program_that_succeeds() -> None:
    with start("import sys; sys.stderr.write('a word')") as process:
        process.wait()
        process.wait()
        assert process.stderr_tail == "a word"


def test_a_failure_carries_the_end_of_stderr() -> None:
    with start("import sys; sys.stderr.write('out of luck'); sys.exit(3)") as process:
        with pytest.raises(FfmpegError, match="failed while testing") as failed:
            process.wait()
        assert type(failed.value) is FfmpegError
        assert "out of luck" in (failed.value.detail or "")
        assert "out of luck" not in failed.value.message


def test_a_program_that_is_not_there() -> None:
    command = ["/nowhere/ffmpeg", "-version"]
    limits = RunLimits(wall_seconds=SOON_SECONDS, memory_bytes=1024 * MIB)
    with FfmpegProcess(
        command=command, purpose="testing", limits=limits, stdin=False, stdout=False
    ) as process:
        with pytest.raises(FfmpegMissing) as missing:
            process.wait()
        assert "/nowhere/ffmpeg" in (missing.value.detail or "")


def test_the_wall_clock_limit_ends_a_sleeper() -> None:
    with start("import time; time.sleep(600)", wall_seconds=0.5) as process:
        with pytest.raises(FfmpegTimeout, match=r"0\.5 s"):
            process.wait()
        assert not is_alive(process.pid)


def test_the_wall_clock_limit_frees_a_caller_who_is_blocked_in_a_read() -> None:
    with start("import time; time.sleep(600)", stdout=True, wall_seconds=0.5) as process:
        assert not process.read_exactly_into(bytearray(10))
        with pytest.raises(FfmpegTimeout):
            process.wait()


def test_the_wall_clock_limit_frees_a_caller_who_is_blocked_in_a_write() -> None:
    with (
        start("import time; time.sleep(600)", stdin=True, wall_seconds=0.5) as process,
        pytest.raises(FfmpegTimeout),
    ):
        process.write_all(bytes(16 * MIB))


def test_a_child_of_the_program_is_killed_with_it() -> None:
    """Where there is no sandbox, which lets it have none."""
    code = "import os, time; pid = os.fork(); pid and print(pid, flush=True); time.sleep(600)"
    with start(code, stdout=True, sandbox=OFF) as process:
        child = int(next(process.lines()))
    wait_until(lambda: not is_alive(child))


@on_linux
def test_memory_beyond_the_limit_is_not_had() -> None:
    code = "import sys; sys.stderr.write('started'); block = bytearray(400 << 20); sys.exit(0)"
    with start(code, memory_bytes=300 * MIB) as process:
        with pytest.raises(FfmpegError) as failed:
            process.wait()
        assert "started" in (failed.value.detail or "")
        assert "MemoryError" in (failed.value.detail or "")
    with start(code, memory_bytes=1024 * MIB) as process:
        process.wait()


def test_no_core_is_dumped() -> None:
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE))"
    with start(code, stdout=True) as process:
        assert list(process.lines()) == ["(0, 0)"]


def test_a_signal_is_told_from_a_failure() -> None:
    with start("import os; os.kill(os.getpid(), 6)") as process, pytest.raises(FfmpegKilled):
        process.wait()


def test_a_flood_on_stderr_neither_hangs_nor_fills_memory() -> None:
    code = "import sys; sys.stderr.write('x' * (32 << 20)); sys.stderr.write('the end')"
    with start(code) as process:
        process.wait()
        assert process.stderr_tail.endswith("xthe end")
        assert len(process.stderr_tail) == STDERR_KEPT_BYTES


def test_whole_frames_are_read_through_short_writes() -> None:
    code = (
        "import os, time\nfor part in (b'abc', b'defgh', b'ij'):\n    os.write(1, part); time.sleep(0.05)\n"
    )
    frame = bytearray(5)
    with start(code, stdout=True) as process:
        assert process.read_exactly_into(frame)
        assert frame == b"abcde"
        assert process.read_exactly_into(memoryview(frame))
        assert frame == b"fghij"
        assert not process.read_exactly_into(frame)
        process.wait()


def test_a_partial_last_frame_is_an_error() -> None:
    with start("import os; os.write(1, b'abcdefgh')", stdout=True) as process:
        assert process.read_exactly_into(bytearray(5))
        with pytest.raises(FfmpegError, match="last frame was cut short") as failed:
            process.read_exactly_into(bytearray(5))
        assert "3 of 5 bytes" in (failed.value.detail or "")


def test_a_partial_last_frame_of_a_failed_program_is_that_failure() -> None:
    code = "import os, sys; os.write(1, b'abc'); sys.stderr.write('bad luck'); sys.exit(1)"
    with start(code, stdout=True) as process:
        with pytest.raises(FfmpegError, match="failed while testing") as failed:
            process.read_exactly_into(bytearray(5))
        assert "bad luck" in (failed.value.detail or "")


def test_everything_is_written_and_the_end_is_told() -> None:
    code = "import sys; data = sys.stdin.buffer.read(); print(len(data), data[-1])"
    with start(code, stdin=True, stdout=True) as process:
        process.write_all(memoryview(bytes(5 * MIB - 1) + b"\x07"))
        process.close_stdin()
        assert list(process.lines()) == [f"{5 * MIB} 7"]
        process.wait()


def test_writing_to_a_program_that_has_failed_raises_its_failure() -> None:
    code = "import sys; sys.stdin.buffer.read(1); sys.stderr.write('disk full'); sys.exit(1)"
    with start(code, stdin=True) as process:
        with pytest.raises(FfmpegError) as failed:
            process.write_all(bytes(16 * MIB))
        assert "disk full" in (failed.value.detail or "")


def test_stdin_is_closed_unless_asked_for() -> None:
    with start("import sys; print(repr(sys.stdin.read()))", stdout=True) as process:
        assert list(process.lines()) == ["''"]
        with pytest.raises(ValueError, match="without stdin"):
            process.write_all(b"x")


def test_the_environment_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGEN_SECRET_KEY", "a secret of these tests, which is none")
    with start(
        "import os; print(sorted(os.environ), os.environ['LANG'], os.getcwd())", stdout=True
    ) as process:
        (line,) = process.lines()
    assert "REGEN_SECRET_KEY" not in line
    assert "C.UTF-8 /" in line


def test_a_callers_cancellation_ends_it() -> None:
    asked = []
    with start("import time; time.sleep(600)") as process:
        with pytest.raises(FfmpegCancelled):
            process.wait(cancelled=lambda: bool(asked.append(None) or len(asked) > 2))
        assert not is_alive(process.pid)


def test_leaving_the_block_kills_and_reaps() -> None:
    with pytest.raises(KeyError), start("import time; time.sleep(600)") as process:
        raise KeyError
    assert not is_alive(process.pid)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_a_process_is_entered_in_the_thread_that_started_it() -> None:
    process = start("import time; time.sleep(600)")
    raised: list[BaseException] = []

    def enter() -> None:
        try:
            process.__enter__()
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    process.close()
    assert "thread" in str(raised[0])


@on_linux
def test_a_process_left_by_its_thread_ends_and_says_why() -> None:
    started: list[FfmpegProcess] = []

    def begin() -> None:
        started.append(start("print('up', flush=True); import time; time.sleep(600)", stdout=True))
        next(started[0].lines())

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    with pytest.raises(FfmpegKilled) as killed:
        started[0].wait()
    assert "thread" in (killed.value.detail or "")
    started[0].close()


@on_linux
@pytest.mark.parametrize(("ending", "expected"), [("kill", FfmpegInterrupted), ("spend", FfmpegKilled)])
def test_who_killed_a_program_with_a_limit_of_processor_time(
    ending: str, expected: type[FfmpegKilled]
) -> None:
    code = (
        "while True: pass" if ending == "spend" else "print('up', flush=True); import time; time.sleep(600)"
    )
    with start(code, stdout=True, cpu_seconds=1) as process:
        if ending == "kill":
            next(process.lines())
            os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(FfmpegKilled) as killed:
            process.wait()
    assert type(killed.value) is expected


@on_linux
def test_a_process_ends_with_the_server_even_when_that_is_killed() -> None:
    code = (
        "import sys, time\n"
        "from app.platform.media.process import FfmpegProcess, RunLimits\n"
        "command = [sys.executable, '-c', 'print(1, flush=True); import time; time.sleep(600)']\n"
        "process = FfmpegProcess(command=command,\n"
        "    purpose='testing', limits=RunLimits(wall_seconds=600, memory_bytes=1 << 30, sandbox='off'),\n"
        "    stdin=False, stdout=True)\n"
        "next(process.lines())\n"
        "print(process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    root = Path(__file__).parents[4]
    with subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        assert is_alive(pid)
        server.send_signal(signal.SIGKILL)
        server.wait()
    wait_until(lambda: not is_alive(pid))


@on_linux
def test_a_program_whose_parent_died_before_it_could_say_so_ends_at_once(starter: str) -> None:
    somebody_else = Confinement(1024 * MIB, 0, os.getppid(), OFF, (), ())
    command = somebody_else.launching(["/bin/sleep", "600"])
    assert subprocess.run(command, timeout=SOON_SECONDS, check=False).returncode == -signal.SIGKILL


@on_linux
def test_a_program_ignores_no_signal_that_python_does(starter: str) -> None:
    confinement = Confinement(1024 * MIB, 0, os.getpid(), OFF, (), ())
    command = confinement.launching(["/bin/grep", "SigIgn", "/proc/self/status"])
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    ignored = int(told.split()[1], 16)
    assert not [number for number in (signal.SIGPIPE, signal.SIGXFSZ) if ignored & 1 << (number - 1)]


def test_the_launcher_loads_nothing_that_takes_long() -> None:
    """Each run of ffmpeg waits for it: these double its time."""
    code = launcher.START.replace("launcher.main(sys.argv[1:])", "print(*sys.modules)")
    command = [sys.executable, "-I", "-S", "-c", code, str(Path(launcher.__file__).parent)]
    loaded = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert "launcher" in loaded
    assert not {"enum", "pathlib", "re", "signal", "subprocess", "typing"} & loaded
