"""`regen db`, and the database that other commands open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from app.cli.reporting import EXIT_FAILURE, DataDirectory, load_settings

if TYPE_CHECKING:
    from app.platform.database import Database
    from app.platform.settings import Settings

db = typer.Typer(no_args_is_help=True, help="The database.")


@db.command("upgrade")
def upgrade(data_dir: DataDirectory = None) -> None:
    """Apply the migrations that are missing."""
    settings = load_settings(data_dir)
    from app import migrations
    from app.platform.database import Database

    database = Database.from_settings(settings)
    try:
        migrations.upgrade(database)
        typer.echo(_sentence(database))
    finally:
        database.close()


@db.command("status")
def status(data_dir: DataDirectory = None) -> None:
    """Say which migration the database is at. The exit status is 1 when it lacks some. Changes nothing."""
    settings = load_settings(data_dir)
    from app import migrations
    from app.platform.database import Database

    file = _sqlite_file(settings)
    if file is not None and not file.exists():
        # A connection would create it.
        typer.echo(f"There is no database at {file} yet. Make it with: regen db upgrade")
        raise typer.Exit(EXIT_FAILURE)
    database = Database.from_settings(settings)
    try:
        typer.echo(_sentence(database))
        is_usable = migrations.position(database).is_usable
    finally:
        database.close()
    if not is_usable:
        raise typer.Exit(EXIT_FAILURE)


def _sqlite_file(settings: Settings) -> Path | None:
    """The path of the database if it is a file, else None."""
    from app.platform.database import parse_url

    url = parse_url(settings.resolved_database_url)
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith((":", "file:")):
        return None
    return Path(url.database)


def _sentence(database: Database) -> str:
    from app import migrations
    from app.migrations import Position

    revision = migrations.revision(database)
    return {
        Position.EMPTY: "The database is empty. Apply the migrations with: regen db upgrade",
        Position.BEHIND: f"The database is at migration {revision} and lacks later ones. "
        "Apply them with: regen db upgrade",
        Position.HEAD: f"The database is at the newest migration, {revision}.",
        Position.AHEAD: f"The database is at migration {revision}, of a later version than this one. "
        "This one can use it.",
    }[migrations.position(database)]


@contextmanager
def open_database(settings: Settings) -> Iterator[Database]:
    """The database at the newest migration. The default SQLite file is migrated; any other database must be.

    Raises ConfigurationError.
    """
    from app import migrations
    from app.platform.database import Database

    database = Database.from_settings(settings)
    try:
        if settings.database_url is None:
            migrations.upgrade(database)
        migrations.require_usable(database)
        yield database
    finally:
        database.close()
