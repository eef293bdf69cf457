"""`regen doctor`: checks of everything that the server needs, which change nothing."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.reporting import EXIT_FAILURE, DataDirectory, load_settings, stderr, stdout

if TYPE_CHECKING:
    from app.cli.doctor.findings import Finding
    from app.platform.settings import Settings

COLOURS = {"ok": "green", "absent": "yellow", "missing": "red"}


def doctor(data_dir: DataDirectory = None) -> None:
    """Check everything that the server needs: what works, what is missing, and how to fix it."""
    settings = load_settings(data_dir)
    table = Table("what", "state", "found", "how to fix it")
    console = stderr()
    findings = []
    with (
        tempfile.TemporaryDirectory(prefix="regen-doctor-") as scratch,
        console.status("Checking ...") as status,
    ):
        for finding in _findings(settings, Path(scratch)):
            findings.append(finding)
            status.update(f"Checking ... {finding.subject}: {finding.state.value}")
    for finding in findings:
        colour = COLOURS[finding.state.value]
        table.add_row(
            escape(finding.subject),
            f"[{colour}]{finding.state.value}[/{colour}]",
            escape(finding.found),
            escape(finding.fix),
        )
    stdout().print(table)
    missing = [finding.subject for finding in findings if finding.state.value == "missing"]
    if missing:
        stderr().print(f"[red]Missing: {escape(', '.join(missing))}.[/red]")
        raise typer.Exit(EXIT_FAILURE)


def _findings(settings: Settings, scratch: Path) -> Iterator[Finding]:
    """Every finding as its check ends. `scratch` is an empty directory for temporary files."""
    from app.cli.doctor.compute import check_devices, check_weights
    from app.cli.doctor.findings import Finding
    from app.cli.doctor.media import check_media
    from app.cli.doctor.services import check_broker, check_database, check_disk, check_storage

    yield Finding.ok("Python", platform.python_version())
    yield from check_media(settings, scratch)
    yield from check_devices()
    yield from check_weights(settings)
    yield check_database(settings)
    yield check_broker(settings)
    yield check_storage(settings)
    yield check_disk(settings)
