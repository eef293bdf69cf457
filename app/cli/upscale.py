"""`regen upscale`: one local file, without a server."""

from __future__ import annotations

import os
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.reporting import (
    EXIT_INTERRUPTED,
    DataDirectory,
    load_settings,
    require_worker_packages,
    start_logging,
    stderr,
    stdout,
)
from app.platform.errors import ConfigurationError, InvalidRequest, RegenError
from app.platform.media.codecs import OutputFormat, Quality, parse_output_quality
from app.platform.media.containers import OUTPUT_CONTAINERS, ContainerName, VideoCodec
from app.platform.media.output_size import MOST_SCALE, MOST_SIDE
from app.platform.media.picture_options import MOST_STABILISE, Deinterlace
from app.platform.media.rates import Retime
from app.platform.media.work_options import WorkOptions
from app.serving.signals import StopSignals
from models.added import added_engines
from models.catalog import DEFAULT_ENGINE, ENGINES

if TYPE_CHECKING:
    from app.platform.media.info import VideoProperties
    from worker.local import LocalRender


def _frame_rate(value: str) -> Fraction:
    from app.platform.media.rates import parse_target_fps

    try:
        return parse_target_fps(value)
    except InvalidRequest as error:
        raise typer.BadParameter(
            "it must be a number from 1 to 120, such as 24, 29.97 or 30000/1001."
        ) from error


def _moment(value: str) -> Fraction:
    from app.platform.media.time_range import parse_moment

    try:
        return parse_moment(value, name="it")
    except InvalidRequest as error:
        raise typer.BadParameter(
            "it must be seconds, such as 83.5, or a time, such as 00:01:23.500."
        ) from error


def _output_quality(value: str) -> str:
    try:
        return parse_output_quality(value)
    except InvalidRequest as error:
        raise typer.BadParameter(
            "it must be lossless, high, medium, small, or a target such as vmaf=95, from 70 to 99."
        ) from error


def upscale(  # noqa: PLR0913 - one for each option of the command
    source: Annotated[Path, typer.Argument(metavar="IN", help="The video to enlarge.")],
    destination: Annotated[
        Path, typer.Argument(metavar="OUT", help=f"The file to write: {_listed_suffixes()}.")
    ],
    engine: Annotated[str, typer.Option(metavar="ENGINE", help="One of `regen engines`.")] = DEFAULT_ENGINE,
    target_fps: Annotated[
        Fraction | None,
        typer.Option(
            parser=_frame_rate, metavar="RATE", help="The output's frame rate, 1 to 120.", show_default=False
        ),
    ] = None,
    retime: Annotated[
        Retime, typer.Option(help="How frames between two frames of IN are made, with --target-fps.")
    ] = Retime.NEAREST,
    start: Annotated[
        Fraction | None,
        typer.Option(
            parser=_moment, metavar="TIME", help="Only from here on: 83.5 or 00:01:23.5.", show_default=False
        ),
    ] = None,
    end: Annotated[
        Fraction | None,
        typer.Option(parser=_moment, metavar="TIME", help="Only up to here.", show_default=False),
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_SCALE,
            help="How many times as wide and high OUT is.  [default: 4]",
            show_default=False,
        ),
    ] = None,
    max_width: Annotated[
        int | None,
        typer.Option(min=2, max=MOST_SIDE, help="The most pixels in a row of OUT.", show_default=False),
    ] = None,
    max_height: Annotated[
        int | None, typer.Option(min=2, max=MOST_SIDE, help="The most rows of OUT.", show_default=False)
    ] = None,
    strength: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="How much of the network's picture OUT holds; the rest is a plain one."
        ),
    ] = 1.0,
    grain: Annotated[
        float, typer.Option(min=0, max=1, help="How much of IN's noise is put back after the network.")
    ] = 0.0,
    stabilise: Annotated[
        int,
        typer.Option(
            min=0,
            max=MOST_STABILISE,
            help="How far flicker is averaged away over neighbouring frames; 0: not.",
        ),
    ] = 0,
    deinterlace: Annotated[
        Deinterlace,
        typer.Option(
            help="Which frames to deinterlace: the marked ones, none, all, or all to two frames each; "
            "or a film's frames out of telecined ones."
        ),
    ] = Deinterlace.AUTO,
    codec: Annotated[
        VideoCodec | None,
        typer.Option(help="Of OUT; what goes into which file is in docs/options.md.", show_default=False),
    ] = None,
    precision: Annotated[
        Literal["auto", "fp32", "fp16", "bf16", "mixed", "bf16-direct"] | None,
        typer.Option(help="In place of REGEN_PRECISION.", show_default=False),
    ] = None,
    output_quality: Annotated[
        str | None,
        typer.Option(
            parser=_output_quality,
            metavar="QUALITY",
            help="How much the encoder keeps: lossless, high, medium, small, or the VMAF that it is to reach, such as "
            "vmaf=95; in place of REGEN_OUTPUT_QUALITY.",
            show_default=False,
        ),
    ] = None,
    former_quality: Annotated[Quality | None, typer.Option("--quality", hidden=True)] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="auto, cpu, mps, cuda, cuda:1, GPU-..., MIG-...; overrides REGEN_DEVICE.",
            show_default=False,
        ),
    ] = None,
    measure_quality: Annotated[
        bool, typer.Option("--measure-quality", help="Compare OUT with IN, and show how close it is.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", "-y", help="Replace OUT if it exists.")] = False,
    data_dir: DataDirectory = None,
) -> None:
    """Enlarge a local file four times, without a server."""
    if scale is not None and (max_width or max_height):
        raise typer.BadParameter("--scale cannot be given with --max-width or --max-height.")
    if former_quality is not None:
        stderr().print("[yellow]--quality is called --output-quality now.[/yellow]")
    settings = load_settings(data_dir)
    choices = {"precision": precision, "device": device}
    settings = settings.model_copy(
        update={name: value for name, value in choices.items() if value is not None}
    )
    here = (*ENGINES, *added_engines(settings.weights_dir))
    if engine not in here:
        raise typer.BadParameter(f"there are {', '.join(here)}.", param_hint="--engine")
    start_logging(settings.model_copy(update={"log_level": _quiet(settings.log_level)}))
    options = WorkOptions(
        engine=engine,
        target_fps=target_fps,
        retime=retime,
        start_seconds=start,
        end_seconds=end,
        scale=scale,
        max_width=max_width,
        max_height=max_height,
        strength=strength,
        grain=grain,
        stabilise=stabilise,
        deinterlace=deinterlace,
        codec=codec,
        container=_container(destination),
        output_quality=output_quality or former_quality,
        measures_quality=measure_quality,
    )
    _check_format(options.form)
    _check_paths(source, destination, overwrite=overwrite)
    require_worker_packages()
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from app.cli.local_render import render_locally

    started = time.monotonic()
    console = stderr()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        StopSignals() as signals,
        # Beside OUT, so that a rename puts the complete file in place; always removed.
        tempfile.TemporaryDirectory(prefix=".regen-", dir=destination.parent) as scratch,
    ):
        unfinished = Path(scratch) / destination.name
        try:
            with Progress(
                *columns, console=console, transient=True, disable=not console.is_terminal
            ) as progress:
                task = progress.add_task("Upscaling", total=None)
                info, result = render_locally(
                    settings,
                    source=source.absolute(),
                    destination=unfinished.absolute(),
                    options=options,
                    work_directory=Path(scratch).absolute(),
                    on_progress=lambda at: progress.update(task, completed=at.done, total=at.total),
                    cancelled=lambda: signals.requested,
                )
        except RegenError:
            if not signals.requested:
                raise
        if signals.requested:
            stderr().print("[yellow]Stopped; nothing was written.[/yellow]")
            raise typer.Exit(EXIT_INTERRUPTED)
        if destination.exists() and not overwrite:
            raise ConfigurationError(f"{destination} was created in the meantime and was not replaced.")
        unfinished.replace(destination)
    _show(info.video, result, source, destination, seconds=time.monotonic() - started)


