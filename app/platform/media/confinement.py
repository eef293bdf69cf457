"""What ffmpeg and ffprobe may do; `launching` gives the command that starts them so, through a launcher.

Setting limits between fork and exec is unsafe in a server with threads. So a small program does it, compiled
(`launcher.c`) or in Python (`launcher.py`), and becomes the program: the server waits for its process id and exit
status. All that they do is decided here, in words that they carry out.

What a program that was taken over by a hostile file may do is bounded by the kernel (Linux): it gains no privileges and
has none of root's, makes no sockets and no processes (seccomp), sees the system's programs, its inputs and its output
(Landlock), and writes that file alone, up to a size. It cannot become another program (exec). A script that starts with
`#!` can, to go on to the program that it stands for: all of this stays in force.
"""

import os
import resource
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from . import launcher

MOST_OPEN_FILES = 256
# Processes and threads of this user, all programs together: fewer than a machine can have, and more than servers need.
# Root's are not limited.
MOST_PROCESSES = 16_384

PYTHON_LAUNCHER = [sys.executable, "-I", "-S", "-c", launcher.START, str(Path(__file__).parent)]

OFF, AUTO, REQUIRED = "off", "auto", launcher.REQUIRED

# linux/seccomp.h, linux/audit.h, linux/filter.h, linux/capability.h, linux/sched.h
SECCOMP_ALLOW, SECCOMP_ERRNO = 0x7FFF0000, 0x00050000
LOAD_WORD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
# Where a filter finds a call's number, the machine that it is made for, and the halves of its first argument.
NUMBER, MACHINE, FIRST_ARGUMENT, FIRST_ARGUMENT_HIGH = 0, 4, 16, 20
CLONE_THREAD = 0x00010000
CAP_DAC_OVERRIDE = 1 << 1  # to open files of other users
EACCES, ENOSYS = 13, 38

# The machines that the numbers below are of, and how the kernel's audit calls them.
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
CLONE, CLONE3, EXECVE = (56, 220), (435, 435), (59, 221)
# What no decoder needs, and reaches beyond the process.
REFUSED_CALLS = (
    *((41, 198), (53, 199)),  # socket, socketpair
    *((57,), (58,), (322, 281)),  # fork, vfork, execveat
    *(
        (101, 117),
        (310, 270),
        (311, 271),
        (440, 440),
        (312, 272),
    ),  # ptrace, process_vm_*, process_madvise, kcmp
    *((434, 434), (438, 438), (424, 424)),  # pidfd_open, pidfd_getfd, pidfd_send_signal
    *((200, 130), (129, 138), (297, 240)),  # tkill, rt_sigqueueinfo, rt_tgsigqueueinfo
    *((425, 425), (426, 426), (427, 427)),  # io_uring_*: a way around these filters
    *((321, 280), (298, 241), (323, 282)),  # bpf, perf_event_open, userfaultfd
    *((250, 219), (248, 217), (249, 218)),  # keyctl, add_key, request_key
    *(
        (272, 97),
        (308, 268),
        (165, 40),
        (166, 39),
        (155, 41),
        (161, 51),
    ),  # unshare, setns, mount, umount2, roots
    *(
        (428, 428),
        (429, 429),
        (430, 430),
        (442, 442),
        (304, 265),
    ),  # open_tree, move_mount, ..., open_by_handle_at
    *((29, 194), (30, 196), (64, 190), (65, 193), (220, 192)),  # memory and semaphores of System V
    *((68, 186), (69, 189), (70, 188), (240, 180)),  # messages of System V and POSIX
    *((175, 105), (313, 273), (176, 106), (246, 104), (320, 294)),  # modules, kexec
)
# The first argument names a process: itself alone.
OWN_CALLS = ((62, 129), (234, 131), (302, 261))  # kill, tgkill, prlimit64

# linux/landlock.h
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
REMOVE_FILE, MAKE_REG, REFER, TRUNCATE, IOCTL_DEV = 1 << 5, 1 << 8, 1 << 13, 1 << 14, 1 << 15
READ = READ_FILE | READ_DIR
WRITE = READ | WRITE_FILE | REMOVE_FILE | MAKE_REG | REFER | TRUNCATE
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
# What every handled version adds to the rights on files: 13, then REFER, TRUNCATE, (TCP), IOCTL_DEV.
RIGHTS_BY_VERSION = (0, 0x1FFF, 0x3FFF, 0x7FFF, 0x7FFF, 0xFFFF)
TCP, SCOPES = 3, 3

PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt", "/nix", "/gnu", "/home/linuxbrew")
SYSTEM = (
    *("/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/localtime", "/etc/alternatives", "/etc/fonts"),
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/self", "/sys/devices/system", "/sys/fs/cgroup"),
    *("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"),
)


