"""The command line of a module that writes a page of `docs/` from the code."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path


def write_page(page: Path, expected: Callable[[], str], *, module: str, arguments: list[str] | None) -> int:
    """Writes what the page should contain, or with `--check` compares it. Returns the exit status."""
    command = f"python -m {module}"
    parser = argparse.ArgumentParser(prog=command)
    parser.add_argument("--check", action="store_true", help="fail if the page is not up to date")
    is_check = parser.parse_args(arguments).check
    content = expected()
    if not is_check:
        page.write_text(content)
    elif not page.is_file() or page.read_text() != content:
        sys.stderr.write(f"{page.name} is not up to date: run {command}\n")
        return 1
    return 0
