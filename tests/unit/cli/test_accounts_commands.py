from datetime import timedelta

import pytest
from sqlalchemy import select

from app.accounts import service as account_service
from app.accounts.tables import ApiKey
from app.platform.database import Database
from app.platform.errors import Unauthorized
from app.platform.secrets import Secrets
from app.platform.settings import Settings


def user_of(key):
    settings = Settings()
    database = Database(settings.resolved_database_url)
    try:
        with database.read() as session:
            return account_service.authenticate(session, key=key, keys=Secrets.load(settings)).user_name
    finally:
        database.close()


def test_a_new_users_key_opens_the_api_until_it_is_revoked(regen):
    assert regen("users", "add", "mina").exit_code == 0
    made = regen("keys", "create", "--user", "mina", "--name", "laptop")
    assert made.exit_code == 0
    key = made.stdout.strip()
    assert user_of(key) == "mina"

    listed = regen("keys", "list").stdout
    assert "mina" in listed and "laptop" in listed
    assert key not in listed

    key_id = next(line.split("│")[1].strip() for line in listed.splitlines() if "laptop" in line)
    revoked = regen("keys", "revoke", key_id)
    assert revoked.exit_code == 0 and "laptop" in revoked.stdout
    with pytest.raises(Unauthorized):
        user_of(key)


def test_a_key_is_stored_as_a_hash_alone(regen):
    regen("users", "add", "mina")
    key = regen("keys", "create", "--user", "mina").stdout.strip()
    database = Database(Settings().resolved_database_url)
    with database.read() as session:
        row = session.scalars(select(ApiKey)).one()
        assert key not in {row.digest, row.hint}
    database.close()


def test_keys_of_one_user_can_be_listed_alone(regen):
    for name in ("mina", "noor"):
        regen("users", "add", name)
        regen("keys", "create", "--user", name, "--name", f"of {name}")
    listed = regen("keys", "list", "--user", "noor").stdout
    assert "of noor" in listed
    assert "of mina" not in listed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("keys", "create", "--user", "nobody"), "There is no user named 'nobody'."),
        (("keys", "revoke", "unknown"), "There is no key with the id 'unknown'."),
    ],
)
def test_what_does_not_exist_is_told_in_a_sentence(regen, database, arguments, sentence):
    answer = regen(*arguments)
    assert answer.exit_code == 1
    assert answer.stderr.strip() == sentence
    assert answer.stdout == ""


def test_a_second_user_of_a_name_is_refused(regen):
    regen("users", "add", "mina")
    answer = regen("users", "add", "mina")
    assert answer.exit_code == 1
    assert "already a user named 'mina'" in answer.stderr


@pytest.mark.parametrize("name", ["", "   ", "a" * 201, "line\nbreak"])
def test_a_name_that_cannot_be_one_is_a_usage_error(regen, name):
    answer = regen("users", "add", name)
    assert answer.exit_code == 2
    assert "printable characters" in " ".join(answer.stderr.split())


def test_a_foreign_database_is_not_migrated_unasked(regen, monkeypatch, tmp_path):
    monkeypatch.setenv("REGEN_DATABASE_URL", f"sqlite:///{tmp_path / 'elsewhere.db'}")
    answer = regen("users", "add", "mina")
    assert answer.exit_code == 1
    assert "regen db upgrade" in answer.stderr
    assert regen("db", "upgrade").exit_code == 0
    assert regen("users", "add", "mina").exit_code == 0


def test_the_data_directory_of_the_command_line_goes_before_the_environments(regen, tmp_path):
    assert regen("db", "upgrade", "--data-dir", tmp_path / "other").exit_code == 0
    assert (tmp_path / "other" / "regen.db").is_file()
    assert not (tmp_path / "data").exists()


def test_what_a_key_may_do_and_until_when(regen):
    regen("users", "add", "mina")
    for number, options in enumerate(
        (
            (),
            ("--scope", "read", "--expires-in", "30d"),
            ("--admin",),
            ("--scope", "admin", "--scope", "read"),
        )
    ):
        made = regen("keys", "create", "--user", "mina", "--name", str(number), *options)
        assert made.exit_code == 0, made.output
    database = Database(Settings().resolved_database_url)
    with database.read() as session:
        rows = session.scalars(select(ApiKey).order_by(ApiKey.name)).all()
    database.close()
    assert [row.scopes for row in rows] == [
        ["read", "write"],
        ["read"],
        ["read", "write", "admin"],
        ["read", "admin"],
    ]
    expiry = rows[1].expires_at
    assert expiry is not None and abs(expiry - rows[1].created_at - timedelta(days=30)) < timedelta(minutes=1)
    assert [row.expires_at for row in rows[2:]] == [None, None]
    listed = regen("keys", "list").stdout
    assert f"{expiry:%Y-%m-%d}" in listed.replace(" ", "")


@pytest.mark.parametrize(
    "options", [("--scope", "all"), ("--expires-in", "soon"), ("--expires-in", "0d"), ("--expires-in", "")]
)
def test_keys_that_cannot_be(regen, options):
    regen("users", "add", "mina")
    assert regen("keys", "create", "--user", "mina", *options).exit_code == 2
    assert "mina" not in regen("keys", "list").stdout


def test_a_key_that_could_not_be_printed_is_not_made(regen, monkeypatch):
    regen("users", "add", "mina")

    def fail(_text):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("typer.echo", fail)
        answer = regen("keys", "create", "--user", "mina")
    assert answer.exit_code == 1 and "No space left" in answer.stderr
    assert "mina" not in regen("keys", "list").stdout


def test_users_are_listed_and_deleted(regen):
    for name in ("mina", "noor"):
        regen("users", "add", name)
    regen("keys", "create", "--user", "mina")
    rows = [line.split("│") for line in regen("users", "list").stdout.splitlines() if "│" in line]
    assert {row[2].strip(): row[4].strip() for row in rows} == {"mina": "1", "noor": "0"}

    kept = regen("users", "delete", "mina")  # nobody answers
    assert kept.exit_code == 1 and "mina" in regen("users", "list").stdout
    assert regen("users", "delete", "mina", "--yes").exit_code == 0
    assert "mina" not in regen("users", "list").stdout
    again = regen("users", "delete", "mina", "--yes")
    assert again.exit_code != 0 and "no user named" in again.stderr
