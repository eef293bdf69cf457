"""Starts one program under limits, in a Python of its own; see `Confinement.launching`.

Setting limits between fork and exec is unsafe in a server with threads. This module imports only the standard library,
and little of it, and is imported rather than run as a script, whose source Python compiles at every start: so it takes
few milliseconds beyond those of Python itself.

The program replaces this process (exec), so the server waits for its process id and exit status. Exit status 127 with a
line that starts with LAUNCHER_PREFIX means that the program could not be started.

What a program that was taken over by a hostile file may do is bounded by the kernel (Linux): it gains no privileges and
has none of root's, makes no sockets and no processes (seccomp), sees the system's programs, its inputs and its output
(Landlock), and writes that file alone, up to a size. It cannot become another program (exec). A script that starts with
`#!` can, to go on to the program that it stands for: all of this stays in force.
"""

import os
import resource
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # the module `typing` takes as long as all else
    from collections.abc import Sequence

LAUNCHER_PREFIX = "launcher: "
EXIT_NOT_STARTED = 127
MOST_OPEN_FILES = 256
# Processes and threads of this user, all programs together: fewer than a machine can have, and more than servers need.
# Root's are not limited.
MOST_PROCESSES = 16_384
# At the end of the path, the modules beside this one hide none of the standard library's.
START = "import sys; sys.path.append(sys.argv.pop(1)); import launcher; launcher.main(sys.argv[1:])"
# The module `signal` makes enumerations of these, which takes as long as all else.
SIGKILL, SIGPIPE, SIGXFSZ, SIG_DFL = 9, 13, 25, 0

OFF, AUTO, REQUIRED = "off", "auto", "required"

# linux/prctl.h, linux/seccomp.h, linux/audit.h, linux/filter.h, linux/capability.h, linux/sched.h
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_ALLOW, SECCOMP_ERRNO = 0x7FFF0000, 0x00050000
LOAD_WORD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
# Where a filter finds a call's number, the machine that it is made for, and the halves of its first argument.
NUMBER, MACHINE, FIRST_ARGUMENT, FIRST_ARGUMENT_HIGH = 0, 4, 16, 20
CLONE_THREAD = 0x00010000
CAPABILITY_VERSION, CAP_DAC_OVERRIDE = 0x20080522, 1 << 1
EACCES, ENOSYS = 13, 38

# The machines that the numbers below are of, and how the kernel's audit calls them.
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
SECCOMP, CLONE, CLONE3, EXECVE = (317, 277), (56, 220), (435, 435), (59, 221)
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

# linux/landlock.h; the numbers of its calls are those of every machine.
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
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


class Confinement:
    """What a program may use. As one word on the command line: its values, separated by line ends.

    `memory_bytes`: address space. `cpu_seconds`: processor time, 0 for no limit. `parent_pid`: the process that the
    program dies with. `sandbox`: AUTO for every layer that the kernel has, REQUIRED to fail without one, OFF for none.
    `readable`: files, and directories with all below; `writable`: likewise, what exists. `output_bytes`: the size to
    which a file may be written.
    """

    def __init__(
        self,
        memory_bytes: int,
        cpu_seconds: int,
        parent_pid: int,
        sandbox: str,
        readable: "tuple[str, ...]",
        writable: "tuple[str, ...]",
        output_bytes: int = 0,
    ) -> None:
        self.memory_bytes = memory_bytes
        self.cpu_seconds = cpu_seconds
        self.parent_pid = parent_pid
        self.sandbox = sandbox
        self.readable = readable
        self.writable = writable
        self.output_bytes = output_bytes

    def launching(self, command: "Sequence[str]") -> "list[str]":
        """The command that starts `command`, confined."""
        directory = os.path.dirname(os.path.abspath(__file__))
        return [sys.executable, "-I", "-S", "-c", START, directory, self.to_word(), *command]

    def to_word(self) -> str:
        numbers = (
            f"{self.memory_bytes} {self.cpu_seconds} {self.parent_pid} {self.sandbox} {self.output_bytes}"
        )
        paths = [[_escape(path) for path in paths] for paths in (self.readable, self.writable)]
        return "\n".join((numbers, "\t".join(paths[0]), "\t".join(paths[1])))

    @classmethod
    def of_word(cls, word: str) -> "Confinement":
        numbers, readable, writable = word.split("\n")
        memory_bytes, cpu_seconds, parent_pid, sandbox, output_bytes = numbers.split(" ")
        paths = [tuple(_unescape(path) for path in text.split("\t") if path) for text in (readable, writable)]
        limits = int(memory_bytes), int(cpu_seconds), int(parent_pid)
        return cls(*limits, sandbox, paths[0], paths[1], int(output_bytes))


