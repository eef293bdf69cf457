"""The connection to an S3-compatible server: settings, credentials, clients, and its failures as typed errors."""

import base64
import hashlib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import structlog
from botocore.config import Config
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)
from s3transfer.exceptions import CancelledError, RetriesExceededError
from urllib3 import Timeout
from urllib3.exceptions import HTTPError

from app.platform.byte_sizes import MIB
from app.platform.errors import AccessRefused, ConfigurationError, KeyNotFound, StorageError, causes
from app.platform.settings import Settings
from app.platform.storage.s3_single_requests import SingleRequests

# The longest lifetime that signature version 4 allows: seven days.
MAX_URL_LIFETIME_SECONDS = 7 * 24 * 3600
# The API serves from a pool of 40 threads; transfers use further threads.
POOL_CONNECTIONS = 50

# Botocore's own errors, those of a transfer, those of urllib3 in the middle of a body, and those of the local disk.
S3_ERRORS = (BotoCoreError, ClientError, RetriesExceededError, CancelledError, HTTPError, OSError)

# The answer to HEAD has no body, and thus no code but its status.
_MISSING = frozenset({"NoSuchKey", "NoSuchUpload", "NotFound", "404"})
_WRONG_REGION = frozenset(
    {
        "301",
        "307",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "PermanentRedirect",
        "TemporaryRedirect",
    }
)
_EXPIRED_CREDENTIALS = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"}
)
_ACTIONS = {
    "PutObject": "write to",
    "GetObject": "read from",
    "DeleteObject": "remove from",
    "ListObjectsV2": "list",
    "CreateBucket": "create",
    "HeadBucket": "see",
}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class S3Timeouts:
    """Timeouts of one request, in seconds, and the number of attempts including the first."""

    connect_seconds: float = 5.0
    read_seconds: float = 60.0
    attempts: int = 4


@dataclass(frozen=True, kw_only=True)
class S3Options:
    """Limits of transfers and requests.

    `part_bytes`: boto3 doubles it for files of more than 10,000 parts. `concurrency`: parts of one file in flight.
    `page_keys`: keys in one page of a listing. `brief_timeouts`: of requests that transfer no file.
    """

    part_bytes: int = 16 * MIB
    concurrency: int = 4
    page_keys: int = 1000
    timeouts: S3Timeouts = S3Timeouts()
    brief_timeouts: S3Timeouts = S3Timeouts(connect_seconds=2.0, read_seconds=4.0, attempts=2)


@dataclass(frozen=True, kw_only=True)
class S3Connection:
    """Clients are safe to share between threads. `signer` uses the server's public address. `single_requests`: None
    where the client alone can reach the bucket."""

    bucket: str
    prefix: str
    region: str
    endpoint_url: str | None
    client: Any
    brief_client: Any
    signer: Any
    single_requests: SingleRequests | None
    options: S3Options

    @property
    def address(self) -> str:
        """The server's address, for messages."""
        return self.endpoint_url or "AWS"


def connect(settings: Settings, options: S3Options | None = None) -> S3Connection:
    """Makes the clients without a request to the server. Raises ConfigurationError for inconsistent settings.

    Logs a warning when the credentials expire before the URLs that are signed with them.
    """
    options = options or S3Options()
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

        def client(url: str | None, timeouts: S3Timeouts) -> Any:
            return session.client(
                "s3",
                endpoint_url=url,
                verify=None if settings.s3_ca_file is None else str(settings.s3_ca_file),
                config=_client_config(_addressing(settings, url), timeouts),
            )

        usual_client = client(endpoint_url, options.timeouts)
        connection = S3Connection(
            bucket=settings.s3_bucket,
            prefix=settings.s3_prefix,
            region=settings.s3_region,
            endpoint_url=endpoint_url,
            client=usual_client,
            brief_client=client(endpoint_url, options.brief_timeouts),
            signer=client(public_url, options.brief_timeouts),
            single_requests=SingleRequests.of(
                usual_client,
                credentials,
                bucket=settings.s3_bucket,
                ca_file=None if settings.s3_ca_file is None else str(settings.s3_ca_file),
                timeout=Timeout(options.timeouts.connect_seconds, options.timeouts.read_seconds),
                connections=POOL_CONNECTIONS,
            ),
            options=options,
        )
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError(f"The settings of the S3 server cannot be used: {error}") from error
    for one in (connection.client, connection.brief_client):
        one.meta.events.register("before-call.s3", _refuse_redirects)
        one.meta.events.register("before-call.s3.DeleteObjects", _add_md5)
    return connection


def check_settings(settings: Settings) -> None:
    """Raises ConfigurationError with the setting to change."""
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
    """Logs a warning if the credentials expire before the URLs: a signed URL expires with its credentials."""
    # Loads lazily loaded credentials, so that their expiry is known.
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
            reason="signed URLs expire with the temporary credentials that signed them",
        )


def _client_config(addressing: str, timeouts: S3Timeouts) -> Config:
    return Config(
        signature_version="s3v4",
        # Each body's SHA-256 is part of its signature, so the server refuses a corrupted body. The newer checksums in
        # trailers do the same, but servers other than AWS often do not support them.
        s3={"addressing_style": addressing, "payload_signing_enabled": True},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_supported",
        connect_timeout=timeouts.connect_seconds,
        read_timeout=timeouts.read_seconds,
        retries={"mode": "standard", "total_max_attempts": timeouts.attempts},
        max_pool_connections=POOL_CONNECTIONS,
        tcp_keepalive=True,
    )


