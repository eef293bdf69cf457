"""The base of all tables: column types and the names of constraints."""

from dataclasses import fields
from datetime import datetime
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, ColumnElement, Index, MetaData, String, literal_column, text
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Composite, DeclarativeBase, Mapped, composite, mapped_column
from sqlalchemy.sql.operators import OperatorType
from sqlalchemy.types import TypeDecorator

from app.platform.database import UtcDateTime
from app.platform.media.info import VideoProperties


class ExactFraction(TypeDecorator[Fraction]):
    """A Fraction stored as text, `30000/1001`, so that no rate or duration is rounded."""

    impl = String(64)
    cache_ok = True

    def process_bind_param(self, value: Fraction | None, dialect: Dialect) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Fraction | None:
        return None if value is None else _fraction(value)


# Reading a text takes several times as long as finding it, and videos share few rates and durations.
_fraction = lru_cache(maxsize=4096)(Fraction)


class StatusText(TypeDecorator[Any]):
    """A status enum stored as text: readable in the database, and a new member needs no migration.

    A column is compared with members as literals: a plan for any parameters knows them, and may use a partial index.
    """

    impl = String(16)
    cache_ok = True

    class comparator_factory(String.Comparator[Any]):  # noqa: N801  (SQLAlchemy's name)
        def operate(self, op: OperatorType, *other: Any, **options: Any) -> ColumnElement[Any]:
            return super().operate(op, *(_as_literal(each) for each in other), **options)

    def __init__(self, enum: type[StrEnum]) -> None:
        super().__init__()
        self.enum = enum

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else self.enum(value).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else self.enum(value)


def _as_literal(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return literal_column(f"'{value.value}'", String)
    return (
        [_as_literal(each) for each in value] if isinstance(value, list | tuple | set | frozenset) else value
    )


class Table(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime(),
        Fraction: ExactFraction(),
        int: BigInteger(),
        list[str]: JSON(),
        dict[str, Any]: JSON(none_as_null=True),
    }


class ListedTable(Table):
    """A table whose rows are listed in pages, newest first."""

    __abstract__ = True

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    created_at: Mapped[datetime]


def video_columns(prefix: str = "") -> Composite[VideoProperties]:
    """One attribute over five columns, which are named for the fields: `width` or `input_width`, ..."""
    return composite(*(mapped_column(prefix + field.name) for field in fields(VideoProperties)))


def partial_index(name: str, *columns: str, where: str) -> Index:
    """An index of the rows for which the SQL condition holds, in both databases."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))
