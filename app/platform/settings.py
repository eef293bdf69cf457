"""Every setting of the server, read from the environment (prefix `REGEN_`). No other module reads the environment."""

import hashlib
import os
import sys
import tempfile
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.sources import SecretsSettingsSource

from app.platform.byte_sizes import GIB
from app.platform.limit_settings import LimitSettings
from app.platform.liveness import WORK_DIRECTORY
from app.platform.setting_types import (
    AbsolutePath,
    BrokerUrl,
    DatabaseUrl,
    HostList,
    KeyPrefix,
    OriginList,
    PublicUrl,
    StrongSecret,
    Token,
)
from app.platform.work_settings import WorkSettings

DEFAULT_SECRETS_DIR = "/run/secrets"


def _default_weights_dir(settings: dict[str, Any]) -> Path:
    """The `weights` folder of the data directory if it exists, else the weights from `scripts/setup`, if any."""
    own: Path = settings["data_dir"] / "weights"
    installed = Path(sys.prefix) / "share" / "regen-server" / "weights"
    return installed if installed.is_dir() and not own.expanduser().is_dir() else own


class Settings(LimitSettings, WorkSettings):
    """All settings. `docs/settings.md` is made from the fields' descriptions.

    A setting may also be a file with the variable's name in lower case (`regen_secret_key`) in the directory of
    REGEN_SECRETS_DIR, by default `/run/secrets`, where containers find their secrets. The variable takes precedence.
    """

    model_config = SettingsConfigDict(
        env_prefix="REGEN_",
        # An empty variable counts as unset: compose files and shells leave such variables behind.
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    # Places
    data_dir: Path = Field(
        Path("~/.regen"), description="The directory of the database, local storage, weights and spool files."
    )
    min_free_disk_bytes: int = Field(
        GIB,
        ge=0,
        description="Bytes of the data directory's disk that uploads leave free: uploads that do not fit are "
        "answered 503.",
    )
    weights_dir: AbsolutePath = Field(
        default_factory=_default_weights_dir,
        validate_default=True,
        description="The directory of the engines' weights. Unset: `weights` in the data directory, or, if there is "
        "no such folder, the weights that `scripts/setup` converted. Missing weights are converted on first use.",
    )
    database_url: DatabaseUrl | None = Field(
        None,
        description="Address of the database: `postgresql://user@host:5432/name`. Unset: SQLite in the data directory.",
    )
    database_password: SecretStr | None = Field(
        None, description="The password for `REGEN_DATABASE_URL`, unless the URL contains it."
    )
    database_pool_size: int = Field(
        20, ge=1, description="Maximum number of connections to PostgreSQL that one process keeps open."
    )
    database_pool_overflow: int = Field(
        0, ge=0, description="Further connections that it opens while it is busy, each for one use."
    )
    database_pool_timeout_seconds: float = Field(
        10.0, gt=0, description="How long a request waits for a free connection before it is answered 503."
    )
    database_prepared_statements: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether frequent statements are prepared on PostgreSQL. `auto`: unless a pooler is in between; "
        "`on` for a pooler that supports prepared statements (PgBouncer from 1.21 with `max_prepared_statements`).",
    )
    broker_url: BrokerUrl | None = Field(
        None,
        description="Address of Redis or Valkey: `redis://host:6379/0`, with TLS `rediss://`. Unset: the embedded "
        "Valkey that `regen serve` starts on a unix socket.",
    )
    broker_password: SecretStr | None = Field(
        None, description="The password for `REGEN_BROKER_URL`, unless the URL contains it."
    )
    storage: Literal["local", "s3"] = Field(
        "local",
        description="Where videos are stored: `local` is the data directory, `s3` a bucket of any S3-compatible "
        "server.",
    )
    s3_bucket: str | None = Field(None, description="The bucket, which must exist.")
    s3_prefix: KeyPrefix = Field(
        "",
        description="Prefix of all keys in the bucket, such as `regen/`.",
    )
    s3_endpoint_url: str | None = Field(
        None, description="Address at which servers and workers reach the S3 server. Unset: AWS."
    )
    s3_public_endpoint_url: str | None = Field(
        None,
        description="Address at which clients reach the S3 server: signed URLs point there. Unset: the same "
        "address.",
    )
    s3_region: str = Field("us-east-1", description="Region for which requests are signed.")
    s3_addressing: Literal["auto", "path", "virtual"] = Field(
        "auto",
        description="Whether the bucket is in the path or in the host name. `auto`: in the path for your own "
        "endpoint, in the host name for AWS.",
    )
    s3_access_key: SecretStr | None = Field(
        None,
        description="Access key. Unset: the credentials that boto3 finds (its environment variables, profiles, the "
        "machine's role).",
    )
    s3_secret_key: SecretStr | None = Field(None, description="Secret key of that access key.")
    s3_session_token: SecretStr | None = Field(
        None, description="Session token of temporary credentials; signed URLs end with it."
    )
    s3_ca_file: Path | None = Field(
        None,
        description="Certificates (PEM) of the S3 server's certificate authority. Unset: the usual authorities.",
    )
    public_url: PublicUrl | None = Field(
        None,
        description="Address at which clients reach the API, for signed URLs; it may have a path, which a proxy "
        "strips or passes on. Unset: the address of each request.",
    )
    allowed_hosts: HostList = Field(
        (),
        description="Names and addresses, as `regen.lan,10.0.0.5`, by which other machines may call this server "
        "while `REGEN_PUBLIC_URL` is unset; `*`: any, which lets clients choose where links lead. Loopback names, "
        "and the address of the connection, are always allowed.",
    )
    secret_key: StrongSecret | None = Field(
        None,
        description="Secret that keys the hashes of API keys and the signatures of URLs, of 32 random characters or "
        "more; the same on every machine. Unset: the first start makes one and keeps it in the data directory; with "
        "PostgreSQL it must be set.",
    )
    ffmpeg: str | None = Field(
        None, description="Path of ffmpeg. Unset: the one on PATH, otherwise that of a wheel."
    )
    ffprobe: str | None = Field(
        None, description="Path of ffprobe. Unset: the one on PATH, otherwise that of a wheel."
    )

    # The API
    api_processes: int = Field(
        1,
        ge=1,
        le=64,
        description="Number of processes with which `regen serve` answers requests, at one address: one process keeps "
        "one processor core busy. `--api-processes` takes precedence; the mock always has one.",
    )
    keep_alive_seconds: float = Field(
        150.0,
        gt=0,
        description="How long a connection stays open without a request. Proxies and clients must close idle "
        "connections sooner.",
    )
    request_head_seconds: float = Field(
        30.0, gt=0, description="How long a request's head may take to arrive; after that the answer is 408."
    )
    transfer_patience_seconds: float = Field(
        60.0,
        gt=0,
        description="How long the server waits for a client that sends or takes nothing, or less than the rate "
        "below, before the answer is 408 or the connection ends.",
    )
    min_transfer_bytes_per_second: int = Field(
        1024, ge=0, description="The rate at which a client must send a body and take an answer. 0: any."
    )
    max_connections: int = Field(
        4000,
        ge=1,
        description="Maximum number of connections to one server, if its limit of open files allows them. Above it "
        "those without a request are closed, and new ones wait. Several API processes have equal shares of it.",
    )
    max_connections_per_peer: int | None = Field(
        None,
        ge=1,
        description="Maximum number of these connections from one address (IPv6: one network of 64 bits). Behind a "
        "proxy all come from its address. Unset: half.",
    )
    read_patience_seconds: float = Field(
        75.0,
        ge=0,
        description="How long a GET waits for an unavailable database before it answers 503. A proxy must wait longer.",
    )
    url_lifetime_seconds: int = Field(24 * 3600, gt=0, description="How long signed URLs are valid.")
    cors_origins: OriginList = Field(
        (),
        description="Origins whose web pages may use the API from a browser, as `https://app.example.com`, separated "
        "by commas; `*`: all. Unset: none.",
    )
    max_event_streams_per_user: int = Field(
        20, ge=1, description="Maximum number of event streams that a user may have open at one server."
    )
    webhook_concurrency: int = Field(
        32,
        ge=0,
        description="Number of webhooks that one server sends at the same time, by the first of its API processes. 0: "
        "it sends none and leaves them to others.",
    )
    webhook_timeout_seconds: float = Field(
        15.0, gt=0, description="How long a webhook's receiver may take to answer."
    )
    destination_concurrency: int = Field(
        8,
        ge=0,
        description="Number of results that one server sends to destinations of its users at the same time, by the "
        "first of its API processes. 0: it sends none and leaves them to others.",
    )
    destination_timeout_seconds: float = Field(
        3600.0, gt=0, description="How long one attempt to send a result may take."
    )
    max_webhooks_per_user: int = Field(
        20,
        ge=1,
        description="Maximum number of webhooks that one user may set up; for one more the answer is 409.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level to log.")
    log_format: Literal["console", "json"] = Field("console", description="Format of log lines.")

    # The mock: `regen mock`
    mode: Literal["server", "mock"] = Field(
        "server",
        description="What `regen serve` runs: the server, or with `mock` the mock, as `regen mock` does.",
    )
    mock_data_dir: Path | None = Field(
        None,
        description="Directory in which the mock keeps its files, in a folder `mock`. Unset: a directory that is "
        "removed when it stops.",
    )
    mock_seed: int = Field(0, description="Seed of the mock's ids.")
    mock_clock: datetime | None = Field(
        None,
        description="The moment of the mock's first request, as `2026-01-01T00:00:00Z`; each further request comes a "
        "second later. Unset: the machine's time.",
    )
    mock_transitions: str = Field(
        "instant",
        description="When the mock's renders change status: `instant`, or after `seconds:2` or `polls:3` in each "
        "status.",
    )
    mock_strict: bool = Field(
        False,
        description="Whether the mock refuses unknown names of fields and query parameters. The server ignores them, "
        "with a warning.",
    )

    # What to watch
    metrics_token: Token | None = Field(
        None,
        description="Token that Prometheus must send to read the API's `/metrics`, as `Authorization: Bearer "
        "<token>`: 16 random characters or more. Unset: see `REGEN_METRICS_OPEN`.",
    )
    metrics_open: bool = Field(
        False,
        description="Whether anyone who reaches the API may read its `/metrics` while there is no token. Off: only "
        "programs on this machine may, not through a proxy.",
    )
    worker_metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port of a worker's `/metrics`; of several workers started at once, the port of the first. "
        "Unset: none.",
    )
    worker_metrics_host: str = Field(
        "127.0.0.1", description="Address on which a worker's `/metrics` listens."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        directory = Path(os.environ.get("REGEN_SECRETS_DIR", DEFAULT_SECRETS_DIR))
        if not directory.is_dir():
            return init_settings, env_settings
        return init_settings, env_settings, SecretsSettingsSource(settings_cls, secrets_dir=directory)

    @property
    def root(self) -> Path:
        """The data directory, absolute."""
        return self.data_dir.expanduser().resolve()

    def share(self, most: int) -> int:
        """The part of one API process, at least 1, of a limit that is the whole server's."""
        return max(1, most // self.api_processes)

    @property
    def resolved_database_url(self) -> str:
        if self.database_url is None:
            return f"sqlite:///{self.root / 'regen.db'}"
        url = _with_password(self.database_url, self.database_password)
        scheme, separator, rest = url.partition("://")
        return ("postgresql+psycopg" if scheme in ("postgres", "postgresql") else scheme) + separator + rest

    @property
    def broker_socket(self) -> Path:
        """The embedded broker's unix socket. Its path is short, as sockets' paths must be (104 to 108 bytes), and
        follows from the data directory, so that any worker with the same data directory finds it."""
        digest = hashlib.sha256(str(self.root).encode()).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"regen-{os.getuid()}-{digest}" / "broker.sock"

    @property
    def resolved_broker_url(self) -> str:
        if self.broker_url is None:
            return f"redis+socket://{self.broker_socket}"
        return _with_password(self.broker_url, self.broker_password)

    @property
    def storage_dir(self) -> Path:
        return self.root / "storage"

    @property
    def spool_dir(self) -> Path:
        """Uploads in progress. On the same file system as local storage, so that storing one is a rename."""
        return self.root / "spool"

    @property
    def run_dir(self) -> Path:
        """What the API processes of one running `regen serve` share. Emptied at each start."""
        return self.root / "run"

    @property
    def work_dir(self) -> Path:
        """Private directories of jobs, and fetched inputs."""
        return self.root / WORK_DIRECTORY


def _with_password(url: str, password: SecretStr | None) -> str:
    """The URL with that password, unless it has one already."""
    parts = urlsplit(url)
    if password is None or parts.password is not None:
        return url
    host = parts.netloc.rpartition("@")[2]
    user = f"{parts.username or ''}:{quote(password.get_secret_value(), safe='')}"
    return parts._replace(netloc=f"{user}@{host}").geturl()


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The process's settings, read once."""
    return Settings()