def _addressing(settings: Settings, endpoint_url: str | None) -> str:
    if settings.s3_addressing != "auto":
        return settings.s3_addressing
    # A wildcard certificate does not cover a bucket with a dot in its name.
    return "path" if endpoint_url is not None or "." in (settings.s3_bucket or "") else "virtual"


def _refuse_redirects(params: dict[str, Any], **_: object) -> None:
    """Marks a request as already redirected, so that a wrong region is an error at the start.

    botocore would follow the server's redirect to the bucket's region, but signed URLs would still name the wrong
    region, and only clients would notice.
    """
    redirect = params.get("context", {}).get("s3_redirect")
    if isinstance(redirect, dict):
        redirect["redirected"] = True


def _add_md5(params: dict[str, Any], **_: object) -> None:
    """Adds the checksum that S3 demanded of this request at first, and servers other than AWS still do."""
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()


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
        raise ConfigurationError(f"{variable} must be only an address, without credentials or a query.")


def _check_certificates(path: Path) -> None:
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"REGEN_S3_CA_FILE: {path} contains no readable certificates.") from error


def _revealed(settings: Settings, name: str) -> str | None:
    value = getattr(settings, name)
    return None if value is None else value.get_secret_value()


@contextmanager
def storage_errors(sentence: str) -> Iterator[None]:
    """Raises KeyNotFound for a missing object, else AccessRefused or StorageError with that sentence."""
    try:
        yield
    except S3_ERRORS as error:
        if is_missing(error):
            raise KeyNotFound("The file is not in the storage.", detail=_detail(error)) from error
        if _is_refused(error):
            raise AccessRefused(sentence, detail=_detail(error)) from error
        raise StorageError(sentence, detail=_detail(error)) from error


def is_missing(error: BaseException) -> bool:
    return isinstance(error, ClientError) and code_of(error) in _MISSING


def _is_refused(error: BaseException) -> bool:
    return isinstance(error, ClientError) and _status_of(error) == HTTPStatus.FORBIDDEN


def _status_of(error: ClientError) -> int | None:
    status: int | None = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status


def code_of(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def explain(error: BaseException, connection: S3Connection) -> StorageError:
    """The error with a sentence for the operator: the cause, and the setting to change."""
    if isinstance(error, ClientError):
        sentence = _explain_answer(error, connection)
    else:
        sentence = _explain_no_answer(error, connection)
    return StorageError(sentence, detail=_detail(error))


def _explain_answer(error: ClientError, connection: S3Connection) -> str:
    code, address = code_of(error), connection.address
    status = _status_of(error)
    match code:
        case "NoSuchBucket":
            return (
                f"There is no bucket '{connection.bucket}' at {address}. "
                "Make it with `regen storage create-bucket`, or correct REGEN_S3_BUCKET."
            )
        case "InvalidAccessKeyId":
            return f"The S3 server at {address} does not know the access key. Check REGEN_S3_ACCESS_KEY."
        case "SignatureDoesNotMatch":
            return f"The S3 server at {address} refuses the secret key. Check REGEN_S3_SECRET_KEY."
        case "RequestTimeTooSkewed":
            return f"The clocks of this machine and of the S3 server at {address} are too far apart. Correct them."
    if code in _EXPIRED_CREDENTIALS:
        return f"The temporary credentials for the S3 server at {address} have expired. Fetch new ones."
    if code in _WRONG_REGION:
        return (
            f"The bucket '{connection.bucket}' is not in the region {connection.region}{_region_hint(error)}."
        )
    if _is_refused(error):
        action = _ACTIONS.get(error.operation_name, "use")
        return f"The access key may not {action} the bucket '{connection.bucket}' at {address}."
    return f"The S3 server at {address} refused the request ({code or status})."


def _region_hint(error: ClientError) -> str:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = headers.get("x-amz-bucket-region") or error.response.get("Error", {}).get("Region")
    return f", but in {region}. Set REGEN_S3_REGION={region}" if region else ". Set REGEN_S3_REGION"


def _explain_no_answer(error: BaseException, connection: S3Connection) -> str:
    origins = list(causes(error, also=_kept_by_boto3))
    host = f"the S3 server at {connection.address}"
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in origins):
        return (
            f"The certificate of {host} is not trusted. Set REGEN_S3_CA_FILE to its authority's certificate."
        )
    if any(isinstance(cause, ssl.SSLError) for cause in origins):
        return f"The TLS handshake with {host} failed. Check REGEN_S3_ENDPOINT_URL: is it http?"
    if any(isinstance(cause, socket.gaierror) for cause in origins):
        return f"The host name of {host} is not known. Check REGEN_S3_ENDPOINT_URL."
    if any(isinstance(cause, ConnectTimeoutError | ReadTimeoutError | TimeoutError) for cause in origins):
        return f"There was no answer in time from {host}."
    if isinstance(error, EndpointConnectionError):
        return f"Nothing answers at the address of {host}. Start it, or correct REGEN_S3_ENDPOINT_URL."
    if isinstance(error, NoCredentialsError):
        return f"There are no credentials for {host}."
    return f"There was no complete answer from {host}."


def _kept_by_boto3(error: BaseException) -> list[object]:
    """The original errors that boto3 and urllib3 keep in attributes."""
    facts = getattr(error, "kwargs", None)
    inner = facts.get("error") if isinstance(facts, dict) else None
    return [inner, *(getattr(error, name, None) for name in ("reason", "last_exception"))]


def _detail(error: BaseException) -> str:
    return f"{type(error).__name__}: {getattr(error, 'last_exception', None) or error}"
