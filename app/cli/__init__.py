"""The `regen` command. One file a group of commands; what is heavy is imported inside the command that needs it."""

import sys


def main() -> None:
    """Entry point of the installed `regen` command."""
    # Before the other imports: a worker may be asked to end while they take their seconds.
    if next((word for word in sys.argv[1:] if not word.startswith("-")), None) == "worker":
        from app.serving.signals import exit_on_signals

        exit_on_signals()
    from app.cli.application import application

    application(prog_name="regen")
