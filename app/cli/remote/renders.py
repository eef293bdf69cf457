"""`regen status`, `list`, `watch`, `stream`, `cancel`, `retry` and `deliver`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.remote.connection import ServerOption, Timeout
from app.cli.remote.display import Display
from app.cli.remote.session import (
    RETRIES,
    ExitCode,
    attempt,
    carry_out,
    end_with,
    exit_code_of,
    report,
)
from app.cli.reporting import AsJson, print_json, print_rows
from app.platform.errors import NotFound

if TYPE_CHECKING:
    from regen_client import AsyncRegen, Progress, Render, Video

# What one answer tells of all.
IN_VAIN = (ExitCode.NO_ANSWER, ExitCode.NO_ACCESS)
RenderIds = Annotated[list[str], typer.Argument(metavar="ID...", help="The renders.")]


def status(renders: RenderIds, server: ServerOption = None, as_json: AsJson = False) -> None:
    """Show renders."""
    _of_each(lambda regen, one: regen.get_render(one), renders, server=server, as_json=as_json)


def list_renders(
    status: Annotated[
        str | None, typer.Option(help="Only renders with this status.", show_default=False)
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="Only renders with this engine.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The most renders.")] = 20,
    server: ServerOption = None,
    as_json: AsJson = False,
) -> None:
    """List your renders, the newest first."""
    found = carry_out(
        lambda regen: regen.list_renders(status=status, engine=engine, limit=limit),
        server=server,
        as_json=as_json,
    )
    _print_renders(found, as_json=as_json)


def watch(
    renders: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID...]", help="The renders; without any, all that have not ended."),
    ] = None,
    timeout: Timeout = None,
    server: ServerOption = None,
    as_json: AsJson = False,
) -> None:
    """Follow renders until they have ended. With --json one line for each change.

    The exit status is 5 if one of them failed.
    """
    with Display(silent=as_json) as display:

        async def all_of_them(regen: AsyncRegen) -> list[tuple[str, Render | Exception]]:
            ids = renders or [one.id for one in await regen.list_renders(limit=1000) if not one.ended]
            ends = (attempt(_follow(regen, one, display, timeout, as_json=as_json)) for one in ids)
            return list(zip(ids, await asyncio.gather(*ends), strict=True))

        outcomes = carry_out(
            all_of_them,
            server=server,
            as_json=as_json,
            retries=RETRIES,
            going_on=lambda: ("The renders go on; `regen cancel ID` stops one.",),
        )
    ended = [render for _, render in outcomes if not isinstance(render, Exception)]
    if as_json:
        for render in ended:
            print_json({"render": render.raw}, indent=None)
    elif ended or not outcomes:
        _print_renders(ended, as_json=False)
    failed = [(one, error) for one, error in outcomes if isinstance(error, Exception)]
    end_with(failed, of=[one for one, _ in outcomes], server=server, as_json=as_json)
    if any(render.status == "failed" for render in ended):
        raise typer.Exit(ExitCode.RENDER_FAILED)


def stream(
    render: Annotated[str, typer.Argument(metavar="ID", help="The render.")],
    server: ServerOption = None,
    as_json: AsJson = False,
) -> None:
    """Print the address of a render's playlist, for players: what is finished of it can be watched."""
    found = carry_out(lambda regen: regen.get_render(render), server=server, as_json=as_json)
    if found.stream_url is None:
        what = f"There is nothing to watch of {render}, which is {found.status}"
        error = NotFound(f"{what}: no part is finished yet, or it has no playlist.")
        report([(None, error)], server="", as_json=as_json)
        raise typer.Exit(ExitCode.FAILED)
    if as_json:
        print_json({"streamURL": found.stream_url})
    else:
        typer.echo(found.stream_url)


def cancel(renders: RenderIds, server: ServerOption = None, as_json: AsJson = False) -> None:
    """Cancel renders."""
    _of_each(lambda regen, one: regen.cancel(one), renders, server=server, as_json=as_json)


def retry(renders: RenderIds, server: ServerOption = None, as_json: AsJson = False) -> None:
    """Render again what failed, with the same options. Prints the new renders."""
    _of_each(lambda regen, one: regen.retry(one), renders, server=server, as_json=as_json)


def deliver(
    renders: RenderIds,
    destination: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where to send it instead, such as a new presigned address."),
    ] = None,
    server: ServerOption = None,
    as_json: AsJson = False,
) -> None:
    """Send results to their destinations again."""
    if destination is not None and len(renders) > 1:
        raise typer.BadParameter(
            "takes one render: the results would replace each other.", param_hint="--destination"
        )
    _of_each(
        lambda regen, one: regen.deliver(one, destination=destination),
        renders,
        server=server,
        as_json=as_json,
    )


def _of_each(
    ask: Callable[[AsyncRegen, str], Awaitable[Render]], ids: list[str], *, server: str | None, as_json: bool
) -> None:
    """Prints what the server answers for each; what it refuses of one keeps nothing from the others."""

    async def one_after_the_other(regen: AsyncRegen) -> list[Render | Exception]:
        outcomes: list[Render | Exception] = []
        for one in ids:
            outcomes.append(await attempt(ask(regen, one)))
            if isinstance(outcomes[-1], Exception) and exit_code_of(outcomes[-1]) in IN_VAIN:
                break
        return outcomes

    outcomes = carry_out(one_after_the_other, server=server, as_json=as_json)
    found = [one for one in outcomes if not isinstance(one, Exception)]
    if found:
        _print_renders(found, as_json=as_json)
    failed = [(one, error) for one, error in zip(ids, outcomes, strict=False) if isinstance(error, Exception)]
    end_with(failed, of=ids, server=server, as_json=as_json)


async def _follow(
    regen: AsyncRegen, render_id: str, display: Display, timeout: float | None, *, as_json: bool
) -> Render:
    from regen_client.errors import RenderFailed

    show = display.track(render_id)
    told: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        show(progress)
        if as_json and progress not in told[-1:]:
            told.append(progress)
            seen: dict[str, Any] = {"id": render_id, "status": progress.status}
            if progress.total:
                seen["progress"] = round(progress.done / progress.total, 4)
            if progress.eta_seconds is not None:
                seen["etaSeconds"] = progress.eta_seconds
            print_json({"render": seen}, indent=None)

    try:
        return await regen.wait(render_id, timeout=timeout, on_progress=on_progress)
    except RenderFailed as failed:
        return failed.render
    finally:
        display.end(render_id)


def _print_renders(renders: list[Render], *, as_json: bool) -> None:
    if as_json:
        print_json({"renders": [render.raw for render in renders]})
        return
    columns = ("id", "status", "made", "engine", "input", "output", "cost", "notes")
    print_rows(columns, [_row(render) for render in renders])


def _row(render: Render) -> tuple[str, ...]:
    state = render.status
    if state == "queued" and render.queue_position:
        state += f", place {render.queue_position}"
    elif state == "processing":
        state += f", {render.progress:.0%}"
        if render.eta_seconds is not None:
            state += f", {render.eta_seconds:.0f} s left"
    return (
        render.id,
        state,
        f"{render.created_at.astimezone():%Y-%m-%d %H:%M}",
        render.engine or "",
        video_facts(render.input),
        video_facts(render.output),
        "" if render.cost is None else f"{render.cost:.3g}",
        " ".join(filter(None, (render.error, *render.warnings))),
    )


def video_facts(video: Video | None) -> str:
    if video is None:
        return ""
    return f"{video.width}x{video.height}, {video.frame_rate:.5g} fps, {video.duration_seconds:.1f} s"
