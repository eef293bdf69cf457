"""The server's secret, and the keys derived from it for each purpose."""

import contextlib
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from app.platform.database_engine import parse_url
from app.platform.errors import ConfigurationError
from app.platform.setting_types import weakness
from app.platform.settings import Settings

API_KEY_PREFIX = "regen_"
ID_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_LENGTH = 16
MUST_BE_SET = (
    "REGEN_SECRET_KEY must be set when the database is a server, to the same value on every machine. "
    'Make one with: python3 -c "import secrets; print(secrets.token_hex(32))"'
)


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """Keys for separate purposes, so that what signs a URL can never match an API key's hash."""

    api_key_key: bytes = field(repr=False)
    url_key: bytes = field(repr=False)
    webhook_key: bytes = field(repr=False)
    playlist_key: bytes = field(repr=False)

    @classmethod
    def load(cls, settings: Settings) -> "Secrets":
        """The keys from `REGEN_SECRET_KEY`, else from the data directory's `secret` file, created when missing.

        Raises ConfigurationError when the setting is missing and the database is a server: each machine would
        create its own secret, and API keys from one machine would be invalid on another. Raises it also for an
        address that is no database's, and for a file whose secret could be guessed.
        """
        if settings.secret_key is not None:
            secret = settings.secret_key.get_secret_value().encode()
        elif parse_url(settings.resolved_database_url).get_backend_name() != "sqlite":
            raise ConfigurationError(MUST_BE_SET)
        else:
            path = settings.root / "secret"
            secret = _read_or_make(path)
            if (why := weakness(secret.decode("latin-1").strip())) is not None:
                raise ConfigurationError(
                    f"The secret in {path} {why}. Restore the file from a backup; or remove it, and the server makes "
                    "a new one, which invalidates every API key and signed URL of the old one."
                )
        return cls(
            api_key_key=_derive(secret, b"api keys"),
            url_key=_derive(secret, b"signed urls"),
            webhook_key=_derive(secret, b"webhooks"),
            playlist_key=_derive(secret, b"playlists"),
        )


def _derive(secret: bytes, purpose: bytes) -> bytes:
    return hmac.digest(secret, b"regen:" + purpose, "sha256")


def _read_or_make(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".secret-{os.getpid()}-{secrets.token_hex(4)}")
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    fresh.touch(mode=0o600)
    try:
        fresh.write_bytes(secrets.token_hex(32).encode())
        # A link, unlike a rename, fails if another process was first; then that process's secret applies.
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
        return path.read_bytes()
    finally:
        fresh.unlink(missing_ok=True)


def random_id() -> str:
    # One number instead of a choice for each character: every request makes an id.
    number, characters = secrets.randbelow(len(ID_ALPHABET) ** ID_LENGTH), []
    for _ in range(ID_LENGTH):
        number, digit = divmod(number, len(ID_ALPHABET))
        characters.append(ID_ALPHABET[digit])
    return "".join(characters)


_id_source: Callable[[], str] = random_id


def new_id() -> str:
    """An opaque identifier: 16 letters and digits, 95 random bits."""
    return _id_source()


def set_id_source(source: Callable[[], str]) -> None:
    """Make `new_id` of this process return ids from `source`: for repeatable answers. No secret depends on it."""
    global _id_source  # noqa: PLW0603
    _id_source = source


def is_id(text: str) -> bool:
    """Whether the text may be an id; a database may refuse characters of any other text."""
    return text.isascii() and text.isalnum()


def new_api_key() -> str:
    """A new API key: the prefix and 256 random bits."""
    return API_KEY_PREFIX + secrets.token_urlsafe(32)


def api_key_digest(key: str, *, keys: Secrets) -> str:
    """The keyed hash under which a key is stored: HMAC-SHA256, in hex."""
    return hmac.new(keys.api_key_key, key.encode(), hashlib.sha256).hexdigest()
