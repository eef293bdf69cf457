"""`regen users` and `regen keys`."""

from datetime import datetime, timedelta
from typing import Annotated

import typer
from rich.markup import escape

from app.cli.database import open_database, open_or_make_database
from app.cli.reporting import AsJson, DataDirectory, load_settings, print_body, print_rows, stderr

LONGEST_NAME = 200  # the column's length
SCOPES = ("read", "write", "admin")
DURATION_UNITS = {"d": "days", "h": "hours", "m": "minutes"}
MOST_UNITS = 100_000

users = typer.Typer(no_args_is_help=True, help="The users.")
keys = typer.Typer(no_args_is_help=True, help="The users' API keys.")


def _name(value: str) -> str:
    value = value.strip()
    if not value or len(value) > LONGEST_NAME or not value.isprintable():
        raise typer.BadParameter(f"a name has 1 to {LONGEST_NAME} printable characters.")
    return value


def _scope(value: str) -> str:
    if value not in SCOPES:
        raise typer.BadParameter(f"it is one of {', '.join(SCOPES)}.")
    return value


def _duration(value: str) -> timedelta:
    number, unit = value[:-1], DURATION_UNITS.get(value[-1:])
    if unit is None or not (number.isascii() and number.isdigit()) or not 0 < int(number) <= MOST_UNITS:
        raise typer.BadParameter("it is a whole number of days, hours or minutes, such as 30d.")
    return timedelta(**{unit: int(number)})


def _moment(moment: datetime | None, *, otherwise: str = "never") -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else otherwise


@users.command("add")
def add_user(
    name: Annotated[str, typer.Argument(parser=_name, metavar="NAME")], data_dir: DataDirectory = None
) -> None:
    """Add a user. Make a key for the user with `regen keys create --user NAME`."""
    settings = load_settings(data_dir)
    from app.accounts import service as account_service

    with open_or_make_database(settings, data_dir) as database, database.write() as session:
        user_id = account_service.create_user(session, name=name).id
    typer.echo(user_id)
    stderr().print(
        f"Added the user {escape(repr(name))}. A key comes from: regen keys create --user {escape(name)}"
    )


@users.command("list")
def list_users(as_json: AsJson = False, data_dir: DataDirectory = None) -> None:
    """List users, the newest first."""
    settings = load_settings(data_dir)
    from app.accounts import service as account_service

    with open_database(settings, read_only=True) as database, database.read() as session:
        found = account_service.users_with_keys(session)
    if as_json:
        from app.accounts.schemas import User, UsersBody

        print_body(UsersBody(users=[User.model_validate(user) for user, _ in found]))
        return
    listed = [(user.id, user.name, _moment(user.created_at), str(usable)) for user, usable in found]
    print_rows(("id", "name", "made", "usable keys"), listed)


@users.command("delete")
def delete_user(
    name: Annotated[str, typer.Argument(parser=_name, metavar="NAME")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data_dir: DataDirectory = None,
) -> None:
    """Delete a user with all keys, files, renders, webhooks and usage. Renders under way end."""
    settings = load_settings(data_dir)
    from app.accounts import service as account_service
    from app.administration.service import delete_user as delete
    from app.platform.storage import open_storage

    with open_database(settings) as database:
        with database.read() as session:
            user_id = account_service.get_user_by_name(session, name=name).id
        if not yes:
            typer.confirm(f"Delete the user {name!r} with everything that is stored for it?", abort=True)
        delete(database, open_storage(settings), user_id=user_id)
    typer.echo(f"Deleted the user {name!r} and all that was stored for it.")


@keys.command("create")
def create_key(
    user: Annotated[str, typer.Option(help="Whose key it is.")] = "default",
    name: Annotated[
        str, typer.Option(parser=_name, metavar="TEXT", help="The key's name in the list.")
    ] = "key",
    scope: Annotated[
        list[str] | None,
        typer.Option(
            parser=_scope,
            metavar="[read|write|admin]",
            help="What the key may do; may be given several times. Default: read and write.",
            show_default=False,
        ),
    ] = None,
    admin: Annotated[
        bool,
        typer.Option("--admin", help="Like --scope admin: the key may administer the server and all users."),
    ] = False,
    expires_in: Annotated[
        timedelta | None,
        typer.Option(
            parser=_duration, metavar="TIME", help="Refuse the key after 30d, 12h or 45m.", show_default=False
        ),
    ] = None,
    data_dir: DataDirectory = None,
) -> None:
    """Make a key and print it, only this once."""
    settings = load_settings(data_dir)
    from app.accounts import service as account_service
    from app.accounts.scopes import DEFAULT_SCOPES, Scope
    from app.platform import clock
    from app.platform.secrets import Secrets

    scopes = frozenset(map(Scope, scope)) if scope else DEFAULT_SCOPES
    with open_database(settings) as database, database.write() as session:
        made = account_service.create_key(
            session,
            user_name=user,
            key_name=name,
            keys=Secrets.load(settings),
            scopes=scopes | {Scope.ADMIN} if admin else scopes,
            expires_at=None if expires_in is None else clock.now() + expires_in,
        )
        # Before the commit: a key that could not be printed does not exist.
        typer.echo(made.key)
    stderr().print("Save it now: the server stores only its hash.")


@keys.command("list")
def list_keys(
    user: Annotated[str | None, typer.Option(help="This user's keys alone.", show_default=False)] = None,
    as_json: AsJson = False,
    data_dir: DataDirectory = None,
) -> None:
    """List keys, with those revoked within 30 days: the first characters, never the whole key."""
    from app.accounts import queries as account_queries

    settings = load_settings(data_dir)
    with open_database(settings, read_only=True) as database, database.read() as session:
        found = account_queries.list_keys(session, user_name=user)
    if as_json:
        from app.accounts.schemas import Key, KeysBody

        print_body(KeysBody(keys=[Key.model_validate(key) for key, _ in found]))
        return
    rows = [
        (
            key.id,
            owner.name,
            key.name,
            f"{key.hint}...",
            ", ".join(key.scopes),
            _moment(key.created_at),
            _moment(key.last_used_at),
            _moment(key.expires_at),
            _moment(key.revoked_at, otherwise="no"),
        )
        for key, owner in found
    ]
    print_rows(("id", "user", "name", "key", "scopes", "made", "last used", "expires", "revoked"), rows)


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="Its id in `regen keys list`.", metavar="ID")],
    data_dir: DataDirectory = None,
) -> None:
    """Revoke a key from now on."""
    settings = load_settings(data_dir)
    from app.accounts import service as account_service

    with open_database(settings) as database, database.write() as session:
        key = account_service.revoke_key(session, key_id=key_id)
        name = key.name
    typer.echo(f"The key {name!r} is refused from now on.")
