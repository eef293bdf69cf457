"""`regen weights`: the networks' weights on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.reporting import (
    AsJson,
    DataDirectory,
    load_settings,
    print_json,
    print_rows,
    require_worker_packages,
)
from app.platform.errors import ConfigurationError
from models.added import added_engine, added_engines, find_engine, measured_properties, parse_multiplier
from models.catalog import ENGINES, UnknownEngine
from models.errors import WeightsError

if TYPE_CHECKING:
    from models.catalog import Engine

weights = typer.Typer(no_args_is_help=True, help="The engines' weights on this machine; engines of your own.")

EngineName = Annotated[str, typer.Argument(metavar="NAME", help="The engine's id.")]


def _multiplier(value: str) -> float:
    try:
        return parse_multiplier(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


@weights.command("list")
def list_weights(as_json: AsJson = False, data_dir: DataDirectory = None) -> None:
    """List the engines, and whether their weights are here."""
    directory = load_settings(data_dir).weights_dir
    sizes: list[tuple[Engine, int | None]] = []
    for engine in (*ENGINES.values(), *added_engines(directory).values()):
        path = directory / f"{engine.id}.safetensors"
        sizes.append((engine, path.stat().st_size if path.exists() else None))
    if as_json:
        print_json(
            {
                "weights": [
                    {
                        "engine": engine.id,
                        "network": engine.name,
                        "costMultiplier": engine.cost_multiplier,
                        "licence": engine.licence,
                        "sizeBytes": size,
                    }
                    for engine, size in sizes
                ]
            }
        )
        return
    rows = [
        (
            engine.id,
            engine.name,
            f"x{engine.cost_multiplier}",
            engine.licence,
            "made on first use" if size is None else f"{size / 1e6:.1f} MB",
        )
        for engine, size in sizes
    ]
    print_rows(("engine", "network", "cost", "licence", "weights"), rows)


@weights.command("add")
def add(
    name: EngineName,
    source: Annotated[
        str, typer.Argument(metavar="FILE_OR_URL", help="A .pth or .safetensors file of a 4x network.")
    ],
    multiplier: Annotated[
        float,
        typer.Option(parser=_multiplier, metavar="NUMBER", help="The cost of a gigapixel of the output."),
    ],
    sha256: Annotated[
        str | None, typer.Option(metavar="HEX", help="The file's digest; needed for a URL.")
    ] = None,
    description: Annotated[str, typer.Option(help="A sentence for users.")] = "",
    licence: Annotated[
        str | None, typer.Option("--license", help="The weights' licence; by default what the file says.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an engine that was added.")] = False,
    data_dir: DataDirectory = None,
) -> None:
    """Add a network as an engine of this machine's workers. Code in the file is never run.

    Measures the network first, which takes up to some minutes for large ones.
    """
    directory = load_settings(data_dir).weights_dir
    require_worker_packages()
    from worker.added_weights import add_engine

    try:
        engine = add_engine(
            name,
            source,
            directory=directory,
            sha256=sha256,
            cost_multiplier=multiplier,
            description=description,
            licence=licence,
            replaces=replace,
        )
    except WeightsError as error:
        raise ConfigurationError(str(error)) from error
    _show(engine)


@weights.command("convert")
def convert(
    engine: Annotated[str | None, typer.Option(metavar="NAME", help="This engine alone.")] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="FILE_OR_URL",
            help="A fine-tuned .pth or .safetensors file in place of the official weights.",
        ),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(metavar="HEX", help="The digest of SOURCE, unless it is the official file.")
    ] = None,
    data_dir: DataDirectory = None,
) -> None:
    """Make the weights of the built-in engines, or of one, and verify them."""
    directory = load_settings(data_dir).weights_dir
    require_worker_packages()
    from models.weights import ensure_weights

    if engine is None and source is not None:
        raise typer.BadParameter("it needs --engine.", param_hint="--source")
    if engine is not None and engine not in ENGINES:
        raise typer.BadParameter(f"there are {', '.join(ENGINES)}.", param_hint="--engine")
    try:
        for engine_id in ENGINES if engine is None else [engine]:
            path = ensure_weights(engine_id, directory, source=source, sha256=sha256)
            typer.echo(f"{engine_id}: {path}")
    except (WeightsError, ValueError) as error:
        raise ConfigurationError(str(error)) from error


@weights.command("verify")
def verify(data_dir: DataDirectory = None) -> None:
    """Verify every weights file that is here, and end with an error if one is damaged."""
    directory = load_settings(data_dir).weights_dir
    require_worker_packages()
    from models.weights import load_state_dict

    faults = []
    for path in sorted(directory.glob("*.safetensors")):
        try:
            load_state_dict(path, find_engine(path.stem, directory))
            typer.echo(f"{path.stem}: verified")
        except UnknownEngine:
            faults.append(f"{path} belongs to no engine.")
        except WeightsError as error:
            faults.append(str(error))
    if faults:
        raise ConfigurationError(" ".join(faults))


@weights.command("remove")
def remove(name: EngineName, data_dir: DataDirectory = None) -> None:
    """Remove the weights of an engine. Those of a built-in engine are made again on their next use."""
    directory: Path = load_settings(data_dir).weights_dir
    path = directory / f"{name}.safetensors"
    try:
        is_known = name in ENGINES or added_engine(name, directory) is not None
    except WeightsError:
        is_known = True
    if not is_known or not path.exists():
        raise ConfigurationError(f"There are no weights of {name} in {directory}.")
    try:
        path.unlink()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be removed: {error.strerror}.") from error
    typer.echo(f"{path}: removed")


def _show(engine: Engine) -> None:
    measured = measured_properties(engine)
    print_rows(
        ("engine", "network", "cost", "licence", "precisions", "tile overlap", "work"),
        [
            (
                engine.id,
                engine.name,
                f"x{engine.cost_multiplier}",
                engine.licence,
                ", ".join(measured["exact_precisions"]),
                f"{measured['tile_overlap']} pixels",
                f"{measured['mflop_per_input_pixel']:.1f} MFLOP a pixel",
            )
        ],
    )
    if engine.licence == "unknown":
        typer.echo(
            "The file states no licence: find out whether you may use it, and give --license.", err=True
        )
