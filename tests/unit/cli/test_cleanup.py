import os
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from app.accounts.tables import ApiKey
from app.cleanup import orphans
from app.platform.database import Database
from app.platform.secrets import Secrets, new_id
from app.platform.settings import Settings
from app.platform.storage import open_storage
from app.platform.storage.keys import input_key


@pytest.fixture
def orphan(regen, tmp_path):
    """Stored two days ago, and no row knows it. Its place on the disk."""
    regen("users", "add", "mina")
    settings = Settings()
    storage = open_storage(settings, Secrets.load(settings))
    key = input_key(new_id())
    (tmp_path / "made").write_bytes(b"x")
    storage.put_file(key, tmp_path / "made", content_type="video/mp4")
    path = settings.storage_dir / key
    before = (datetime.now(UTC) - timedelta(days=2)).timestamp()
    os.utime(path, (before, before))
    return path


def test_cleanup_says_what_it_would_do_and_then_does_it(regen, orphan):
    would = regen("cleanup", "--dry-run")
    assert would.exit_code == 0 and "Nothing was changed" in would.stdout
    assert "1 " in next(line for line in would.stdout.splitlines() if "orphans" in line)
    assert orphan.exists()
    assert regen("cleanup").exit_code == 0
    assert not orphan.exists()


def test_cleanup_does_not_empty_the_storage_of_another_database(regen, orphan, monkeypatch):
    monkeypatch.setattr(orphans, "FEW", 0)
    refused = regen("cleanup")
    assert refused.exit_code == 0 and "--anyway" in refused.output
    assert orphan.exists()
    assert regen("cleanup", "--anyway").exit_code == 0
    assert not orphan.exists()


@pytest.mark.parametrize("flags", [(), ("--admin",)])
def test_a_key_is_an_administrators_only_when_asked_for(regen, flags):
    regen("users", "add", "mina")
    assert regen("keys", "create", "--user", "mina", *flags).exit_code == 0
    database = Database(Settings().resolved_database_url)
    with database.read() as session:
        assert ["admin" in scopes for scopes in session.scalars(select(ApiKey.scopes))] == [bool(flags)]
    database.close()
