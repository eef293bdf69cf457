"""The command line: all groups of commands."""

from typing import Annotated

import typer

from app.cli import (
    accounts,
    backup,
    cleanup,
    database,
    doctor,
    engines,
    healthcheck,
    mock,
    serving,
    storage,
    upscale,
    weights,
    workers,
)
from app.cli.remote import download, login, renders, submit, trials, verify_api
from app.cli.remote.render_flags import PreviewCommand, RenderCommand
from app.cli.reporting import ReportingGroup, stdout

application = typer.Typer(
    cls=ReportingGroup,
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


application.command("serve")(serving.serve)
application.command("mock")(mock.mock)
application.command("worker")(serving.worker)
application.command("api-process", hidden=True)(serving.api_process)
application.command("upscale")(upscale.upscale)
ON_SERVERS = "On any server"
application.command("login", rich_help_panel=ON_SERVERS)(login.login)
application.command("submit", cls=RenderCommand, rich_help_panel=ON_SERVERS)(submit.submit)
application.command("status", rich_help_panel=ON_SERVERS)(renders.status)
application.command("list", rich_help_panel=ON_SERVERS)(renders.list_renders)
application.command("watch", rich_help_panel=ON_SERVERS)(renders.watch)
application.command("stream", rich_help_panel=ON_SERVERS)(renders.stream)
application.command("cancel", rich_help_panel=ON_SERVERS)(renders.cancel)
application.command("retry", rich_help_panel=ON_SERVERS)(renders.retry)
application.command("download", rich_help_panel=ON_SERVERS)(download.download)
application.command("estimate", cls=RenderCommand, rich_help_panel=ON_SERVERS)(trials.estimate)
application.command("preview", cls=PreviewCommand, rich_help_panel=ON_SERVERS)(trials.preview)
application.command("verify-api", rich_help_panel=ON_SERVERS)(verify_api.verify_api)
application.command("open", rich_help_panel=ON_SERVERS)(login.open_console)
application.command("backup")(backup.backup)
application.command("restore")(backup.restore)
application.add_typer(accounts.users, name="users")
application.add_typer(accounts.keys, name="keys")
application.add_typer(database.db, name="db")
application.add_typer(storage.storage, name="storage")
application.command("cleanup")(cleanup.cleanup)
application.add_typer(workers.workers, name="workers")
application.command("engines")(engines.engines)
application.add_typer(weights.weights, name="weights")
application.command("doctor")(doctor.doctor)
application.command("healthcheck")(healthcheck.healthcheck)
