"""`regen doctor`: checks of everything that the server needs. It writes only its own temporary files."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.reporting import EXIT_FAILURE, AsJson, DataDirectory, load_settings, print_json, stderr, stdout

if TYPE_CHECKING:
    from app.cli.doctor.findings import Finding
    from app.platform.settings import Settings

COLOURS = {"ok": "green", "absent": "yellow", "missing": "red"}


def doctor(
    as_json: AsJson = False,
    data_dir: DataDirectory = None,
) -> None:
    """Check everything that the server needs: what works, what is missing, and how to fix it.

    Changes nothing. The exit status is 1 if something essential is missing.
    """
    settings = load_settings(data_dir)
    findings = []
    with (
        tempfile.TemporaryDirectory(prefix="regen-doctor-") as scratch,
        stderr().status("Checking ...") as status,
    ):
        for finding in _findings(settings, Path(scratch)):
            findings.append(finding)
            status.update(f"Checking ... {escape(finding.subject)}: {finding.state.value}")
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        _show(findings)
    missing = [finding.subject for finding in findings if finding.state.value == "missing"]
    if missing:
        stderr().print(f"[red]Missing: {escape(', '.join(missing))}.[/red]")
        raise typer.Exit(EXIT_FAILURE)


def _show(findings: list[Finding]) -> None:
    """Two columns, of which the second folds: it fits a terminal of any width."""
    table = Table.grid("state", "finding", padding=(0, 1))
    table.columns[0].no_wrap = True
    table.columns[1].overflow = "fold"
    for finding in findings:
        colour = COLOURS[finding.state.value]
        text = f"[bold]{escape(finding.subject)}[/bold]: {escape(finding.found)}"
        if finding.fix:
            text += f"\n[dim]to fix it:[/dim] {escape(finding.fix)}"
        table.add_row(f"[{colour}]{finding.state.value}[/{colour}]", text)
    stdout().print(table)


def _findings(settings: Settings, scratch: Path) -> Iterator[Finding]:
    """Every finding, as soon as its check ends. `scratch` is an empty directory for temporary files."""
    from app.cli.doctor.compute import check_devices, check_weights
    from app.cli.doctor.findings import Finding
    from app.cli.doctor.media import check_media
    from app.cli.doctor.services import check_broker, check_database, check_disk, check_storage
    from app.cli.doctor.setup import check_api_processes, check_limits, check_names, check_secret

    yield Finding.ok("Python", platform.python_version())
    yield from check_names()
    yield from check_media(settings, scratch)
    yield from check_devices()
    yield from check_weights(settings)
    yield check_secret(settings)
    yield check_limits(settings)
    yield check_api_processes(settings)
    yield from check_database(settings)
    yield check_broker(settings)
    yield check_storage(settings)
    yield check_disk(settings)
