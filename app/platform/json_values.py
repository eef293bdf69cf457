"""How moments and exact numbers are written in JSON."""

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any


def timestamp(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds: 2023-04-01T12:34:56.789Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def number(value: Fraction | Decimal) -> int | float:
    """25 as 25, 30000/1001 as 29.97002997002997, a decimal as the number of the same digits."""
    return int(value) if value == int(value) else float(value)


def shown(value: Any) -> Any:
    """A column's value as JSON shows it."""
    if isinstance(value, Fraction | Decimal):
        return number(value)
    return timestamp(value) if isinstance(value, datetime) else value
