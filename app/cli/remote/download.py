"""`regen download`: results, in place once they are complete."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from app.cli.remote.connection import ServerOption
from app.cli.remote.display import Display
from app.cli.remote.session import RETRIES, carry_out
from app.cli.reporting import AsJson, print_json

if TYPE_CHECKING:
    from regen_client import AsyncRegen, Progress

Result = Literal["output", "input", "thumbnail"]


def make_directory(path: Path) -> None:
    """Make the directory that `--output` names unless it is there. Raises BadParameter if it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise typer.BadParameter(
            f"the directory {path} cannot be made: {reason}.", param_hint="--output"
        ) from error


def download(
    renders: Annotated[list[str], typer.Argument(metavar="ID...", help="The renders.")],
    to: Annotated[
        str,
        typer.Option("--output", metavar="PATH", help="A directory, or for one render the file to write."),
    ] = ".",
    result: Annotated[Result, typer.Option(help="Which of a render's files.")] = "output",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", "-y", help="Replace a file of the same name.")
    ] = False,
    server: ServerOption = None,
    as_json: AsJson = False,
) -> None:
    """Write the results of renders, or go on with downloads that were interrupted. Prints the files.

    In a directory a file has the name that the server gives it, and the render's id too if there is another.
    """
    output = Path(to)
    # A slash at the end names a directory, which a Path forgets.
    if len(renders) > 1 or to.endswith(("/", os.sep)):
        make_directory(output)
    elif not output.is_dir():
        make_directory(output.absolute().parent)
    if output.is_file() and not overwrite:
        raise typer.BadParameter(f"{output} exists. Give --overwrite to replace it.", param_hint="--output")
    with Display(silent=as_json) as display:

        async def all_of_them(regen: AsyncRegen) -> list[Path]:
            return await asyncio.gather(
                *(
                    download_result(
                        regen, one, output, result=result, overwrite=overwrite, on_progress=display.track(one)
                    )
                    for one in renders
                )
            )

        paths = carry_out(
            all_of_them,
            server=server,
            as_json=as_json,
            retries=RETRIES,
            going_on=lambda: (
                "What was received is kept beside the result. The same command goes on with it.",
            ),
        )
    if as_json:
        print_json(
            {
                "files": [
                    {"renderId": one, "path": str(path)} for one, path in zip(renders, paths, strict=True)
                ]
            }
        )
    else:
        for path in paths:
            typer.echo(path)


async def download_result(
    regen: AsyncRegen,
    what: str,
    output: Path,
    *,
    tag: str | None = None,
    result: Result = "output",
    overwrite: bool = False,
    on_progress: Callable[[Progress], None],
) -> Path:
    """Writes the result of a render, or what is at a signed URL, to `output`.

    In a directory it has the server's name, and where that is taken also `tag`, by default the render's id.
    """
    if output.is_dir():
        name = await regen.file_name(what, result=result)
        path = output / name
        if path.exists() and not overwrite:
            path = path.with_name(f"{path.stem}-{tag or what}{path.suffix}")
    else:
        path = output
    return await regen.download(what, path, result=result, on_progress=on_progress)
