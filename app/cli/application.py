"""The command line: all groups of commands, each of which is imported when it is asked for."""

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Annotated, Any

import typer
from typer.main import get_command, get_group

from app.cli.reporting import ReportingGroup, stdout

ON_SERVERS = "On any server"


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a command's function, or a group's `Typer`, is: `module:name`. The others are as for `Typer.command`."""

    where: str
    panel: str | None = None
    hidden: bool = False
    # As `where`, of the command's class.
    kind: str | None = None


def _on_servers(where: str, kind: str | None = None) -> _Place:
    return _Place(where=f"app.cli.remote.{where}", panel=ON_SERVERS, kind=kind)


def _here(where: str, *, hidden: bool = False) -> _Place:
    return _Place(where=f"app.cli.{where}", hidden=hidden)


# In the order of `regen --help`.
_PLACES = {
    "serve": _here("serving:serve"),
    "mock": _here("mock:mock"),
    "worker": _here("serving:worker"),
    "api-process": _here("serving:api_process", hidden=True),
    "upscale": _here("upscale:upscale"),
    "login": _on_servers("login:login"),
    "submit": _on_servers("submit:submit", kind="app.cli.remote.render_flags:RenderCommand"),
    "status": _on_servers("renders:status"),
    "list": _on_servers("renders:list_renders"),
    "watch": _on_servers("renders:watch"),
    "stream": _on_servers("renders:stream"),
    "cancel": _on_servers("renders:cancel"),
    "retry": _on_servers("renders:retry"),
    "deliver": _on_servers("renders:deliver"),
    "download": _on_servers("download:download"),
    "estimate": _on_servers("trials:estimate", kind="app.cli.remote.render_flags:RenderCommand"),
    "preview": _on_servers("trials:preview", kind="app.cli.remote.render_flags:PreviewCommand"),
    "verify-api": _on_servers("verify_api:verify_api"),
    "open": _on_servers("login:open_console"),
    "backup": _here("backup:backup"),
    "restore": _here("backup:restore"),
    "cleanup": _here("cleanup:cleanup"),
    "engines": _here("engines:engines"),
    "doctor": _here("doctor:doctor"),
    "healthcheck": _here("healthcheck:healthcheck"),
    "users": _here("accounts:users"),
    "keys": _here("accounts:keys"),
    "db": _here("database:db"),
    "storage": _here("storage:storage"),
    "workers": _here("workers:workers"),
    "weights": _here("weights:weights"),
}


class _CommandsOnDemand(MutableMapping[str, Any]):
    """Commands by name, made when they are looked up: to make them all takes longer than most commands."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = _make(name, _PLACES[name])
        return self._made[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        del self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES | self._made)

    def __len__(self) -> int:
        return len(_PLACES | self._made)


def _make(name: str, place: _Place) -> Any:
    found = resolve_name(place.where)
    if isinstance(found, typer.Typer):
        group: Any = get_group(found)
        group.name = name
        return group
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    kind = {} if place.kind is None else {"cls": resolve_name(place.kind)}
    alone.command(name, rich_help_panel=place.panel, hidden=place.hidden, **kind)(found)
    return get_command(alone)


class _Root(ReportingGroup):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.commands = _CommandsOnDemand()


application = typer.Typer(
    cls=_Root,
    no_args_is_help=True,
    add_completion=True,
    # Typer's tracebacks show the values of variables, including keys.
    pretty_exceptions_enable=False,
    help="A self-hosted server that speaks the Regen video upscale API.",
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        from app.platform.metrics import server_version

        stdout().print(f"regen {server_version()}", highlight=False)
        raise typer.Exit


@application.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    # `debug` is read by ReportingGroup, `version` by its callback.
    del debug, version
