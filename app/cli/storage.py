"""`regen storage`."""

from __future__ import annotations

import secrets
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import typer

from app.cli.reporting import DataDirectory, load_settings
from app.platform.errors import ConfigurationError, StorageError

if TYPE_CHECKING:
    from app.platform.settings import Settings
    from app.platform.storage.s3 import S3Storage

URL_SECONDS = 60

storage = typer.Typer(no_args_is_help=True, help="The storage of videos.")


@storage.command("check")
def check(data_dir: DataDirectory = None) -> None:
    """Write, read and remove a small file; in a bucket, also read it by a signed URL, as clients do."""
    settings = load_settings(data_dir)
    if settings.storage == "local":
        from app.platform.storage.local import LocalStorage

        if not settings.root.is_dir():
            raise ConfigurationError(
                f"There is no data directory {settings.root}. Check --data-dir and REGEN_DATA_DIR."
            )
        LocalStorage(root=settings.storage_dir, url_key=b"").check()
        typer.echo(f"{settings.storage_dir}: files can be written, read and removed.")
        return
    from app.platform.storage.s3 import S3Storage
    from app.platform.storage.s3_connection import connect

    connection = connect(settings)
    bucket = S3Storage(connection)
    bucket.check()
    typer.echo(
        f"Bucket '{connection.bucket}' at {connection.address}: files can be written, read, listed and removed."
    )
    typer.echo(f"{_read_by_signed_url(bucket, settings)}: signed URLs can be read from this machine.")


@storage.command("create-bucket")
def create_bucket() -> None:
    """Create the bucket of REGEN_S3_BUCKET unless it exists; a rule in it removes incomplete uploads after two days.

    Web pages of REGEN_CORS_ORIGINS may then use its signed URLs.
    """
    settings = load_settings(None)
    if settings.storage == "local":
        raise ConfigurationError("The storage is a directory: to use a bucket, set REGEN_STORAGE=s3.")
    from app.platform.storage import s3
    from app.platform.storage.s3_connection import connect

    connection = connect(settings)
    is_new = s3.create_bucket(connection)
    typer.echo(f"The bucket '{connection.bucket}' {'was made' if is_new else 'is there'}.")
    try:
        s3.abort_incomplete_uploads(connection)
    except StorageError as error:
        typer.echo(f"Interrupted uploads stay in it until you remove them. {error}")
    else:
        typer.echo(f"Interrupted uploads are removed after {s3.ABORT_AFTER_DAYS} days.")
    if settings.cors_origins:
        try:
            s3.allow_origins(connection, settings.cors_origins)
        except StorageError as error:
            typer.echo(f"Web pages cannot use its signed URLs until you permit them. {error}")
        else:
            typer.echo(f"Web pages of {', '.join(settings.cors_origins)} may use its signed URLs.")


def _read_by_signed_url(bucket: S3Storage, settings: Settings) -> str:
    """The address at which a stored file could be read. Raises StorageError if it could not."""
    import httpx

    key, content = f"checks/{secrets.token_hex(8)}", secrets.token_bytes(16)
    with tempfile.TemporaryDirectory(prefix="regen-storage-") as scratch:
        file = Path(scratch) / "file"
        file.write_bytes(content)
        bucket.put_file(key, file, content_type="application/octet-stream")
    try:
        url = bucket.signed_url(key, base_url="", file_name="check", lifetime_seconds=URL_SECONDS)
        parts = urlsplit(url)
        address = f"{parts.scheme}://{parts.netloc}"
        try:
            response = httpx.get(url, verify=ssl.create_default_context(cafile=settings.s3_ca_file))
        except httpx.HTTPError as error:
            raise StorageError(
                f"Signed URLs point to {address}, which this machine cannot reach: {error}. "
                "Check REGEN_S3_PUBLIC_ENDPOINT_URL."
            ) from error
    finally:
        bucket.delete(key)
    if response.status_code != 200 or response.content != content:
        raise StorageError(
            f"Signed URLs point to {address}, which answers {response.status_code} instead of the file. "
            "Check REGEN_S3_PUBLIC_ENDPOINT_URL and REGEN_S3_ADDRESSING, and that a proxy there keeps the Host header."
        )
    return address
