"""Keys, ids and the secret behind them."""

import stat
import threading
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from app.platform.errors import ConfigurationError
from app.platform.secrets import Secrets, api_key_digest, new_api_key, new_id
from app.platform.settings import Settings

SECRET = "a secret of these tests, which is none"


def test_the_secret_is_made_once_and_private(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    assert Secrets.load(settings) == Secrets.load(settings)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert Secrets.load(settings) != Secrets.load(Settings(data_dir=tmp_path / "other"))


def test_processes_that_start_at_once_agree_on_the_secret(tmp_path: Path) -> None:
    found: list[Secrets] = []
    threads = [
        threading.Thread(target=lambda: found.append(Secrets.load(Settings(data_dir=tmp_path))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(keys == found[0] for keys in found)
    assert len(found) == 8


def test_a_database_that_others_use_too_needs_a_secret_that_they_know(tmp_path: Path) -> None:
    url = "postgresql://regen@database/regen"
    with pytest.raises(
        ConfigurationError, match=r"REGEN_SECRET_KEY must be set .* Make one with: python3 -c"
    ):
        Secrets.load(Settings(data_dir=tmp_path, database_url=url))
    assert not (tmp_path / "secret").exists()
    Secrets.load(Settings(data_dir=tmp_path, database_url=url, secret_key=SecretStr(SECRET)))
    Secrets.load(Settings(data_dir=tmp_path, database_url=f"sqlite:///{tmp_path}/own.db"))


def test_purposes_have_keys_of_their_own_and_none_is_shown() -> None:
    keys = Secrets.load(Settings(secret_key=SecretStr(SECRET)))
    assert keys.api_key_key != keys.url_key
    assert repr(keys) == "Secrets()"


def test_ids_and_keys_do_not_repeat() -> None:
    assert len({new_id() for _ in range(1000)}) == 1000
    assert len({new_api_key() for _ in range(1000)}) == 1000
    assert new_id().isalnum()


def test_a_digest_depends_on_the_secret_and_does_not_hold_the_key() -> None:
    key = new_api_key()
    one, other = (Secrets.load(Settings(secret_key=SecretStr(SECRET + letter))) for letter in "ab")
    assert api_key_digest(key, keys=one) != api_key_digest(key, keys=other)
    assert key not in api_key_digest(key, keys=one)


WEAK = ["", "\n", "short", "x" * 64, "01" * 32, "changeme" * 8]


@pytest.mark.parametrize("secret", WEAK)
def test_a_file_with_a_secret_that_can_be_guessed_is_refused(tmp_path: Path, secret: str) -> None:
    (tmp_path / "secret").write_text(secret)
    with pytest.raises(ConfigurationError, match=rf"The secret in {tmp_path}/secret must .* remove it"):
        Secrets.load(Settings(data_dir=tmp_path))
    assert (tmp_path / "secret").read_text() == secret


@pytest.mark.parametrize("name", ["secret_key", "metrics_token"])
@pytest.mark.parametrize("secret", WEAK)
def test_a_setting_with_a_secret_that_can_be_guessed_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, secret: str
) -> None:
    # As a file, because an empty variable counts as unset.
    monkeypatch.setenv("REGEN_SECRETS_DIR", str(tmp_path))
    (tmp_path / f"regen_{name}").write_text(secret)
    with pytest.raises(ValidationError, match=f"{name}.*\n.* must "):
        Settings()
    (tmp_path / f"regen_{name}").write_text(SECRET)
    assert getattr(Settings(), name).get_secret_value() == SECRET


def test_an_address_of_no_database_is_told_before_the_secret_that_it_would_need(tmp_path):
    with pytest.raises(ConfigurationError, match="REGEN_DATABASE_URL must look like"):
        Secrets.load(Settings(data_dir=tmp_path, database_url="mysql://user@host/regen"))
