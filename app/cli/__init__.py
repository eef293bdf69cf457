"""The `regen` command. One file a group of commands; what is heavy is imported inside the command that needs it."""

from app.cli.application import application


def main() -> None:
    """Entry point of the installed `regen` command."""
    application(prog_name="regen")
