import os
import subprocess
import sys
import textwrap
import time

import pytest

from app.platform.errors import ConfigurationError
from app.serving.child import ChildProcess
from app.serving.supervisor import SupervisedProcess, stop_all
from tests.servers.process import is_alive, wait_until


def child(script, **options):
    return ChildProcess([sys.executable, "-c", script], environment=os.environ, **options)


def child_that_takes_sigterm(tmp_path, handler):
    """It has this Python expression as its handler when this returns."""
    ready = tmp_path / "ready"
    process = child(
        f"import pathlib, signal, sys, time; signal.signal(signal.SIGTERM, {handler});"
        f"pathlib.Path({str(ready)!r}).touch(); time.sleep(60)"
    )
    wait_until(ready.exists)
    return process


def test_a_child_that_heeds_sigterm_ends_in_its_own_way(tmp_path):
    process = child_that_takes_sigterm(tmp_path, "lambda *_: sys.exit(7)")
    process.stop(grace_seconds=10)
    assert process.status == 7


def test_a_child_that_ignores_sigterm_is_killed(tmp_path):
    process = child_that_takes_sigterm(tmp_path, "signal.SIG_IGN")
    process.stop(grace_seconds=0.2)
    assert process.status == -9


def test_a_program_that_is_not_there_ends_at_once():
    process = ChildProcess(["/no/such/program"], environment={})
    wait_until(lambda: process.status is not None)
    assert process.status == 127


def test_a_directory_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigurationError):
        child("pass", directory=tmp_path / "absent")


if sys.platform == "linux":  # elsewhere a child watches its parent itself: see below

    def test_a_child_ends_when_its_parent_is_killed(tmp_path):
        pid_file = tmp_path / "pid"
        parent = subprocess.Popen(
            [
                sys.executable,
                "-c",
                textwrap.dedent(
                    f"""
                    import os, pathlib, sys, time
                    from app.serving.child import ChildProcess
                    child = ChildProcess([sys.executable, "-c", "import time; time.sleep(60)"], environment=os.environ)
                    time.sleep(0.5)
                    pathlib.Path({str(pid_file)!r}).write_text(str(child.pid))
                    time.sleep(60)
                    """
                ),
            ]
        )
        wait_until(lambda: pid_file.exists() and pid_file.read_text())
        pid = int(pid_file.read_text())
        assert is_alive(pid)
        parent.kill()
        parent.wait()
        wait_until(lambda: not is_alive(pid))


def test_where_the_kernel_does_not_help_a_process_watches_its_parent(tmp_path):
    pid_file = tmp_path / "pid"
    orphan = textwrap.dedent(
        f"""
        import os, pathlib, time
        from app.serving.child import end_with_parent
        end_with_parent(os.getppid(), poll_seconds=0.05)
        pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()))
        time.sleep(60)
        """
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {orphan!r}])"]
    )
    wait_until(lambda: pid_file.exists() and pid_file.read_text())
    pid = int(pid_file.read_text())
    parent.kill()
    parent.wait()
    wait_until(lambda: not is_alive(pid))


def test_a_child_that_dies_is_started_again_after_a_pause(tmp_path):
    starts = []

    def start():
        starts.append(time.monotonic())
        return child("pass")

    kept = SupervisedProcess("short-lived", start, grace_seconds=1)

    def tended_twice():
        kept.supervise()
        return len(starts) == 2

    wait_until(tended_twice)
    assert starts[1] - starts[0] >= 1
    kept.stop()


def test_a_child_that_cannot_be_started_is_tried_again():
    attempts = []

    def start():
        attempts.append(True)
        if len(attempts) == 1:
            raise ConfigurationError("not now")
        return child("import time; time.sleep(60)")

    kept = SupervisedProcess("reluctant", start, grace_seconds=1)

    def running():
        kept.supervise()
        return len(attempts) == 2

    wait_until(running)
    kept.stop()


def test_a_child_whose_machine_is_set_up_wrong_is_not_soon_started_again():
    starts = []

    def start():
        starts.append(True)
        return child(f"raise SystemExit({os.EX_CONFIG})")

    kept = SupervisedProcess("misconfigured", start, grace_seconds=1)
    assert not kept.misconfigured

    def given_up():
        kept.supervise()
        return kept.misconfigured

    wait_until(given_up)
    until = time.monotonic() + 1.5  # longer than the first pause after any other end
    while time.monotonic() < until:
        kept.supervise()
        time.sleep(0.05)
    assert starts == [True]
    assert kept.misconfigured
    kept.stop()


def test_children_are_stopped_side_by_side(tmp_path):
    """The second ends although the first takes all of its time and has to be killed."""
    processes = []

    def start(number, script):
        def started():
            processes.append(child(f"import pathlib, signal, time; {script}; time.sleep(60)"))
            return processes[-1]

        return SupervisedProcess(f"child {number}", started, grace_seconds=1)

    ready = [tmp_path / "first", tmp_path / "second"]
    kept = [
        start(0, f"signal.signal(15, signal.SIG_IGN); pathlib.Path({str(ready[0])!r}).touch()"),
        start(1, f"signal.signal(15, lambda *_: exit(7)); pathlib.Path({str(ready[1])!r}).touch()"),
    ]
    for one in kept:
        one.supervise()
    wait_until(lambda: all(path.exists() for path in ready))
    stop_all(kept)
    assert [process.status for process in processes] == [-9, 7]


def test_children_that_take_their_time_are_asked_again_when_somebody_is_in_a_hurry(tmp_path):
    ready = tmp_path / "ready"
    program = f"""
        import pathlib, signal, sys, time
        asked = []
        def end(*_):
            asked.append(True)
            if len(asked) == 2:
                sys.exit(7)
        signal.signal(signal.SIGTERM, end)
        pathlib.Path({str(ready)!r}).touch()
        while True:
            time.sleep(0.05)
    """
    kept = SupervisedProcess("thorough", lambda: child(textwrap.dedent(program)), grace_seconds=60)
    kept.supervise()
    wait_until(ready.exists)
    hurried = iter([False, True])
    stop_all([kept], hurry=lambda: next(hurried))
    assert not kept.is_running
