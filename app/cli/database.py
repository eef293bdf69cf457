"""`regen db`, and the database that other commands open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
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
    """Make the database if there is none, and apply missing migrations."""
    settings = load_settings(data_dir)
    from app import migrations
    from app.platform.database import Database

    with closing(Database.from_settings(settings)) as database:
        migrations.upgrade(database)
        typer.echo(migrations.describe(database))


@db.command("status")
def status(data_dir: DataDirectory = None) -> None:
    """Show the database's migration. The exit status is 1 if migrations are missing. Changes nothing."""
    settings = load_settings(data_dir)
    from app import migrations
    from app.platform.database import Database

    if (missing := missing_database(settings)) is not None:
        typer.echo(missing)
        raise typer.Exit(EXIT_FAILURE)
    with closing(Database.from_settings(settings, read_only=True)) as database:
        typer.echo(migrations.describe(database))
        if not migrations.position(database).is_usable:
            raise typer.Exit(EXIT_FAILURE)


def missing_database(settings: Settings) -> str | None:
    """A sentence when the database is a file that does not exist, else None. Raises ConfigurationError."""
    from app.platform.database_engine import parse_url, sqlite_file

    file = sqlite_file(parse_url(settings.resolved_database_url))
    if file is None or file.exists():
        return None
    return (
        f"There is no database at {file}. Check --data-dir and REGEN_DATA_DIR. "
        "For a new one: regen db upgrade, or regen serve."
    )


def require_database(settings: Settings) -> None:
    """Raises ConfigurationError when the database is a file that does not exist."""
    if (missing := missing_database(settings)) is not None:
        from app.platform.errors import ConfigurationError

        raise ConfigurationError(missing)


@contextmanager
def open_database(settings: Settings, *, read_only: bool = False) -> Iterator[Database]:
    """The database, which must exist and have every migration; with `read_only`, it is not changed.

    Raises ConfigurationError.
    """
    from app import migrations
    from app.platform.database import Database

    require_database(settings)
    with closing(Database.from_settings(settings, read_only=read_only)) as database:
        migrations.require_usable(database)
        yield database


@contextmanager
def open_or_make_database(settings: Settings, data_dir: Path | None) -> Iterator[Database]:
    """As `open_database`; a missing one is made, except in a directory that `--data-dir` names and that does not exist.

    Raises ConfigurationError.
    """
    from app import migrations
    from app.platform.database import Database

    is_meant = settings.database_url is None and (data_dir is None or settings.root.is_dir())
    if is_meant and missing_database(settings) is not None:
        with closing(Database.from_settings(settings)) as database:
            migrations.upgrade(database)
    with open_database(settings) as database:
        yield database
