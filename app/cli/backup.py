"""`regen backup` and `regen restore`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.database import open_database
from app.cli.reporting import DataDirectory, load_settings

if TYPE_CHECKING:
    from app.backup.service import BackupReport
    from app.platform.settings import Settings


def backup(
    file: Annotated[Path, typer.Argument(help="The new file, such as regen-backup.zip.", dir_okay=False)],
    has_videos: Annotated[
        bool | None,
        typer.Option(
            "--videos/--no-videos",
            help="Whether the backup includes videos. By default it includes those of local storage, not those of a "
            "bucket.",
            show_default=False,
        ),
    ] = None,
    data_dir: DataDirectory = None,
) -> None:
    """Write the database, the secret and the videos to one file, even while the server serves."""
    settings = load_settings(data_dir)
    from app.backup.service import make_backup
    from app.platform.storage import open_storage_to_look

    takes_videos = settings.storage == "local" if has_videos is None else has_videos
    storage = open_storage_to_look(settings) if takes_videos else None
    with open_database(settings) as database:
        report = make_backup(file, database, storage, secret=_secret_file(settings))
    typer.echo(f"{file}: {_describe(report)}.")
    if report.missing:
        typer.echo(
            f"{len(report.missing)} videos in the database were not in the storage, the first {report.missing[0]}: "
            "they were removed in the meantime, or lost before.",
            err=True,
        )
    if storage is None:
        typer.echo("The backup contains no videos: back up the bucket as well, after this.", err=True)
    if settings.secret_key is not None:
        typer.echo(
            "The backup does not contain REGEN_SECRET_KEY: without it every API key is void.", err=True
        )


def restore(
    file: Annotated[Path, typer.Argument(help="What regen backup wrote.", exists=True, dir_okay=False)],
    data_dir: DataDirectory = None,
) -> None:
    """Fill an empty database and the storage from a backup. The kinds of both may differ from the backup's.

    Unfinished renders begin again. Unfinished uploads in parts must be started again.
    """
    settings = load_settings(data_dir)
    from app.backup.service import restore_backup
    from app.platform.database import Database
    from app.platform.storage import open_storage
    from app.platform.storage.local import LocalStorage

    settings.root.mkdir(parents=True, exist_ok=True)
    secret = _secret_file(settings)
    # Not the secret, which this would make.
    is_local = settings.storage == "local"
    storage = LocalStorage(root=settings.storage_dir, url_key=b"") if is_local else open_storage(settings)
    with closing(Database.from_settings(settings)) as database:
        report = restore_backup(file, database, storage, secret=secret, scratch=settings.root)
    typer.echo(f"Restored: {_describe(report)}.")


def _secret_file(settings: Settings) -> Path | None:
    return settings.root / "secret" if settings.secret_key is None else None


def _describe(report: BackupReport) -> str:
    counts = report.rows
    return (
        f"{counts['users']} users, {counts['files']} files, {counts['renders']} renders; "
        f"{report.objects} videos and pictures of {report.object_bytes / 1e6:.1f} MB"
    )
