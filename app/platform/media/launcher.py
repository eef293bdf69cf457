"""Starts one program under limits: `python -I -S launcher.py MEMORY_BYTES CPU_SECONDS PARENT_PID PROGRAM ARGUMENT...`

CPU_SECONDS 0 means no limit.

It runs as a separate script, because setting limits between fork and exec is unsafe in a server with threads. It
imports only the standard library, so that it starts in about ten milliseconds.

The program replaces this process (exec), so the server waits for its process id and exit status. Exit status 127 with a
line that starts with LAUNCHER_PREFIX means that the program could not be started.
"""

import os
import resource
import signal
import sys

LAUNCHER_PREFIX = "launcher: "
EXIT_NOT_STARTED = 127
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(parent_pid: int) -> None:
    """Make the kernel kill this process when the thread that started it ends (Linux).

    The setting survives exec. If the parent died before the setting was made, this process ends at once.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


def set_limit(kind: int, value: int) -> None:
    """Lower a resource limit to `value`, or to the existing hard limit if that is lower."""
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


def main(arguments: list[str]) -> None:
    memory_bytes, cpu_seconds, parent_pid = (int(argument) for argument in arguments[:3])
    command = arguments[3:]
    try:
        # Python ignores both signals; a program that inherits this would not end on a closed pipe.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        if sys.platform == "linux":
            die_with_parent(parent_pid)
        set_limit(resource.RLIMIT_CORE, 0)
        if cpu_seconds:
            set_limit(resource.RLIMIT_CPU, cpu_seconds)
        if sys.platform == "linux":
            # macOS refuses or ignores RLIMIT_AS.
            set_limit(resource.RLIMIT_AS, memory_bytes)
        os.execv(command[0], command)  # noqa: S606 - an argument list, no shell
    except OSError as error:
        sys.stderr.write(f"{LAUNCHER_PREFIX}{command[0]}: {error}\n")
        sys.exit(EXIT_NOT_STARTED)


if __name__ == "__main__":
    main(sys.argv[1:])
