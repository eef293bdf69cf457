"""`regen db`, and the database that other commands open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from app.cli.reporting import DataDirectory, load_settings
from app.core.errors import ConfigurationError

if TYPE_CHECKING:
    from app.core.database import Database
    from app.core.settings import Settings

db = typer.Typer(no_args_is_help=True, help="The database.")


@db.callback()
def _group() -> None:
    # A Typer with one command would otherwise be that command.
    return


@db.command("upgrade")
def upgrade(data_dir: DataDirectory = None) -> None:
    """Apply the migrations that are missing."""
    settings = load_settings(data_dir)
    from app.core import migrations
    from app.core.database import Database

    database = Database(settings.resolved_database_url)
    try:
        migrations.upgrade(database)
    finally:
        database.close()
    typer.echo("The database is at the newest migration.")


@contextmanager
def open_database(settings: Settings) -> Iterator[Database]:
    """The database, at the newest migration: our own file is brought there, any other must be there already.

    Raises ConfigurationError.
    """
    from app.core import migrations
    from app.core.database import Database

    database = Database(settings.resolved_database_url)
    try:
        if not migrations.is_at_head(database):
            if settings.database_url is not None:
                raise ConfigurationError("The database lacks migrations. Apply them with: regen db upgrade")
            migrations.upgrade(database)
        yield database
    finally:
        database.close()
