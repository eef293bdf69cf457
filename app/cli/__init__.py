"""The `regen` command. One file per group of commands; a command imports slow modules itself."""

import atexit
import os
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
    end = _QuickEnd()
    # Called last, since it is registered first: after the threads have ended and all modules have tidied up.
    atexit.register(end)
    from app.platform.garbage import without_collection

    with without_collection():
        from app.cli.application import application

    try:
        application(prog_name="regen")
    except SystemExit as ended:
        end.status = ended.code
        raise


class _QuickEnd:
    """Ends this process without freeing its objects one by one, which takes a tenth of a second with torch.

    An exit status that is no number leaves the end to Python; so does output that cannot be written, unless the status
    tells of a failure already.
    """

    def __init__(self) -> None:
        self.status: object = None

    def __call__(self) -> None:
        if not isinstance(self.status, int):
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            if self.status == os.EX_OK:
                return
        os._exit(self.status)
