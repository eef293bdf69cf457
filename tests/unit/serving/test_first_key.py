"""The first key: made once requests are answered, and only if it could be shown."""

import json

import pytest
from sqlalchemy import select, update

from app import migrations
from app.accounts.tables import ApiKey, User
from app.platform.database import Database
from app.platform.secrets import Secrets
from app.platform.settings import Settings
from app.serving import ready_file
from app.serving.ready_file import ReadyAnnouncement
from app.serving.server import first_key
from app.serving.signals import StopSignals


@pytest.fixture
def settings(tmp_path):
    return Settings(data_dir=tmp_path / "data")


@pytest.fixture
def database(settings):
    database = Database.from_settings(settings)
    migrations.upgrade(database)
    yield database
    database.close()


@pytest.mark.parametrize("unusable", ["expires_at", "revoked_at"])
def test_a_key_that_could_not_be_shown_is_not_made(database, settings, unusable):
    keys, shown, told = Secrets.load(settings), [], []

    def fail(key):
        raise BrokenPipeError

    def make(show):
        return first_key(database, keys, on_first_key=show, on_no_key=lambda: told.append(True))

    with pytest.raises(BrokenPipeError):
        make(fail)
    with database.read() as session:
        assert session.scalars(select(User)).all() == []
    key = make(shown.append)
    assert shown == [key] and key.startswith("regen_")
    assert make(fail) is None and told == []
    with database.write() as session:
        session.execute(update(ApiKey).values({unusable: ApiKey.created_at}))
    assert make(fail) is None and told == [True]


class Api:
    started = True


@pytest.mark.parametrize("answers", [True, False])
def test_the_key_is_made_once_requests_are_answered(monkeypatch, tmp_path, answers):
    monkeypatch.setattr(ready_file, "_is_healthy", lambda url: answers)
    signals, made = StopSignals(), []
    ready = ReadyAnnouncement(
        url="http://127.0.0.1:1", make_key=lambda: made.append(True) or "key", ready_file=tmp_path / "ready", api=Api(),
        on_ready=lambda url: None, signals=signals,
    )  # fmt: skip
    if not answers:
        signals.request()
    ready.start()
    ready.join(10)
    assert made == ([True] if answers else [])
    assert not answers or json.loads((tmp_path / "ready").read_text())["key"] == "key"


def test_a_ready_file_that_cannot_be_written_ends_the_server(monkeypatch, tmp_path):
    monkeypatch.setattr(ready_file, "_is_healthy", lambda url: True)
    signals = StopSignals()
    ready = ReadyAnnouncement(
        url="http://127.0.0.1:1", make_key=lambda: None, ready_file=tmp_path / "no" / "ready", api=Api(),
        on_ready=lambda url: None, signals=signals,
    )  # fmt: skip
    ready.start()
    ready.join(10)
    assert signals.requested and isinstance(ready.failure, FileNotFoundError)
