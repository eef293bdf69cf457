"""The installed `regen` command. PYTHONPATH is of other programs: a module in its folders would take the place of one
of the server's (`app`, `worker`), of a dependency's or of Python's own (`types`)."""

# Nothing that could be found in PYTHONPATH: both are part of Python's executable.
import os
import sys


def main() -> None:
    """Run `regen`, as if PYTHONPATH were not set; its child processes do so, too."""
    leave_pythonpath()
    from app.cli import main as run

    run()


def leave_pythonpath() -> None:
    """Start this process again without PYTHONPATH where it is set, but for the folder that holds this package."""
    given = os.environ.pop("PYTHONPATH", "")
    home = os.path.realpath(f"{__file__}/../..")
    if any(os.path.realpath(entry) == home for entry in given.split(os.pathsep)):
        os.environ["PYTHONPATH"] = home  # `pip install --target`
    # `python -m` would look in the current directory first.
    os.environ["PYTHONSAFEPATH"] = "1"
    if not sys.flags.ignore_environment and os.environ.get("PYTHONPATH", "") != given:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - no shell is meant
