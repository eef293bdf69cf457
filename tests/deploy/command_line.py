"""`regen` as it reads its arguments."""

from collections.abc import Sequence
from typing import Any

import typer.main

from app.cli.application import application


def parse(arguments: Sequence[str]) -> None:
    """Read the arguments of `regen` as far as its own; nothing is run. Raises what click or the lookup raises."""
    command: Any = typer.main.get_command(application)
    left = list(arguments)
    while hasattr(command, "commands"):
        command = command.commands[left.pop(0)]
    command.make_context("regen", left)
