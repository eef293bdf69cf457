"""Shared by all commands: settings, consoles, and errors as sentences."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from app.platform.errors import ConfigurationError, RegenError, RequestError

if TYPE_CHECKING:
    from app.http.body import Body
    from app.platform.settings import Settings

EXIT_FAILURE = 1
EXIT_INTERRUPTED = 130
UNFOLDED_WIDTH = 240
# The packages that worker/ imports; the extra installs them together.
WORKER_PACKAGES = ("torch", "numpy", "cv2", "safetensors")

DataDirectory = Annotated[
    Path | None,
    typer.Option("--data-dir", help="The data directory, instead of REGEN_DATA_DIR.", show_default=False),
]


AsJson = Annotated[bool, typer.Option("--json", help="As JSON, as the API spells it.")]
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
ParentPid = Annotated[
    int | None, typer.Option(hidden=True, help="End when this process, our parent, has ended.")
]


class ReportingGroup(TyperGroup):
    """Prints the server's errors as a sentence on stderr, with exit status 1, unless a traceback was requested."""

    def make_context(self, *args: Any, **settings: Any) -> Any:
        try:
            return super().make_context(*args, **settings)
        except BrokenPipeError:
            raise
        except OSError as error:  # --help and --version, where nothing can be written
            print_error(error)
            raise typer.Exit(EXIT_FAILURE) from error

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (RegenError, OSError) as error:
            if ctx.params.get("debug") or os.environ.get("REGEN_LOG_LEVEL", "").lower() == "debug":
                raise
            if isinstance(error, BrokenPipeError):  # the reader of stdout has closed it
                raise
            print_error(error)
            raise typer.Exit(EXIT_FAILURE) from error


def print_error(error: BaseException) -> None:
    """Print one red sentence per fault on stderr."""
    messages = error.messages if isinstance(error, RequestError) else (sentence_of(error),)
    for message in messages:
        stderr().print(f"[red]{escape(message)}[/red]", soft_wrap=True, highlight=False)


def sentence_of(error: BaseException) -> str:
    """What the error says to a user; of the operating system's, the file and why."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
    return str(error)


def stdout() -> Console:
    """A new console on the current stdout. It is wide unless stdout is a terminal, so that no line is wrapped."""
    return Console() if Console().is_terminal else Console(width=UNFOLDED_WIDTH)


def stderr() -> Console:
    return Console(stderr=True)


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; in a terminal that is too narrow for it, each row as lines, so that nothing is cut off."""
    console, table = stdout(), Table(*columns)
    kept = [[escape(value) for value in row] for row in rows]
    for row in kept:
        table.add_row(*row)
    unbounded = console.options.update(max_width=sys.maxsize)
    if console.measure(table, options=unbounded).maximum <= console.width:
        console.print(table)
        return
    for row in kept:
        record = Table.grid("name", "value", padding=(0, 2))
        record.columns[1].overflow = "fold"
        for name, value in zip(columns, row, strict=True):
            record.add_row(name, value)
        console.print(record)
        console.print()


def print_json(content: Any, *, indent: int | None = 2) -> None:
    typer.echo(json.dumps(content, indent=indent, ensure_ascii=False))


def print_body(body: Body) -> None:
    """Print as JSON what the API would answer: camelCase, and without what is None."""
    print_json(body.model_dump(mode="json", by_alias=True, exclude_none=True))


def load_settings(data_dir: Path | None, **given: Any) -> Settings:
    """The settings of the environment, overridden by `data_dir` and `given`. Raises ConfigurationError."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from app.platform.settings import Settings

    try:
        return Settings(**given) if data_dir is None else Settings(data_dir=data_dir, **given)
    except ValidationError as error:
        from app.platform.setting_faults import sentences

        raise ConfigurationError(" ".join(sentences(error))) from error
    except SettingsError as error:
        raise ConfigurationError(f"The settings cannot be read: {error}.") from error


def start_logging(settings: Settings) -> None:
    """Configure logging, and warn of `REGEN_` names that no setting has."""
    import structlog

    from app.platform.logs import configure_logging
    from app.platform.setting_faults import unknown_settings

    configure_logging(settings)
    log = structlog.get_logger(__name__)
    if settings.quality is not None:
        log.warning("setting_renamed", name="REGEN_QUALITY", now="REGEN_OUTPUT_QUALITY")
    for name, nearest in unknown_settings():
        log.warning("setting_unknown", name=name, nearest=nearest)


def missing_worker_packages() -> list[str]:
    return [name for name in WORKER_PACKAGES if importlib.util.find_spec(name) is None]


def require_worker_packages() -> None:
    """Raises ConfigurationError when the worker's packages are not installed."""
    if missing := missing_worker_packages():
        raise ConfigurationError(
            f"The worker's packages are not installed here ({' and '.join(missing)} missing). "
            "Install the worker: pip install 'regen-server[worker]'"
        )
