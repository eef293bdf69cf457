"""Writes the table of `docs/options.md` from RenderOptions: `python -m app.cli.options_page [--check]`."""

import inspect
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

from app.cli.remote.render_flags import FLAG_NAMES
from app.cli.upscale import upscale
from app.platform.generated_page import write_page
from app.platform.media.codecs import CODECS
from app.platform.media.containers import OUTPUT_CONTAINERS
from app.platform.media.output_size import EXCLUSIVE
from app.renders.options import RenderOptions

PAGE = Path(__file__).resolve().parents[2] / "docs" / "options.md"
BEGIN, END = "<!-- written by python -m app.cli.options_page -->\n", "<!-- end -->\n"


def tables() -> str:
    """The part of the page between its marks."""
    names = list(RenderOptions.model_json_schema()["properties"])
    return "\n".join([BEGIN, *_options(), "", *_combinations(names), "", *_formats(), "", END])


def _options() -> list[str]:
    flags = inspect.signature(upscale).parameters
    lines = ["| field | value | default | meaning | `regen upscale` |", "|---|---|---|---|---|"]
    for name, part in RenderOptions.model_json_schema()["properties"].items():
        default = part.get("default")
        flag = FLAG_NAMES.get(name, name)
        lines.append(
            f"| `{name}` | {_values(part)} | {'' if default is None else f'`{str(default).lower()}`'} "
            f"| {part['description']} "
            f"| {f'`--{flag}`'.replace('_', '-') if flag in flags else ''} |"
        )
    return lines


def _values(part: dict[str, Any]) -> str:
    if listed := part.get("enum") or part.get("examples"):
        return ", ".join(f"`{value}`" for value in listed) + ("" if "enum" in part else ", ...")
    if part["type"] == "object":
        return f"object of up to {part['maxProperties']} strings"
    kinds = part["type"] if isinstance(part["type"], list) else [part["type"]]
    bounds = [f"{part[key]}" for key in ("minimum", "maximum") if key in part]
    span = {0: "", 1: f" from {bounds[0]} on" if bounds else "", 2: f" {' to '.join(bounds)}"}[len(bounds)]
    return " or ".join(kinds) + span


def _combinations(names: list[str]) -> list[str]:
    """What goes with what: every option with every other, unless it is named in EXCLUSIVE."""
    apart = [pair for pair in combinations(names, 2) if frozenset(pair) in EXCLUSIVE]
    concerned = [name for name in names if any(name in pair for pair in apart)]
    if not concerned:
        return ["Every option goes with every other."]
    lines = [
        "Every option goes with every other, except:",
        "",
        "| | " + " | ".join(f"`{name}`" for name in concerned) + " |",
        "|---" * (len(concerned) + 1) + "|",
    ]
    for name in concerned:
        cells = [
            "" if name == other else "no" if frozenset((name, other)) in EXCLUSIVE else "yes"
            for other in concerned
        ]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return lines


def _formats() -> list[str]:
    """What goes with what of `codec`, `container` and `output_quality`: the table that requests are checked by."""
    lines = [
        "Codecs, the containers and qualities that they go with, and the defaults in bold:",
        "",
        "| `codec` | `container` | `output_quality` | sides | transparency |",
        "|---|---|---|---|---|",
    ]
    for codec, its in CODECS.items():
        containers = [name for name, file in OUTPUT_CONTAINERS.items() if codec in file.video_codecs]
        shown = (f"**`{name}`**" if name == its.container else f"`{name}`" for name in containers)
        qualities = ", ".join(f"`{quality}`" for quality in its.qualities)
        sides = f"from {its.least_side}, up to {its.most_height} rows"
        transparency = ", ".join(f"`{name}`" for name in its.alpha_containers)
        lines.append(f"| `{codec}` | {', '.join(shown)} | {qualities} | {sides} | {transparency} |")
    return lines


def page() -> str:
    """The page's expected content. Raises ValueError if its marks are gone."""
    written = PAGE.read_text()
    begin, end = written.index(BEGIN), written.index(END)
    return written[:begin] + tables() + written[end + len(END) :]


def main(arguments: list[str] | None = None) -> int:
    return write_page(PAGE, page, module="app.cli.options_page", arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
