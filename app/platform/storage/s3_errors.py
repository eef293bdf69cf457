"""What boto3 raises, told as our own errors."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)
from s3transfer.exceptions import CancelledError, RetriesExceededError
from urllib3.exceptions import HTTPError

from app.platform.errors import AccessRefused, KeyNotFound, StorageError, causes
from app.platform.storage.s3_connection import S3Connection

# Botocore's own, what a transfer ends with, what urllib3 says in the middle of a body, and our own disk.
S3_ERRORS = (BotoCoreError, ClientError, RetriesExceededError, CancelledError, HTTPError, OSError)

# A HEAD's answer has no body, and so no other code than its status.
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
_ENDED_CREDENTIALS = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"}
)
_DONE_TO = {
    "PutObject": "write to",
    "GetObject": "read from",
    "DeleteObject": "remove from",
    "ListObjectsV2": "list",
    "CreateBucket": "create",
    "HeadBucket": "see",
}


@contextmanager
def storage_errors(sentence: str) -> Iterator[None]:
    """Raise StorageError with that sentence, AccessRefused too, or KeyNotFound."""
    try:
        yield
    except S3_ERRORS as error:
        if is_missing(error):
            raise KeyNotFound("The file is not in the storage.", detail=_told(error)) from error
        if _is_refused(error):
            raise AccessRefused(sentence, detail=_told(error)) from error
        raise StorageError(sentence, detail=_told(error)) from error


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
    """The error with a sentence for the operator: what is wrong, and what to change."""
    if isinstance(error, ClientError):
        sentence = _explain_answer(error, connection)
    else:
        sentence = _explain_silence(error, connection)
    return StorageError(sentence, detail=_told(error))


def _explain_answer(error: ClientError, connection: S3Connection) -> str:
    code, place = code_of(error), connection.place
    status = _status_of(error)
    match code:
        case "NoSuchBucket":
            return (
                f"There is no bucket '{connection.bucket}' at {place}. "
                "Make it with `regen storage create-bucket`, or mend REGEN_S3_BUCKET."
            )
        case "InvalidAccessKeyId":
            return f"The S3 server at {place} does not know the access key. Check REGEN_S3_ACCESS_KEY."
        case "SignatureDoesNotMatch":
            return f"The S3 server at {place} refuses the secret key. Check REGEN_S3_SECRET_KEY."
        case "RequestTimeTooSkewed":
            return f"The clocks of this machine and of the S3 server at {place} are too far apart. Set them right."
    if code in _ENDED_CREDENTIALS:
        return f"The temporary credentials for the S3 server at {place} have ended. Fetch new ones."
    if code in _WRONG_REGION:
        return (
            f"The bucket '{connection.bucket}' is not in the region {connection.region}{_told_region(error)}."
        )
    if _is_refused(error):
        what = _DONE_TO.get(error.operation_name, "use")
        return f"The access key may not {what} the bucket '{connection.bucket}' at {place}."
    return f"The S3 server at {place} does not do as asked ({code or status})."


def _told_region(error: ClientError) -> str:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = headers.get("x-amz-bucket-region") or error.response.get("Error", {}).get("Region")
    return f", but in {region}. Set REGEN_S3_REGION={region}" if region else ". Set REGEN_S3_REGION"


def _explain_silence(error: BaseException, connection: S3Connection) -> str:
    origins = list(causes(error, also=_kept_by_boto3))
    host = f"the S3 server at {connection.place}"
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in origins):
        return f"The certificate of {host} is not trusted. Name the authority's in REGEN_S3_CA_FILE."
    if any(isinstance(cause, ssl.SSLError) for cause in origins):
        return f"There is no speaking TLS with {host}. Check REGEN_S3_ENDPOINT_URL: is it http?"
    if any(isinstance(cause, socket.gaierror) for cause in origins):
        return f"The host name of {host} is not known. Check REGEN_S3_ENDPOINT_URL."
    if any(isinstance(cause, ConnectTimeoutError | ReadTimeoutError | TimeoutError) for cause in origins):
        return f"There was no answer in time from {host}."
    if isinstance(error, EndpointConnectionError):
        return f"Nothing answers where {host} should be. Start it, or mend REGEN_S3_ENDPOINT_URL."
    if isinstance(error, NoCredentialsError):
        return f"There are no credentials for {host}."
    return f"There was no whole answer from {host}."


def _kept_by_boto3(error: BaseException) -> list[object]:
    """boto3 and urllib3 keep the original error beside their text."""
    facts = getattr(error, "kwargs", None)
    inner = facts.get("error") if isinstance(facts, dict) else None
    return [inner, *(getattr(error, name, None) for name in ("reason", "last_exception"))]


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {getattr(error, 'last_exception', None) or error}"
