"""Writes `docs/settings.md` from the Settings class: `python -m app.platform.settings_page [--check]`."""

import sys
import typing
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from app.platform.byte_sizes import GIB, MIB
from app.platform.generated_page import write_page
from app.platform.settings import Settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
HEAD = """# Settings

Every setting is an environment variable. This page is made from `settings.py`, `limit_settings.py` and
`work_settings.py` in `app/platform` by `python -m app.platform.settings_page`; change it there.

| variable | default | meaning |
|---|---|---|
"""


def settings_page() -> str:
    """The page's expected content."""
    own = Settings.__annotations__
    fields = sorted(Settings.model_fields.items(), key=lambda field: field[0] not in own)
    return HEAD + "".join(_row(name, field) for name, field in fields)


def _row(name: str, field: FieldInfo) -> str:
    prefix = str(Settings.model_config.get("env_prefix", ""))
    meaning = (field.description or "").replace("|", "\\|")
    if choices := _choices(field.annotation):
        meaning = f"{meaning} One of {', '.join(f'`{choice}`' for choice in choices)}."
    return f"| `{prefix}{name.upper()}` | {_default(name, field)} | {meaning} |\n"


def _choices(annotation: Any) -> tuple[Any, ...]:
    choices = typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()
    return choices if len(choices) > 1 else ()


def _default(name: str, field: FieldInfo) -> str:
    value = field.default
    if value is None or value is PydanticUndefined or value == ():
        return "unset"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        value = ",".join(str(part) for part in value)
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, int) and name.endswith("_bytes"):
        return _bytes(value)
    if isinstance(value, int | float | Fraction):
        if name.endswith("_seconds"):
            return _seconds(float(value))
        return f"{value:,}" if isinstance(value, int) else f"{float(value):g}"
    return f"`{value}`"


def _bytes(value: int) -> str:
    for unit, size in (("GiB", GIB), ("MiB", MIB)):
        if value and value % size == 0:
            return f"{value // size} {unit} ({value})"
    return f"{value:,} bytes"


def _seconds(value: float) -> str:
    hours, rest = divmod(value, 3600)
    return f"{value:g} s" if rest or not hours else f"{hours:g} h ({value:g} s)"


def main(arguments: list[str] | None = None) -> int:
    return write_page(PAGE, settings_page, module="app.platform.settings_page", arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
