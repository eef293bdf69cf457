"""`regen doctor`."""

import tempfile
from pathlib import Path

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.reporting import EXIT_FAILURE, DataDirectory, load_settings, stderr, stdout

COLOURS = {"ok": "green", "absent": "yellow", "missing": "red"}


def doctor(data_dir: DataDirectory = None) -> None:
    """Look at all the server needs: what is there, what is not, and how to mend it."""
    settings = load_settings(data_dir)
    from app.cli.checks import State, look_around

    table = Table("what", "state", "found", "how to mend it")
    console = stderr()
    findings = []
    with (
        tempfile.TemporaryDirectory(prefix="regen-doctor-") as scratch,
        console.status("Looking ...") as status,
    ):
        for finding in look_around(settings, Path(scratch)):
            findings.append(finding)
            status.update(f"Looking ... {finding.subject}: {finding.state.value}")
    for finding in findings:
        colour = COLOURS[finding.state.value]
        table.add_row(
            escape(finding.subject),
            f"[{colour}]{finding.state.value}[/{colour}]",
            escape(finding.found),
            escape(finding.mend),
        )
    stdout().print(table)
    missing = [finding.subject for finding in findings if finding.state is State.MISSING]
    if missing:
        stderr().print(f"[red]Missing: {escape(', '.join(missing))}.[/red]")
        raise typer.Exit(EXIT_FAILURE)
