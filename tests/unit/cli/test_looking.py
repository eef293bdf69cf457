"""Commands that only look change nothing, whatever they find."""

import json
import sqlite3
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from app import migrations
from app.platform.database import Database
from app.platform.settings import Settings

LOOKING = [
    ("workers",),
    ("workers", "--json"),
    ("keys", "list"),
    ("keys", "list", "--json"),
    ("users", "list", "--json"),
    ("cleanup", "--dry-run"),
    ("cleanup", "--dry-run", "--json"),
    ("db", "status"),
]
ON_WHAT_IS_THERE = [
    *LOOKING,
    ("keys", "create"),
    ("keys", "revoke", "x"),
    ("cleanup",),
    ("worker",),
    ("storage", "check"),
]


def contents(directory):
    """Every file below with its bytes."""
    return {path: path.read_bytes() if path.is_file() else None for path in directory.rglob("*")}


@pytest.mark.parametrize("arguments", [*ON_WHAT_IS_THERE, ("users", "add", "mina")])
def test_a_mistyped_data_directory_is_told_and_not_made(regen, tmp_path, arguments):
    answer = regen(*arguments, "--data-dir", tmp_path / "dtaa")
    assert answer.exit_code not in (0, 2)
    assert "--data-dir" in answer.output and "dtaa" in answer.output
    assert "Traceback" not in answer.output
    assert list(tmp_path.iterdir()) == []


def test_an_older_database_is_told_and_left_alone(regen, database, tmp_path):
    older = Database(Settings().resolved_database_url)
    migrations.downgrade(older, "-1")
    older.close()
    before = contents(tmp_path)
    for arguments in (*LOOKING, ("users", "add", "mina"), ("keys", "create"), ("cleanup",)):
        answer = regen(*arguments)
        assert answer.exit_code == 1, arguments
        assert "lacks later ones" in answer.output and "regen db upgrade" in answer.output
        assert contents(tmp_path) == before, arguments


def test_a_database_at_rest_stays_as_it_is(regen, database, tmp_path):
    before = contents(tmp_path)
    for arguments in LOOKING:
        assert regen(*arguments).exit_code == 0, arguments
        assert contents(tmp_path) == before, arguments


def test_what_a_running_server_has_not_put_into_its_file_yet_is_seen(regen, database, tmp_path):
    with sqlite3.connect(tmp_path / "data" / "regen.db") as server:
        server.execute("PRAGMA journal_mode = WAL")
        server.execute("INSERT INTO users (id, name, created_at) VALUES ('u', 'mina', '2026-01-01')")
        server.execute(
            "INSERT INTO api_keys (id, user_id, name, hint, digest, created_at, scopes)"
            " VALUES ('k', 'u', 'laptop', 'regen_', 'd', '2026-01-01', '[]')"
        )
        server.commit()
        assert "laptop" in regen("keys", "list").stdout
    server.close()


@pytest.mark.parametrize("arguments", [*LOOKING, ("users", "add", "mina"), ("db", "upgrade")])
def test_a_file_that_is_no_database_is_told(regen, tmp_path, arguments):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "regen.db").write_text("what anybody may have put here\n" * 100)
    answer = regen(*arguments)
    assert answer.exit_code == 1
    assert "is not an SQLite database" in answer.stderr and "Traceback" not in answer.output
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["regen.db"]


@pytest.mark.parametrize(
    ("command", "path"),
    [
        (("workers",), "/v1/workers"),
        (("users", "list"), "/v1/admin/users"),
        (("keys", "list"), "/v1/admin/users/{user_id}/keys"),
        (("engines",), "/v1/engines"),
    ],
)
def test_json_is_what_the_apis_description_says(regen, database, command, path):
    regen("users", "add", "mina")
    regen("keys", "create", "--user", "mina", "--expires-in", "30d")
    shown = json.loads(regen(*command, "--json").stdout)
    document = json.loads((Path(__file__).parents[3] / "docs" / "openapi.json").read_text())
    schema = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    Draft202012Validator({**schema, "components": document["components"]}).validate(shown)
    (listed,) = shown.values()
    assert bool(listed) == (command != ("workers",))
    assert all(not set(one) - set(_properties(document, schema)) for one in listed)


def _properties(document, schema):
    """The names that a listed object may have."""
    body = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    (items,) = [found["items"] for found in body["properties"].values() if "items" in found]
    return document["components"]["schemas"][items["$ref"].rpartition("/")[2]]["properties"]


def test_json_of_what_the_api_has_no_answer_for(regen, database):
    weights = json.loads(regen("weights", "list", "--json").stdout)["weights"]
    assert {"regen-4x", "regen-4x-lite"} <= {one["engine"] for one in weights}
    removed = json.loads(regen("cleanup", "--dry-run", "--json").stdout)
    assert removed["dryRun"] is True and removed["orphans"] == 0 and removed["rendersCleaned"] == 0
