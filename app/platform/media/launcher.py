"""Starts one program under limits: carries out words of `confinement.py` in order, then becomes the program (exec).

`launcher.c` is the same program, which starts in a tenth of the time; this one, in a Python of its own, takes its place
where the package was installed without a C compiler. Neither knows what is allowed: the words say it.

Words, each an argument; numbers after `=` and of `p`, `l` are decimal, others hexadecimal:

    pPID             dies with its parent, the process PID
    lKIND=VALUE      a resource limit, or the existing hard limit if that is lower
    required         whatever follows must succeed; what comes before it may be missing in the kernel, but for p and l
    n                no new privileges
    cMASK            of the first 32 capabilities these at most, of the others none
    rATTRIBUTES      a new Landlock ruleset, of these bytes
    aDIR:FILE:PATH   it allows access DIR to PATH with all below if that is a directory, else FILE; none if missing
    e                the ruleset is in force
    fSTEPS           a seccomp filter, of these bytes; the high byte of a step's code names what replaces its operand
    --               the program, an absolute path, and its arguments follow

Exit status 127 with a line that starts with LAUNCHER_PREFIX means that the program could not be started. This module
imports only the standard library, and little of it, and is imported rather than run as a script, whose source Python
compiles at every start.
"""

import ctypes
import mmap
import os
import resource
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # the module `typing` takes as long as all else
    from collections.abc import Callable, Sequence

REQUIRED, ALWAYS_REQUIRED = "required", "lp"

LAUNCHER_PREFIX = "launcher: "
EXIT_NOT_STARTED = 127
# At the end of the path, the modules beside this one hide none of the standard library's.
START = "import sys; sys.path.append(sys.argv.pop(1)); import launcher; launcher.main(sys.argv[1:])"
# The module `signal` makes enumerations of these, which takes as long as all else.
SIGKILL, SIGPIPE, SIGXFSZ, SIG_DFL = 9, 13, 25, 0

# linux/prctl.h, linux/seccomp.h, linux/capability.h
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
SECCOMP_SET_MODE_FILTER = 1
SECCOMP = {"x86_64": 317, "aarch64": 277}
CAPABILITY_VERSION = 0x20080522
# linux/landlock.h; the numbers of its calls are those of every machine.
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
# struct sock_filter.
STEP = "=HBBI"
# The high byte of a step's code; its operand becomes this process's id, or half of the address of the program's path.
OWN_PID, ADDRESS_LOW, ADDRESS_HIGH = 1, 2, 3


def call_kernel(name: str, *arguments: object) -> int:
    """What the C library's function returns. Raises OSError where that is negative."""
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = getattr(libc, name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def die_with_parent(parent_pid: int) -> None:
    """Make the kernel kill this process when the thread that started it ends (Linux).

    The setting survives exec. If the parent died before the setting was made, this process ends at once.
    """
    call_kernel("prctl", PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), SIGKILL)


def set_limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


def keep_capabilities(mask: int) -> None:
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    # Effective, permitted and inheritable ones, of the first 32 and then of the others.
    held = (ctypes.c_uint32 * 6)()
    call_kernel("capget", header, held)
    kept = held[1] & mask
    call_kernel("capset", header, (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0))


class Launch:
    """The one start of a program: by its path at an address that the program does not know, and cannot find out."""

    def __init__(self, command: "Sequence[str]") -> None:
        path = os.fsencode(command[0])
        offset = int.from_bytes(os.urandom(2), "little") % mmap.PAGESIZE
        memory = mmap.mmap(-1, mmap.PAGESIZE + len(path) + 1)
        memory[offset : offset + len(path)] = path
        self._path = (ctypes.c_char * (len(path) + 1)).from_buffer(memory, offset)
        self._arguments = (ctypes.c_char_p * (len(command) + 1))(*map(os.fsencode, command))
        self._ruleset: int | None = None

    def carry_out(self, word: str) -> None:
        """Raises OSError, ValueError."""
        kind, rest = word[0], word[1:]
        if kind == "l":
            set_limit(*map(int, rest.split("=")))
        elif kind == "p":
            die_with_parent(int(rest))
        else:
            self._layers()[kind](rest)

    def _layers(self) -> "dict[str, Callable[[str], object]]":
        return {
            "n": lambda _: call_kernel("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            "c": lambda mask: keep_capabilities(int(mask, 16)),
            "r": self._make_ruleset,
            "a": self._allow,
            "e": lambda _: self._enforce(),
            "f": self._filter,
        }

    def _make_ruleset(self, attributes: str) -> None:
        content = bytes.fromhex(attributes)
        self._ruleset = call_kernel("syscall", LANDLOCK_CREATE_RULESET, content, len(content), 0)

    def _allow(self, rule: str) -> None:
        if sys.platform != "linux":
            return
        directory, file, path = rule.split(":", 2)
        try:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return  # the program will say so, if it needs it
        content = struct.pack("=Qi", int(directory if os.path.isdir(path) else file, 16), opened)
        if self._ruleset is not None:
            ruleset, self._ruleset = self._ruleset, None
            call_kernel("syscall", LANDLOCK_ADD_RULE, ruleset, 1, content, 0)
            self._ruleset = ruleset
        os.close(opened)

    def _enforce(self) -> None:
        if self._ruleset is not None:
            call_kernel("syscall", LANDLOCK_RESTRICT_SELF, self._ruleset, 0)
            os.close(self._ruleset)

    def _filter(self, text: str) -> None:
        address = ctypes.addressof(self._path)
        operands = {OWN_PID: os.getpid(), ADDRESS_LOW: address & 0xFFFFFFFF, ADDRESS_HIGH: address >> 32}
        steps = [
            struct.pack(STEP, code & 0xFF, then, otherwise, operands.get(code >> 8, operand))
            for code, then, otherwise, operand in struct.iter_unpack(STEP, bytes.fromhex(text))
        ]
        code = ctypes.create_string_buffer(b"".join(steps))
        program = struct.pack("@HP", len(steps), ctypes.addressof(code))
        call_kernel("syscall", SECCOMP[os.uname().machine], SECCOMP_SET_MODE_FILTER, 0, program)

    def exec(self) -> None:
        """Become the program. Raises OSError."""
        call_kernel("execv", self._path, self._arguments)


def main(arguments: list[str]) -> None:
    end = arguments.index("--")
    words, command = arguments[:end], arguments[end + 1 :]
    launch, required, word = Launch(command), False, ""
    try:
        # Python ignores both signals; a program that inherits this would not end on a closed pipe.
        call_kernel("signal", SIGPIPE, SIG_DFL)
        call_kernel("signal", SIGXFSZ, SIG_DFL)
        for word in words:
            if word == REQUIRED:
                required = True
                continue
            try:
                launch.carry_out(word)
            except OSError:
                if required or word[0] in ALWAYS_REQUIRED:
                    raise
        word = "exec"
        launch.exec()
    except OSError as error:
        sys.stderr.write(f"{LAUNCHER_PREFIX}{command[0]}: {word}: {error.strerror}\n")
        sys.exit(EXIT_NOT_STARTED)
