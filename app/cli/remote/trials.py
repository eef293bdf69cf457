"""`regen estimate` and `regen preview`: before a render is made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.remote.connection import ServerOption
from app.cli.remote.display import Display, one_line
from app.cli.remote.download import download_result, make_directory
from app.cli.remote.render_flags import given_options
from app.cli.remote.renders import video_facts
from app.cli.remote.session import RETRIES, ExitCode, carry_out, report
from app.cli.reporting import AsJson, print_json, print_rows, stderr
from app.platform.errors import RegenError

if TYPE_CHECKING:
    from regen_client import AsyncRegen, Preview

Video = Annotated[
    str, typer.Argument(metavar="FILE", help="A video: a file, the id of an uploaded one, or an address.")
]


def estimate(
    context: typer.Context, source: Video, server: ServerOption = None, as_json: AsJson = False
) -> None:
    """Show what a render would cost and how long it would take. The exit status is 1 if it would be refused."""
    options = given_options(context)
    with Display(silent=as_json) as display:
        found = carry_out(
            lambda regen: regen.estimate(
                source, on_progress=display.track(one_line(Path(source).name)), **options
            ),
            server=server,
            as_json=as_json,
            retries=RETRIES,
        )
    if as_json:
        print_json({"estimate": found.raw})
    else:
        facts = [
            ("engine", found.engine),
            ("input", video_facts(found.input)),
            ("output", video_facts(found.output)),
            ("cost", "" if found.cost is None else f"{found.cost:.4g} gigapixels"),
            ("takes", "" if found.expected_seconds is None else f"{found.expected_seconds:.0f} s"),
            ("after waiting", "" if found.wait_seconds is None else f"{found.wait_seconds:.0f} s"),
            ("accepted", "yes" if found.accepted else "no"),
        ]
        print_rows(("", ""), [fact for fact in facts if fact[1]])
        if found.suggested_engine is not None:
            stderr().print(found.suggested_engine["reason"], soft_wrap=True, markup=False, highlight=False)
        for sentence in (*found.refusals, *found.warnings):
            stderr().print(sentence, style="yellow", soft_wrap=True, markup=False)
    if not found.accepted:
        raise typer.Exit(ExitCode.FAILED)


def preview(
    context: typer.Context,
    source: Video,
    at: Annotated[float, typer.Option(min=0, help="The moment, in seconds.")] = 0.0,
    crop: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y,WIDTH,HEIGHT",
            help="A part of the frame, in pixels; of WIDTH,HEIGHT alone: around its centre.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where to write the pictures.")] = Path(),
    server: ServerOption = None,
    as_json: AsJson = False,
) -> None:
    """Write one frame before and after, without a render. Prints the two files."""
    options = given_options(context)
    area = _area(crop) if crop else {}
    make_directory(output)
    with Display(silent=as_json) as display:

        async def make(regen: AsyncRegen) -> tuple[Preview, list[Path]]:
            progress = display.track(one_line(Path(source).name))
            made = await regen.preview(source, at, on_progress=progress, **area, **options)
            urls = [url for url in (made.before_url, made.after_url) if url]
            paths = [
                await download_result(regen, url, output, tag=made.id, on_progress=progress) for url in urls
            ]
            return made, paths

        made, paths = carry_out(make, server=server, as_json=as_json, retries=RETRIES)
    if as_json:
        print_json({"preview": made.raw, "files": [str(path) for path in paths]})
    for path in () if as_json else paths:
        typer.echo(path)
    if made.status == "failed":
        error = RegenError(made.error or "The preview failed.")
        report([(None, error)], server="", as_json=as_json)
        raise typer.Exit(ExitCode.RENDER_FAILED)


def _area(text: str) -> dict[str, Any]:
    """The fields of a preview that name this part."""
    sides = text.split(",")
    if len(sides) not in (2, 4) or not all(side.strip().isdecimal() for side in sides):
        raise typer.BadParameter(
            "it is four whole numbers, such as 40,20,160,90, or the last two.", param_hint="--crop"
        )
    numbers = [int(side) for side in sides]
    if len(numbers) == 2:
        return dict(zip(("crop_width", "crop_height"), numbers, strict=True))
    return {"crop": dict(zip(("x", "y", "width", "height"), numbers, strict=True))}
