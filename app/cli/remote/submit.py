"""`regen submit`: videos to a server, and what is made of them back."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.remote.connection import ServerOption, Timeout
from app.cli.remote.display import Display, one_line
from app.cli.remote.download import download_result, make_directory
from app.cli.remote.render_flags import as_flags, given_options
from app.cli.remote.session import RETRIES, carry_out, end_with
from app.cli.reporting import AsJson, print_json, stderr

if TYPE_CHECKING:
    from regen_client import AsyncRegen, Render

# Each sends four parts at once.
UPLOADS_AT_ONCE = 2


@dataclass
class Submission:
    """One video, and how far it has come."""

    source: str
    label: str
    render: Render | None = None
    path: Path | None = None
    error: Exception | None = None


def submit(
    context: typer.Context,
    sources: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Videos: files, ids of uploaded files, or http(s) addresses."),
    ],
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all have ended.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Wait, and write the results there.", show_default=False),
    ] = None,
    timeout: Timeout = None,
    server: ServerOption = None,
    as_json: AsJson = False,
) -> None:
    """Render videos on a server: upload them, or go on with an upload that was interrupted.

    Prints the ids of the renders, with --output the files that were written.
    """
    options = given_options(context)
    submissions = [Submission(source, label) for source, label in zip(sources, _labels(sources), strict=True)]
    _check_paths(submissions, output)
    waits = wait or output is not None
    own_flags = [
        *(["--wait"] if wait else ()),
        *(
            f"--{name}={given}"
            for name, given in (("output", output), ("timeout", timeout))
            if given is not None
        ),
        *(["--json"] if as_json else ()),
    ]
    with Display(silent=as_json) as display:

        async def all_of_them(regen: AsyncRegen) -> None:
            uploads = asyncio.Semaphore(UPLOADS_AT_ONCE)
            await asyncio.gather(
                *(
                    _one(regen, each, options, uploads, display, waits=waits, timeout=timeout, to=output)
                    for each in submissions
                )
            )

        carry_out(
            all_of_them,
            server=server,
            as_json=as_json,
            retries=RETRIES,
            going_on=lambda: _how_to_go_on(submissions, [*as_flags(options), *own_flags], output, server),
        )
    made = [each for each in submissions if each.render]
    if as_json:
        print_json({"renders": [each.render.raw for each in made if each.render]})
    else:
        for each in made:
            typer.echo(each.path or (each.render.id if each.render else ""))
            _tell_warnings(each)
    failed = [(each.label, each.error) for each in submissions if each.error]
    end_with(failed, of=sources, server=server, as_json=as_json)


async def _one(
    regen: AsyncRegen,
    submission: Submission,
    options: dict[str, Any],
    uploads: asyncio.Semaphore,
    display: Display,
    *,
    waits: bool,
    timeout: float | None,
    to: Path | None,
) -> None:
    from regen_client.errors import RegenError as ClientError
    from regen_client.errors import RenderFailed

    progress = display.track(submission.label)
    try:
        async with uploads:
            submission.render = await regen.upscale(submission.source, on_progress=progress, **options)
        if waits:
            submission.render = await regen.wait(submission.render, timeout=timeout, on_progress=progress)
        if to:
            submission.path = await download_result(regen, submission.render.id, to, on_progress=progress)
    except RenderFailed as failed:
        submission.render, submission.error = failed.render, failed
    except (ClientError, OSError) as error:
        submission.error = error
    finally:
        display.end(submission.label)


def _labels(sources: Sequence[str]) -> list[str]:
    """A line for each that no other has: its name, its path where names are the same, or that and a number."""
    names, seen = Counter(Path(source).name for source in sources), Counter[str]()
    labels = []
    for source in sources:
        seen[source] += 1
        text = name if names[name := Path(source).name] == 1 else source
        labels.append(one_line(text) + (f" ({seen[source]})" if seen[source] > 1 else ""))
    return labels


def _check_paths(submissions: Sequence[Submission], output: Path | None) -> None:
    """Raises BadParameter before anything is sent."""
    for each in submissions:
        is_file_name = not each.source.lower().startswith(("http://", "https://"))
        if is_file_name and Path(each.source).is_dir():
            raise typer.BadParameter(f"{each.source} is a folder.", param_hint="FILE")
        # An id has no dot and no folder.
        if is_file_name and not Path(each.source).is_file() and not re.fullmatch(r"[\w-]+", each.source):
            raise typer.BadParameter(f"there is no file {each.source}.", param_hint="FILE")
    if output is not None:
        make_directory(output)


def _tell_warnings(submission: Submission) -> None:
    for warning in submission.render.warnings if submission.render else ():
        stderr().print(f"{submission.label}: {warning}", style="yellow", soft_wrap=True, markup=False)


def _how_to_go_on(
    submissions: Sequence[Submission], flags: Sequence[str], output: Path | None, server: str | None
) -> Iterator[str]:
    """Lines that end with a command to be given as it is; `flags` are those of `submit`."""
    to = [f"--server={server}"] if server else []
    unsent = [each.source for each in submissions if each.render is None and each.error is None]
    unfetched = [each.render for each in submissions if each.render and not each.path and not each.error]
    under_way = [render.id for render in unfetched if not render.ended]
    if unsent:
        end_of_flags = ["--"] if any(source.startswith("-") for source in unsent) else []
        command = shlex.join(["regen", "submit", *flags, *to, *end_of_flags, *unsent])
        yield f"What was uploaded is kept for a day. To go on with it: {command}"
    if under_way:
        watch, cancel = (shlex.join(["regen", verb, *under_way, *to]) for verb in ("watch", "cancel"))
        yield f"The server goes on without this command. To see how: {watch}"
        yield f"To stop them: {cancel}"
    if unfetched:
        where = [f"--output={output}"] if output else []
        command = shlex.join(["regen", "download", *(one.id for one in unfetched), *where, *to])
        yield f"To fetch the results later: {command}"
