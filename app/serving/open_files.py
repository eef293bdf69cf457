"""The limit of open files, including sockets, of this process."""

import resource
from contextlib import suppress

# The actual maximum of macOS, whatever its limits say.
MACOS_MOST = 10240


def allow_open_files(wanted: int) -> int:
    """Raise the soft limit to `wanted`, as far as the hard limit allows. Returns the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (wanted, MACOS_MOST):
        raised = most if hard == resource.RLIM_INFINITY else min(most, hard)
        if soft == resource.RLIM_INFINITY or soft >= raised:
            break
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            return raised
    return wanted if soft == resource.RLIM_INFINITY else soft