def _listed_suffixes() -> str:
    *others, last = (file.suffix for file in OUTPUT_CONTAINERS.values())
    return f"{', '.join(others)} or {last}"


def _container(destination: Path) -> ContainerName:
    """What OUT's suffix says. Raises BadParameter."""
    suffix = destination.suffix.lower()
    for name, file in OUTPUT_CONTAINERS.items():
        if file.suffix == suffix:
            return name
    raise typer.BadParameter(f"OUT must end in {_listed_suffixes()}.", param_hint="OUT")


def _check_format(form: OutputFormat) -> None:
    """Raises BadParameter for what cannot go together."""
    try:
        form.check()
    except InvalidRequest as error:
        raise typer.BadParameter(error.message.replace("`", ""), param_hint="OUT") from error


def _quiet(log_level: str) -> str:
    """The progress bar replaces info lines."""
    return "warning" if log_level == "info" else log_level


def _check_paths(source: Path, destination: Path, *, overwrite: bool) -> None:
    if not source.is_file():
        raise ConfigurationError(f"There is no file {source}.")
    if not destination.absolute().parent.is_dir():
        raise ConfigurationError(f"There is no directory {destination.absolute().parent} to write to.")
    if not os.access(destination.absolute().parent, os.W_OK):
        raise ConfigurationError(f"The directory {destination.absolute().parent} cannot be written.")
    if destination.exists():
        if destination.samefile(source):
            raise ConfigurationError("IN and OUT are the same file.")
        if not overwrite:
            raise ConfigurationError(f"{destination} exists. Give --overwrite to replace it.")
        if not destination.is_file():
            raise ConfigurationError(f"{destination} is not a file.")


def _show(
    before: VideoProperties, result: LocalRender, source: Path, destination: Path, *, seconds: float
) -> None:
    after = result.video.properties
    table = Table("", "input", "output")
    table.add_row("file", escape(str(source)), escape(str(destination)))
    table.add_row("size", f"{before.width}x{before.height}", f"{after.width}x{after.height}")
    table.add_row("frame rate", _rate(before.frame_rate), _rate(after.frame_rate))
    table.add_row("frames", str(before.frames), str(after.frames))
    table.add_row(
        "duration", f"{float(before.duration_seconds):.3f} s", f"{float(after.duration_seconds):.3f} s"
    )
    table.add_row("file size", _bytes(source), _bytes(destination))
    for measured in (result.encoded_quality, result.quality):
        for name, figure in measured.formatted() if measured is not None else ():
            table.add_row(name, "", figure)
    stdout().print(table)
    for warning in result.video.warnings:
        stderr().print(f"[yellow]{escape(warning)}[/yellow]", soft_wrap=True)
    typer.echo(f"Took {seconds:.1f} s.")


def _rate(rate: Fraction) -> str:
    return str(rate) if rate.denominator == 1 else f"{float(rate):.3f} ({rate})"


def _bytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.2f} MB"
