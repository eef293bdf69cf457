"""A bucket made ready: created, with a rule that clears away what broken uploads leave behind, and one that lets web
pages in where the operator says so."""

from collections.abc import Sequence
from typing import Any

from botocore.exceptions import ClientError

from app.platform.storage.s3_connection import S3Connection
from app.platform.storage.s3_errors import S3_ERRORS, code_of, explain

CLEARING_RULE = "regen-abort-incomplete-uploads"
CLEAR_AFTER_DAYS = 2

PAGES_RULE = "regen-web-pages"
# Of an answer these may be read by a page: an upload's parts are named by their ETags.
PAGES_READ = ("Accept-Ranges", "Content-Disposition", "Content-Range", "ETag")

_OURS_ALREADY = "BucketAlreadyOwnedByYou"
_NO_RULES = "NoSuchLifecycleConfiguration"
_NO_PAGES = "NoSuchCORSConfiguration"


def create_bucket(connection: S3Connection) -> bool:
    """Make the bucket unless it is there. Returns whether it was made. Raises StorageError."""
    client, bucket = connection.client, connection.bucket
    try:
        if _is_there(connection):
            return False
        # Servers other than AWS have names of their own for places, or none.
        is_elsewhere = connection.endpoint_url is None and connection.region != "us-east-1"
        place = (
            {"CreateBucketConfiguration": {"LocationConstraint": connection.region}} if is_elsewhere else {}
        )
        client.create_bucket(Bucket=bucket, **place)
    except S3_ERRORS as error:
        if isinstance(error, ClientError) and code_of(error) == _OURS_ALREADY:
            return False
        raise explain(error, connection) from error
    return True


def clear_incomplete_uploads(connection: S3Connection) -> None:
    """Have the server abort multipart uploads that were not completed in two days. The bucket's other rules stay.

    Raises StorageError, also when the server has no such rules.
    """
    client, bucket = connection.client, connection.bucket
    try:
        rules = _rules(connection)
        if any(rule.get("ID") == CLEARING_RULE for rule in rules):
            return
        rules.append(
            {
                "ID": CLEARING_RULE,
                "Status": "Enabled",
                "Filter": {"Prefix": connection.prefix},
                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": CLEAR_AFTER_DAYS},
            }
        )
        client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
    except S3_ERRORS as error:
        raise explain(error, connection) from error


def let_pages_in(connection: S3Connection, origins: Sequence[str]) -> None:
    """Let web pages of these origins read by signed URLs, and send parts of uploads. The bucket's other rules stay.

    Raises StorageError, also when the server has no such rules.
    """
    rule = {
        "ID": PAGES_RULE,
        "AllowedOrigins": list(origins),
        "AllowedMethods": ["GET", "HEAD", "PUT"],
        "AllowedHeaders": ["*"],
        "ExposeHeaders": list(PAGES_READ),
        "MaxAgeSeconds": 7200,
    }
    try:
        rules = [other for other in _pages_rules(connection) if other.get("ID") != PAGES_RULE]
        connection.client.put_bucket_cors(
            Bucket=connection.bucket, CORSConfiguration={"CORSRules": [*rules, rule]}
        )
    except S3_ERRORS as error:
        raise explain(error, connection) from error


def _is_there(connection: S3Connection) -> bool:
    try:
        connection.client.head_bucket(Bucket=connection.bucket)
    except ClientError as error:
        if code_of(error) in ("404", "NoSuchBucket"):
            return False
        raise
    return True


def _pages_rules(connection: S3Connection) -> list[dict[str, Any]]:
    try:
        answer = connection.client.get_bucket_cors(Bucket=connection.bucket)
    except ClientError as error:
        if code_of(error) == _NO_PAGES:
            return []
        raise
    return list(answer.get("CORSRules", []))


def _rules(connection: S3Connection) -> list[dict[str, Any]]:
    try:
        answer = connection.client.get_bucket_lifecycle_configuration(Bucket=connection.bucket)
    except ClientError as error:
        if code_of(error) == _NO_RULES:
            return []
        raise
    return list(answer.get("Rules", []))
