"""Alembic's environment. Commands come through app.migrations, which hands over the engine."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy.types import TypeDecorator

from app.tables import Table


def render_item(kind: str, item: Any, _context: AutogenContext) -> str | Literal[False]:
    """Migrations name plain column types: they must go on working when our own types change or go."""
    if kind == "type" and isinstance(item, TypeDecorator):
        return f"sa.{item.impl!r}"
    return False


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Table.metadata,
    compare_type=True,
    render_item=render_item,
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
