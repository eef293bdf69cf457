"""A flag for each option of a render, made from the API's own declarations when a command needs them."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Collection
from functools import cache
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand
from typer.main import get_command

# `quality` of the API asks for a measurement; the encoder's is `output_quality`.
FLAG_NAMES = {"quality": "measure_quality"}
PANEL = "The render"
GIVEN = "regen.render_options"


class RenderCommand(TyperCommand):
    """A command with these flags. `given_options` has what was given."""

    @staticmethod
    def options() -> Collection[str]:
        return _declared().keys()

    def get_params(self, ctx: Any) -> list[Any]:
        return [*_flags(tuple(self.options())), *super().get_params(ctx)]


class PreviewCommand(RenderCommand):
    """With the flags of those options that previews have too."""

    @staticmethod
    def options() -> Collection[str]:
        from app.previews.schemas import PreviewRequest

        return [name for name in _declared() if name in PreviewRequest.model_fields]


def given_options(context: typer.Context) -> dict[str, Any]:
    """The options that were given, as JSON has them. Raises BadParameter before any upload for what is faulty."""
    given: dict[str, Any] = context.meta.get(GIVEN, {})
    from pydantic import ValidationError

    from app.renders.options import RenderOptions

    # A server may have engines of its own.
    checked = {name: _as_text(value) for name, value in given.items() if name != "engine"}
    try:
        RenderOptions.model_validate(checked)
    except ValidationError as error:
        faults = [str(fault.get("ctx", {}).get("error", fault["msg"])) for fault in error.errors()]
        raise typer.BadParameter(" ".join(faults).replace("`", "")) from error
    return given


def as_flags(options: dict[str, Any]) -> list[str]:
    """The flags that give these options."""
    flags = []
    for name, value in options.items():
        flag = f"--{FLAG_NAMES.get(name, name).replace('_', '-')}"
        if isinstance(value, dict):
            flags += [f"{flag}={key}={text}" for key, text in value.items()]
        else:
            flags.append(flag if value is True else f"{flag}={value}")
    return flags


@cache
def _declared() -> dict[str, dict[str, Any]]:
    from app.renders.options import RenderOptions

    properties: dict[str, dict[str, Any]] = RenderOptions.model_json_schema()["properties"]
    return properties


@cache
def _flags(names: tuple[str, ...]) -> list[Any]:
    def declaration() -> None: ...

    parameters = [_flag(name, _declared()[name]) for name in names]
    declaration.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    declaration.__annotations__ = {one.name: one.annotation for one in parameters}
    application = typer.Typer(add_completion=False)
    application.command()(declaration)
    return get_command(application).params


def _flag(name: str, part: dict[str, Any]) -> inspect.Parameter:
    kinds = part["type"] if isinstance(part["type"], list) else [part["type"]]
    kind: Any = str | None
    metavar: str | None = kinds[0].upper() if "string" not in kinds else "TEXT"
    if "enum" in part:
        kind, metavar = Literal[tuple(part["enum"])] | None, None
    elif kinds == ["boolean"]:
        kind, metavar = bool, None
    elif kinds == ["object"]:
        kind, metavar = list[str] | None, "NAME=VALUE"
    flag = FLAG_NAMES.get(name, name).replace("_", "-")
    option = typer.Option(
        f"--{flag}",
        help=part["description"].replace("[", "\\["),
        metavar=metavar,
        callback=_keep,
        expose_value=False,
        show_default=False,
        rich_help_panel=PANEL,
    )
    default = False if kind is bool else None
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


def _keep(context: typer.Context, param: typer.CallbackParam, value: Any) -> None:
    if value is None or value is False or value == []:
        return
    context.meta.setdefault(GIVEN, {})[param.name] = _as_json(str(param.name), value)


def _as_json(name: str, value: Any) -> Any:
    """The value as a JSON body has it: numbers as numbers, `NAME=VALUE` as an object."""
    kinds = _declared()[name]["type"]
    if kinds == "object":
        pairs = [text.partition("=") for text in value]
        if any(not equals for _, equals, _ in pairs):
            raise typer.BadParameter("it looks like NAME=VALUE.")
        return {key: text for key, _, text in pairs}
    if isinstance(value, str) and {"number", "integer"} & ({kinds} if isinstance(kinds, str) else set(kinds)):
        if re.fullmatch(r"[+-]?\d+", value):
            return int(value)
        # Other spellings, such as 30000/1001 and 00:01:23.5, are the server's to read.
        return float(value) if re.fullmatch(r"[+-]?\d*\.\d+", value) else value
    return value


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
