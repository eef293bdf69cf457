"""How the S3 server is reached: the settings made sense of, the credentials, and the clients."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import structlog
from botocore.config import Config
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.exceptions import BotoCoreError

from app.platform.errors import ConfigurationError
from app.platform.settings import MIB, Settings

# Signature version 4 allows no more: seven days.
MAX_URL_LIFETIME_SECONDS = 7 * 24 * 3600
# The API serves from a pool of forty threads, and transfers have threads of their own.
POOL_CONNECTIONS = 50

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long an unwilling server is borne with. `attempts` counts the first one."""

    connect_seconds: float = 5.0
    read_seconds: float = 60.0
    attempts: int = 4


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """`part_bytes` is doubled by itself for files of more than 10,000 parts. `brief` is for what moves no files."""

    part_bytes: int = 16 * MIB
    concurrency: int = 4
    page_keys: int = 1000
    patience: Patience = Patience()
    brief: Patience = Patience(connect_seconds=2.0, read_seconds=4.0, attempts=2)


@dataclass(frozen=True, kw_only=True)
class S3Connection:
    """Clients are safe to share between threads. `signer` knows the server by its public address."""

    bucket: str
    prefix: str
    region: str
    endpoint_url: str | None
    client: Any
    brief: Any
    signer: Any
    tuning: Tuning

    @property
    def place(self) -> str:
        """Where the server is, for sentences."""
        return self.endpoint_url or "AWS"


def connect(settings: Settings, tuning: Tuning | None = None) -> S3Connection:
    """Raises ConfigurationError when the settings do not add up. Asks the server nothing.

    Logs a warning when the credentials end before the URLs that are signed with them.
    """
    tuning = tuning or Tuning()
    check_settings(settings)
    endpoint_url = settings.s3_endpoint_url or None
    public_url = settings.s3_public_endpoint_url or endpoint_url
    assert settings.s3_bucket is not None
    try:
        session = boto3.session.Session(
            aws_access_key_id=_revealed(settings, "s3_access_key"),
            aws_secret_access_key=_revealed(settings, "s3_secret_key"),
            aws_session_token=_revealed(settings, "s3_session_token"),
            region_name=settings.s3_region,
        )
        credentials = session.get_credentials()
        if credentials is None:
            raise ConfigurationError(
                "There are no credentials for the S3 server. Set REGEN_S3_ACCESS_KEY and REGEN_S3_SECRET_KEY."
            )
        warn_of_short_credentials(credentials, url_lifetime_seconds=settings.url_lifetime_seconds)

        def client(url: str | None, patience: Patience) -> Any:
            return session.client(
                "s3",
                endpoint_url=url,
                verify=None if settings.s3_ca_file is None else str(settings.s3_ca_file),
                config=_client_config(_addressing(settings, url), patience),
            )

        connection = S3Connection(
            bucket=settings.s3_bucket,
            prefix=settings.s3_prefix,
            region=settings.s3_region,
            endpoint_url=endpoint_url,
            client=client(endpoint_url, tuning.patience),
            brief=client(endpoint_url, tuning.brief),
            signer=client(public_url, tuning.brief),
            tuning=tuning,
        )
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError(f"The settings of the S3 server cannot be used: {error}") from error
    for one in (connection.client, connection.brief):
        one.meta.events.register("before-call.s3", _refuse_redirects)
    return connection


def check_settings(settings: Settings) -> None:
    """Raises ConfigurationError with what to change."""
    if not settings.s3_bucket:
        raise ConfigurationError("REGEN_STORAGE=s3 needs a bucket: set REGEN_S3_BUCKET.")
    if (settings.s3_access_key is None) != (settings.s3_secret_key is None):
        raise ConfigurationError(
            "REGEN_S3_ACCESS_KEY and REGEN_S3_SECRET_KEY belong together: set both or neither."
        )
    if settings.s3_session_token is not None and settings.s3_access_key is None:
        raise ConfigurationError(
            "REGEN_S3_SESSION_TOKEN belongs to an access key: set REGEN_S3_ACCESS_KEY too."
        )
    _check_url("REGEN_S3_ENDPOINT_URL", settings.s3_endpoint_url)
    _check_url("REGEN_S3_PUBLIC_ENDPOINT_URL", settings.s3_public_endpoint_url)
    if settings.s3_ca_file is not None:
        _check_certificates(settings.s3_ca_file)
    if settings.url_lifetime_seconds > MAX_URL_LIFETIME_SECONDS:
        raise ConfigurationError(
            "S3 servers accept signed URLs for at most seven days: "
            f"REGEN_URL_LIFETIME_SECONDS may be {MAX_URL_LIFETIME_SECONDS} at most."
        )


def warn_of_short_credentials(credentials: Credentials, *, url_lifetime_seconds: int) -> None:
    """A signed URL ends with the credentials that signed it, whatever it says itself: then log a warning."""
    # Fetches those that are fetched on first use, so that their end is known.
    token = credentials.get_frozen_credentials().token
    if isinstance(credentials, RefreshableCredentials):
        ends_early = credentials.refresh_needed(refresh_in=url_lifetime_seconds)
    else:
        ends_early = token is not None
    if ends_early:
        log.warning(
            "signed_urls_end_early",
            url_lifetime_seconds=url_lifetime_seconds,
            credentials=credentials.method,
            reason="signed URLs end with the temporary credentials that signed them",
        )


def _client_config(addressing: str, patience: Patience) -> Config:
    return Config(
        signature_version="s3v4",
        # Each body's SHA-256 is part of its signature, so the server refuses what was altered on the way. The newer
        # checksums in trailers do the same, but servers other than AWS often do not understand them.
        s3={"addressing_style": addressing, "payload_signing_enabled": True},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_supported",
        connect_timeout=patience.connect_seconds,
        read_timeout=patience.read_seconds,
        retries={"mode": "standard", "total_max_attempts": patience.attempts},
        max_pool_connections=POOL_CONNECTIONS,
        tcp_keepalive=True,
    )


def _addressing(settings: Settings, endpoint_url: str | None) -> str:
    if settings.s3_addressing != "auto":
        return settings.s3_addressing
    # A wildcard certificate covers no bucket with a dot in its name.
    return "path" if endpoint_url is not None or "." in (settings.s3_bucket or "") else "virtual"


def _refuse_redirects(params: dict[str, Any], **_: object) -> None:
    """Take a request for one that was redirected already.

    botocore follows a server's word that the bucket is in another region. URLs cannot follow: those would be signed
    for the wrong region, and only clients would notice. So the wrong region is an error at the start.
    """
    redirect = params.get("context", {}).get("s3_redirect")
    if isinstance(redirect, dict):
        redirect["redirected"] = True


def _check_url(variable: str, url: str | None) -> None:
    if not url:
        return
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        raise ConfigurationError(f"{variable} must look like https://host or http://host:9000.")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigurationError(f"{variable} must be an address alone, without credentials or a query.")


def _check_certificates(path: Path) -> None:
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"REGEN_S3_CA_FILE: {path} has no certificates that can be read.") from error


def _revealed(settings: Settings, name: str) -> str | None:
    value = getattr(settings, name)
    return None if value is None else value.get_secret_value()