def _escape(path: str) -> str:
    return path.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")


def _unescape(text: str) -> str:
    parts = text.split("\\\\")
    return "\\".join(part.replace("\\n", "\n").replace("\\t", "\t") for part in parts)


def die_with_parent(parent_pid: int) -> None:
    """Make the kernel kill this process when the thread that started it ends (Linux).

    The setting survives exec. If the parent died before the setting was made, this process ends at once.
    """
    call_kernel("prctl", PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), SIGKILL)


def set_limit(kind: int, value: int) -> None:
    """Lower a resource limit to `value`, or to the existing hard limit if that is lower."""
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


def confine(confinement: Confinement, program: str, exec_address: "int | None") -> None:
    """Apply every layer that the kernel has. Raises OSError where one is missing and REQUIRED."""
    layers = (
        lambda: call_kernel("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        drop_capabilities,
        lambda: restrict_files(program, confinement.readable, confinement.writable),
        lambda: refuse_system_calls(exec_address),
    )
    for layer in layers:
        try:
            layer()
        except OSError:
            if confinement.sandbox == REQUIRED:
                raise


def landlock_version() -> int:
    """The version of Landlock that the kernel has. Raises OSError when it has none."""
    return call_kernel("syscall", LANDLOCK_CREATE_RULESET, None, 0, 1)


def restrict_files(program: str, readable: "tuple[str, ...]", writable: "tuple[str, ...]") -> None:
    """Leave this process the system's programs, `program`, and what it is given. Raises OSError."""
    import struct

    version = landlock_version()
    rights = RIGHTS_BY_VERSION[min(version, len(RIGHTS_BY_VERSION) - 1)]
    fields = [rights, *([TCP] if version >= 4 else []), *([SCOPES] if version >= 6 else [])]
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = call_kernel("syscall", LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    own = os.path.dirname(os.path.realpath(program))
    libraries = (os.path.join(os.path.dirname(own), name) for name in ("lib", "lib64"))
    allowed = [(path, READ | EXECUTE) for path in (*PROGRAMS, own, *libraries)]
    allowed += [(path, READ) for path in (*SYSTEM, *readable)]
    allowed += [("/dev/null", WRITE), *((path, WRITE) for path in writable)]
    for path, wanted in allowed:
        try:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # the program will say so, if it needs it
        granted = wanted & rights if os.path.isdir(path) else wanted & rights & OF_FILES
        rule = struct.pack("=Qi", granted, opened)
        call_kernel("syscall", LANDLOCK_ADD_RULE, ruleset, 1, rule, 0)
        os.close(opened)
    call_kernel("syscall", LANDLOCK_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def drop_capabilities() -> None:
    """Keep of root's capabilities the one to open files of other users. Raises OSError."""
    import ctypes

    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    # Effective, permitted and inheritable ones, of the first 32 and then of the others.
    held = (ctypes.c_uint32 * 6)()
    call_kernel("capget", header, held)
    kept = held[1] & CAP_DAC_OVERRIDE
    call_kernel("capset", header, (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0))


def refuse_system_calls(exec_address: "int | None") -> None:
    """Leave this process threads, but no other process, no socket, and no reach into other processes. It may become
    another program only by a path at `exec_address`, which that program does not know; None: by any.

    Raises OSError where the machine is not known or the kernel has no seccomp.
    """
    import ctypes
    import struct

    machine = os.uname().machine
    if machine not in MACHINES:
        raise OSError(ENOSYS, f"no filter of system calls for {machine}")
    column, audit = MACHINES[machine]
    allow, refuse = (RETURN, 0, 0, SECCOMP_ALLOW), (RETURN, 0, 0, SECCOMP_ERRNO | EACCES)
    load_argument = (LOAD_WORD, 0, 0, FIRST_ARGUMENT)
    # Each rule ends in an answer; its first step skips the rule for other numbers.
    rules: list[tuple[int, tuple[tuple[int, int, int, int], ...]]] = []
    rules += [(calls[column], (refuse,)) for calls in REFUSED_CALLS if column < len(calls)]
    # The C library makes threads by clone3, whose flags no filter can read, and by clone where there is none.
    rules += [(CLONE3[column], ((RETURN, 0, 0, SECCOMP_ERRNO | ENOSYS),))]
    rules += [(CLONE[column], (load_argument, (JUMP_ANY_BIT, 0, 1, CLONE_THREAD), allow, refuse))]
    own = (load_argument, (JUMP_EQUAL, 1, 0, 0), (JUMP_EQUAL, 0, 1, os.getpid()), allow, refuse)
    rules += [(calls[column], own) for calls in OWN_CALLS]
    if exec_address is not None:
        halves = exec_address & 0xFFFFFFFF, exec_address >> 32
        once = (
            *(load_argument, (JUMP_EQUAL, 0, 3, halves[0])),
            *((LOAD_WORD, 0, 0, FIRST_ARGUMENT_HIGH), (JUMP_EQUAL, 0, 1, halves[1])),
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
    steps += [allow]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))
    call_kernel("syscall", SECCOMP[column], SECCOMP_SET_MODE_FILTER, 0, program)


def call_kernel(name: str, *arguments: object) -> int:
    """What the C library's function returns. Raises OSError where that is negative."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    result: int = getattr(libc, name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}({', '.join(map(str, arguments))})")
    return result


class Start:
    """The one start of a program: by its path at an address that the program does not know, and cannot find out."""

    def __init__(self, command: "Sequence[str]") -> None:
        import ctypes
        import mmap

        path = os.fsencode(command[0])
        offset = int.from_bytes(os.urandom(2), "little") % mmap.PAGESIZE
        memory = mmap.mmap(-1, mmap.PAGESIZE + len(path) + 1)
        memory[offset : offset + len(path)] = path
        self._path = (ctypes.c_char * (len(path) + 1)).from_buffer(memory, offset)
        self._arguments = (ctypes.c_char_p * (len(command) + 1))(*map(os.fsencode, command))
        self.address = ctypes.addressof(self._path)

    def exec(self) -> None:
        """Become the program. Raises OSError."""
        try:
            call_kernel("execv", self._path, self._arguments)
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0)) from error


def is_script(program: str) -> bool:
    """Whether another program reads it, and may have to start the one that it stands for."""
    try:
        with open(program, "rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return False


def main(arguments: list[str]) -> None:
    confinement, command = Confinement.of_word(arguments[0]), arguments[1:]
    try:
        # Python ignores both signals; a program that inherits this would not end on a closed pipe.
        call_kernel("signal", SIGPIPE, SIG_DFL)
        call_kernel("signal", SIGXFSZ, SIG_DFL)
        if sys.platform == "linux":
            die_with_parent(confinement.parent_pid)
        set_limit(resource.RLIMIT_CORE, 0)
        if confinement.cpu_seconds:
            set_limit(resource.RLIMIT_CPU, confinement.cpu_seconds)
        start = None
        if sys.platform == "linux":
            if confinement.sandbox != OFF:
                start = Start(command)
                confine(confinement, command[0], None if is_script(command[0]) else start.address)
                set_limit(resource.RLIMIT_NOFILE, MOST_OPEN_FILES)
                set_limit(resource.RLIMIT_NPROC, MOST_PROCESSES)
                set_limit(resource.RLIMIT_FSIZE, confinement.output_bytes)
            # macOS refuses or ignores RLIMIT_AS.
            set_limit(resource.RLIMIT_AS, confinement.memory_bytes)
        if start is not None:
            start.exec()
        os.execv(command[0], command)  # noqa: S606 - an argument list, no shell
    except OSError as error:
        sys.stderr.write(f"{LAUNCHER_PREFIX}{command[0]}: {error}\n")
        sys.exit(EXIT_NOT_STARTED)
