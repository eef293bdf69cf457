"""`regen cleanup`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from pydantic.alias_generators import to_camel

from app.cli.database import open_database
from app.cli.reporting import AsJson, DataDirectory, load_settings, print_json, print_rows

LABELS = {
    "renders_cleaned": "ended renders cleaned of segments and failed attempts",
    "results_withdrawn": "old results withdrawn: removed once their URLs have expired",
    "results_erased": "results removed",
    "files_withdrawn": "unused uploads withdrawn: removed once their URLs have expired",
    "files_erased": "uploads removed",
    "previews_removed": "previews older than a day removed",
    "uploads_cleared": "aborted and expired uploads in parts removed",
    "orphans": "orphans: objects in the storage without a row in the database",
}


def cleanup(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    anyway: Annotated[
        bool,
        typer.Option("--anyway", help="Remove orphans even if they are most of the storage."),
    ] = False,
    as_json: AsJson = False,
    data_dir: DataDirectory = None,
) -> None:
    """Remove files that are no longer needed, as the workers do regularly."""
    settings = load_settings(data_dir)
    from app.cleanup.orphans import find_orphans, remove_orphans
    from app.cleanup.service import CleanUp, RetentionRules
    from app.platform.storage import open_storage, open_storage_to_look

    with open_database(settings, read_only=dry_run) as database:
        storage = (open_storage_to_look if dry_run else open_storage)(settings)
        clean_up = CleanUp(database=database, storage=storage, rules=RetentionRules.from_settings(settings))
        removed = clean_up.preview() if dry_run else clean_up.run()
        orphans = find_orphans(database, storage)
        is_refused = orphans.are_suspect and not anyway
        count = (
            len(orphans.keys) if dry_run or is_refused else remove_orphans(storage, orphans, anyway=anyway)
        )
    counts = {**asdict(removed), "orphans": count}
    if as_json:
        print_json({"dryRun": dry_run, **{to_camel(name): number for name, number in counts.items()}})
    else:
        print_rows(("how many", "what"), [(str(number), LABELS[name]) for name, number in counts.items()])
    if is_refused:
        typer.echo(
            f"The {count} orphans were kept: they are most of the storage, so this may be the wrong database, or an "
            "old copy. If it is the right one, add --anyway.",
            err=True,
        )
    if dry_run and not as_json:
        typer.echo("Nothing was changed.")
