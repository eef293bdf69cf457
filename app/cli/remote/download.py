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
from app.cli.remote.session import RETRIES, attempt, carry_out, end_with
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
    output, renders = Path(to), list(dict.fromkeys(renders))
    # A slash at the end names a directory, which a Path forgets.
    if len(renders) > 1 or to.endswith(("/", os.sep)):
        make_directory(output)
    elif not output.is_dir():
        make_directory(output.absolute().parent)
    if output.is_file() and not overwrite:
        raise typer.BadParameter(f"{output} exists. Give --overwrite to replace it.", param_hint="--output")
    with Display(silent=as_json) as display:

        async def one_of_them(regen: AsyncRegen, one: str) -> Path | Exception:
            progress = display.track(one)
            writing = download_result(
                regen, one, output, result=result, overwrite=overwrite, on_progress=progress
            )
            try:
                return await attempt(writing)
            finally:
                display.end(one)

        async def all_of_them(regen: AsyncRegen) -> list[Path | Exception]:
            return await asyncio.gather(*(one_of_them(regen, one) for one in renders))

        outcomes = carry_out(
            all_of_them,
            server=server,
            as_json=as_json,
            retries=RETRIES,
            going_on=lambda: (
                "What was received is kept beside the result. The same command goes on with it.",
            ),
        )
    written = [(one, path) for one, path in zip(renders, outcomes, strict=True) if isinstance(path, Path)]
    if as_json:
        print_json({"files": [{"renderId": one, "path": str(path)} for one, path in written]})
    else:
        for _, path in written:
            typer.echo(path)
    failed = [
        (one, error) for one, error in zip(renders, outcomes, strict=True) if isinstance(error, Exception)
    ]
    end_with(failed, of=renders, server=server, as_json=as_json)


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
    if not output.is_dir():
        return await regen.download(what, output, result=result, on_progress=on_progress)
    plain = output / await regen.file_name(what, result=result)
    # Others may be writing a result of the same name: a name of its own keeps them apart until it is complete.
    own = plain.with_name(f"{plain.stem}-{tag or what}{plain.suffix}")
    stays = not overwrite and own.exists()
    await regen.download(what, own, result=result, on_progress=on_progress)
    return own if stays else _rename(own, plain, overwrite=overwrite)


def _rename(path: Path, other: Path, *, overwrite: bool) -> Path:
    """Give a file another name unless that is taken; the name that it has."""
    if overwrite:
        return path.replace(other)
    try:
        other.hardlink_to(path)
    except FileExistsError:
        return path
    except OSError:  # a file system without hard links, on which nothing keeps two programs apart
        return path if other.exists() else path.rename(other)
    path.unlink()
    return other
