"""The `regen` command. One file per group of commands; a command imports slow modules itself."""

import gc
import sys


def main() -> None:
    """Entry point of the installed `regen` command."""
    # Before the other imports, which take seconds: a worker may be stopped during them.
    if next((word for word in sys.argv[1:] if not word.startswith("-")), None) == "worker":
        from app.serving.signals import exit_on_signals

        exit_on_signals()
    if sys.argv[1:2] == ["healthcheck"]:
        from app.cli.healthcheck import main as check

        check()
    from app.platform.garbage import without_collection

    with without_collection():
        from app.cli.application import application

    try:
        application(prog_name="regen")
    finally:
        # The process's end frees all of it: to search it before takes as long as half of torch's import.
        gc.freeze()
