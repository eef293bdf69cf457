"""An S3 server for tests that checks signatures and expiry: Ceph's gateway where it is installed, else a wheel's."""

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import boto3
import pytest
from botocore.config import Config

from app.platform.settings import Settings
from tests.servers import ceph
from tests.servers.process import ServerProcess, accepts, free_port

REGION = "us-east-1"
START_SECONDS = 30.0


class Program(Protocol):
    """What runs behind an S3Server."""

    port: int

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...


class Nanio:
    """The wheel: one process over a directory. It lacks some things; see S3Server.is_complete."""

    def __init__(self, directory: Path, *, users: dict[str, tuple[str, str]]) -> None:
        self.port = free_port()
        self._directory = directory
        self._process: ServerProcess | None = None
        (directory / "users.toml").write_text(
            "".join(
                f'[[users]]\naccess_key = "{access_key}"\nsecret_key = "{secret_key}"\n'
                for access_key, secret_key in users.values()
            )
        )

    def start(self) -> None:
        self._process = ServerProcess(
            [
                *(sys.executable, "-m", "nanio", "serve", "--host", "127.0.0.1", "--port", str(self.port)),
                *("--data-dir", self._directory / "data", "--options", self._directory / "users.toml"),
                *("--region", REGION),
            ],
            log=self._directory / "nanio.log",
            directory=self._directory,
        )
        self._process.wait_until(lambda: accepts(self.port), seconds=START_SECONDS, what="nanio listens")

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
        shutil.rmtree(self._directory)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process = None


class S3Server:
    """One server on one port of loopback. `stranger` is a second user's access key and secret key."""

    def __init__(self) -> None:
        self.access_key, self.secret_key = "owner-key", secrets.token_hex(20)
        self.stranger = ("stranger-key", secrets.token_hex(20))
        self.is_complete = os.environ.get("REGEN_TEST_SERVERS") != "wheels" and ceph.is_installed()
        """False for the wheel: it knows no owners, no lifecycle rules, no buckets in host names and no download names,
        cannot delete what is not there when something lies under it, and does not compare a body with its hash."""
        program = ceph.Ceph if self.is_complete else Nanio
        self._program: Program = program(
            Path(tempfile.mkdtemp(prefix="regen-s3-")),
            users={"owner": (self.access_key, self.secret_key), "stranger": self.stranger},
        )

    @property
    def port(self) -> int:
        return self._program.port

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns once it answers. After `kill` everything stored is there again. Leaves alone what runs."""
        if not accepts(self.port):
            self._program.start()

    def stop(self) -> None:
        self._program.stop()

    def kill(self) -> None:
        """End what listens, at once."""
        self._program.kill()

    @cached_property
    def client(self) -> Any:
        """A plain boto3 client with the owner's keys."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=REGION,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def create_bucket(self) -> str:
        """A new bucket's name."""
        name = f"test-{secrets.token_hex(8)}"
        self.client.create_bucket(Bucket=name)
        return name

    def settings(self, bucket: str) -> dict[str, Any]:
        """What Settings takes to use that bucket."""
        return {
            "storage": "s3",
            "s3_bucket": bucket,
            "s3_endpoint_url": self.endpoint_url,
            "s3_region": REGION,
            "s3_access_key": self.access_key,
            "s3_secret_key": self.secret_key,
        }


@dataclass(frozen=True, kw_only=True)
class S3Bucket:
    """A fresh bucket. `settings` are keyword arguments of Settings, `environment` the same as variables."""

    server: S3Server
    name: str

    @property
    def settings(self) -> dict[str, Any]:
        return self.server.settings(self.name)

    @property
    def environment(self) -> dict[str, str]:
        prefix = str(Settings.model_config.get("env_prefix"))
        return {f"{prefix}{name.upper()}": value for name, value in self.settings.items()}

    def keys(self) -> list[str]:
        """Every key that is really in the bucket."""
        pages = self.server.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def incomplete_uploads(self) -> list[str]:
        """The keys of multipart uploads that were neither completed nor aborted."""
        answer = self.server.client.list_multipart_uploads(Bucket=self.name)
        return [found["Key"] for found in answer.get("Uploads", [])]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    server = S3Server()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def s3_bucket(s3_server: S3Server) -> S3Bucket:
    """A fresh bucket of a running server. For tests that leave the server running."""
    return S3Bucket(server=s3_server, name=s3_server.create_bucket())