@dataclass(frozen=True)
class Confinement:
    """What a program may use.

    `memory_bytes`: address space. `cpu_seconds`: processor time, 0 for no limit. `parent_pid`: the process that the
    program dies with. `sandbox`: AUTO for every layer that the kernel has, REQUIRED to fail without one, OFF for none.
    `readable`: files, and directories with all below; `writable`: likewise, what exists. `output_bytes`: the size to
    which a file may be written.
    """

    memory_bytes: int
    cpu_seconds: int
    parent_pid: int
    sandbox: str
    readable: tuple[str, ...]
    writable: tuple[str, ...]
    output_bytes: int = 0

    def launching(self, command: Sequence[str]) -> list[str]:
        """The command that starts `command`, confined. Raises OSError where a layer is missing and REQUIRED."""
        starter = [compiled] if (compiled := compiled_launcher()) else PYTHON_LAUNCHER
        return [*starter, *self._words(command[0]), "--", *command]

    def _words(self, program: str) -> Iterator[str]:
        """What the launcher does, see `launcher.py`."""
        if sys.platform == "linux":
            yield f"p{self.parent_pid}"
        yield _limit(resource.RLIMIT_CORE, 0)
        if self.cpu_seconds:
            yield _limit(resource.RLIMIT_CPU, self.cpu_seconds)
        if sys.platform != "linux":
            return
        if self.sandbox != OFF:
            yield from [REQUIRED] if self.sandbox == REQUIRED else []
            yield "n"
            yield f"c{CAP_DAC_OVERRIDE:x}"
            for layer in (self._files(program), _system_calls(any_program=is_script(program))):
                try:
                    yield from layer
                except OSError:
                    if self.sandbox == REQUIRED:
                        raise
            yield _limit(resource.RLIMIT_NOFILE, MOST_OPEN_FILES)
            yield _limit(resource.RLIMIT_NPROC, MOST_PROCESSES)
            yield _limit(resource.RLIMIT_FSIZE, self.output_bytes)
        # macOS refuses or ignores RLIMIT_AS.
        yield _limit(resource.RLIMIT_AS, self.memory_bytes)

    def _files(self, program: str) -> Iterator[str]:
        """Leaves the program itself, the system's programs, and what it is given. Raises OSError without Landlock."""
        version = landlock_version()
        rights = RIGHTS_BY_VERSION[min(version, len(RIGHTS_BY_VERSION) - 1)]
        fields = [rights, *([TCP] if version >= 4 else []), *([SCOPES] if version >= 6 else [])]
        yield f"r{struct.pack(f'={len(fields)}Q', *fields).hex()}"
        own = Path(program).resolve().parent
        for paths, wanted in (
            ((*PROGRAMS, own, own.parent / "lib", own.parent / "lib64"), READ | EXECUTE),
            ((*SYSTEM, *self.readable), READ),
            (("/dev/null", *self.writable), WRITE),
        ):
            for path in paths:
                yield f"a{wanted & rights:x}:{wanted & rights & OF_FILES:x}:{path}"
        yield "e"


@cache
def compiled_launcher() -> str | None:
    """The path of the compiled launcher; None if the package was installed without a compiler, or it may not be run."""
    found = find_spec("._launcher", __package__)
    return found.origin if found and found.origin and os.access(found.origin, os.X_OK) else None


def _limit(kind: int, value: int) -> str:
    return f"l{kind}={value}"


@cache
def landlock_version() -> int:
    """The version of Landlock that the kernel has. Raises OSError when it has none."""
    return launcher.call_kernel("syscall", launcher.LANDLOCK_CREATE_RULESET, None, 0, 1)


def _system_calls(*, any_program: bool) -> Iterator[str]:
    """Leaves threads, but no other process, no socket, and no reach into other processes. Unless `any_program`, the
    process becomes another program only by a path at the launcher's address, which that program does not know.

    Raises OSError where the machine is not known.
    """
    machine = os.uname().machine
    if machine not in MACHINES:
        raise OSError(ENOSYS, f"no filter of system calls for {machine}")
    yield f"f{_filter_steps(machine, any_program).hex()}"


@cache
def _filter_steps(machine: str, any_program: bool) -> bytes:
    column, audit = MACHINES[machine]
    allow, refuse = (RETURN, 0, 0, SECCOMP_ALLOW), (RETURN, 0, 0, SECCOMP_ERRNO | EACCES)
    load_argument = (LOAD_WORD, 0, 0, FIRST_ARGUMENT)
    # Each rule ends in an answer; its first step skips the rule for other numbers.
    rules: list[tuple[int, tuple[tuple[int, int, int, int], ...]]] = []
    rules += [(calls[column], (refuse,)) for calls in REFUSED_CALLS if column < len(calls)]
    # The C library makes threads by clone3, whose flags no filter can read, and by clone where there is none.
    rules += [(CLONE3[column], ((RETURN, 0, 0, SECCOMP_ERRNO | ENOSYS),))]
    rules += [(CLONE[column], (load_argument, (JUMP_ANY_BIT, 0, 1, CLONE_THREAD), allow, refuse))]
    is_own = (JUMP_EQUAL | launcher.OWN_PID << 8, 0, 1, 0)
    rules += [
        (calls[column], (load_argument, (JUMP_EQUAL, 1, 0, 0), is_own, allow, refuse)) for calls in OWN_CALLS
    ]
    if not any_program:
        once = (
            *(load_argument, (JUMP_EQUAL | launcher.ADDRESS_LOW << 8, 0, 3, 0)),
            *((LOAD_WORD, 0, 0, FIRST_ARGUMENT_HIGH), (JUMP_EQUAL | launcher.ADDRESS_HIGH << 8, 0, 1, 0)),
            *(allow, refuse),
        )
        rules += [(EXECVE[column], once)]
    steps = [
        (LOAD_WORD, 0, 0, MACHINE),
        (JUMP_EQUAL, 1, 0, audit),
        refuse,
        (LOAD_WORD, 0, 0, NUMBER),
        (JUMP_AT_LEAST, 0, 1, 0x40000000),  # x86-64's second table
        refuse,
    ]
    for number, answer in rules:
        steps += [(JUMP_EQUAL, 0, len(answer), number), *answer]
    return b"".join(struct.pack(launcher.STEP, *step) for step in [*steps, allow])


def is_script(program: str) -> bool:
    """Whether another program reads it, and may have to start the one that it stands for."""
    try:
        with Path(program).open("rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return False
