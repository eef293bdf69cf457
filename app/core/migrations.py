"""Bringing a database to the newest migration, and asking where it stands.

`python -m app.core.migrations check` fails when the tables and the migrations have drifted apart;
`python -m app.core.migrations revision MESSAGE` writes a new migration from the difference.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

import migrations
from app.core.database import Database
from app.core.tables import Table


def upgrade(database: Database) -> None:
    """Apply every migration that is missing. Does nothing at head."""
    with database.engine.begin() as connection:
        command.upgrade(_config(connection), "head")


def downgrade(database: Database, revision: str = "base") -> None:
    with database.engine.begin() as connection:
        command.downgrade(_config(connection), revision)


def is_at_head(database: Database) -> bool:
    """Whether every migration has been applied."""
    with database.engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        return current == ScriptDirectory.from_config(_config(connection)).get_current_head()


def drift(database: Database) -> list[str]:
    """The differences between the tables in code and the database, one line each."""
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return [str(difference) for difference in compare_metadata(context, Table.metadata)]


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(str(migrations.__file__)).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m app.core.migrations")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="fail when tables and migrations differ")
    revision = commands.add_parser("revision", help="write a migration from the difference")
    revision.add_argument("message")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="regen-migrations-") as directory:
        database = Database(f"sqlite:///{directory}/check.db")
        try:
            upgrade(database)
            if options.command == "revision":
                with database.engine.begin() as connection:
                    config = _config(connection)
                    number = sum(1 for _script in ScriptDirectory.from_config(config).walk_revisions()) + 1
                    command.revision(
                        config, message=options.message, autogenerate=True, rev_id=f"{number:04d}"
                    )
                return 0
            differences = drift(database)
        finally:
            database.close()
    for difference in differences:
        sys.stderr.write(f"{difference}\n")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
