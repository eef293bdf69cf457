"""Storage in a bucket of an S3-compatible server."""

import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from s3transfer.manager import TransferConfig, TransferManager
from s3transfer.subscribers import BaseSubscriber

from app.platform.errors import AccessRefused, KeyNotFound, StorageError
from app.platform.progress import current_progress
from app.platform.storage.contract import ListedObject, StoredObject, StoredPart, attachment
from app.platform.storage.keys import check_key, check_prefix, is_key
from app.platform.storage.s3_connection import S3_ERRORS, S3Connection, code_of, explain, storage_errors

CHUNK_BYTES = 1024**2
DEFAULT_CONTENT_TYPE = "application/octet-stream"
# Downloaded pieces of 256 KiB that wait for the disk.
MAX_WAITING_PIECES = 64
# Objects removed by one request.
MOST_DELETED_AT_ONCE = 1000
# No key can have such a name, so what an interrupted check leaves behind is not listed.
PROBE_PREFIX = ".check-"

LIFECYCLE_RULE = "regen-abort-incomplete-uploads"
ABORT_AFTER_DAYS = 2

CORS_RULE = "regen-web-pages"
# Response headers that a page may read; the ETag identifies an uploaded part.
CORS_EXPOSED_HEADERS = ("Accept-Ranges", "Content-Disposition", "Content-Range", "ETag")

_DENIED = "AccessDenied"
_ALREADY_OURS = "BucketAlreadyOwnedByYou"
_NO_LIFECYCLE = "NoSuchLifecycleConfiguration"
_NO_CORS = "NoSuchCORSConfiguration"


class S3Storage:
    """See Storage. `base_url` of signed URLs is ignored: clients download from the S3 server itself.

    Its signatures hold for one method, so HEAD of a URL is refused. URLs of the API's own that redirect to one for the
    request's method would allow it, but a client that follows no redirects (`curl` without `-L`) would save nothing.
    """

    def __init__(self, connection: S3Connection) -> None:
        self.connection = connection
        self._bucket = connection.bucket
        self._client = connection.client
        self._brief = connection.brief_client

    @property
    def links_files(self) -> bool:
        return False

    def put_file(self, key: str, path: Path, *, content_type: str) -> None:
        name = self._name(key)
        with storage_errors("The file could not be stored."):
            with self._transfer() as transfer:
                extra = {"ContentType": content_type}
                transfer.upload(str(path), self._bucket, name, extra, [_Beats()]).result()
            path.unlink(missing_ok=True)

    def fetch(self, key: str, path: Path, *, in_parts: bool = True) -> None:
        name = self._name(key)
        if not in_parts:
            self._fetch_at_once(name, path)
            return
        with storage_errors("The stored file could not be fetched."):
            # boto3 writes to a temporary name and renames it at the end. A broken connection costs the part in flight.
            with self._transfer() as transfer:
                future = transfer.download(self._bucket, name, str(path), subscribers=[_Beats()])
                future.result()
            got_bytes = path.stat().st_size
        if got_bytes != future.meta.size:
            path.unlink()
            raise StorageError(
                "The stored file could not be fetched.", detail=f"{got_bytes} of {future.meta.size} bytes"
            )

    def _fetch_at_once(self, name: str, path: Path) -> None:
        part = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        try:
            with storage_errors("The stored file could not be fetched."):
                with self._body(name) as chunks, part.open("wb") as file:
                    for chunk in chunks:
                        file.write(chunk)
                        current_progress().beat()
                part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    @contextmanager
    def _body(self, name: str) -> Iterator[Iterator[bytes]]:
        """The object's bytes, of a single request. They raise an error if they are fewer than announced."""
        single = self.connection.single_requests
        if single is not None and (answer := single.get(name)) is not None:
            with answer as whole:
                yield whole.stream(CHUNK_BYTES)
            return
        with closing(self._client.get_object(Bucket=self._bucket, Key=name)["Body"]) as body:
            yield body.iter_chunks(CHUNK_BYTES)

    def read(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        size_bytes = self.stat(key).size_bytes
        end = size_bytes if length is None else min(size_bytes, offset + length)
        if offset >= end:
            return iter(())
        asked = {} if end - offset == size_bytes else {"Range": f"bytes={offset}-{end - 1}"}
        with storage_errors("The stored file could not be read."):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._name(key), **asked)
        if answer["ContentLength"] != end - offset:
            answer["Body"].close()
            raise StorageError(
                "The stored file could not be read.", detail="it is being replaced, or ranges are ignored"
            )
        return _chunks(answer["Body"])

    def stat(self, key: str) -> StoredObject:
        name = self._name(key)
        with storage_errors("The stored file could not be read."):
            found = self._brief.head_object(Bucket=self._bucket, Key=name)
        return StoredObject(
            key=key,
            size_bytes=found["ContentLength"],
            content_type=found.get("ContentType") or DEFAULT_CONTENT_TYPE,
            modified_at=found["LastModified"],
        )

    def list(self, prefix: str) -> Iterator[ListedObject]:
        check_prefix(prefix)
        return self._list(self.connection.prefix + prefix)

    def delete(self, key: str) -> None:
        name = self._name(key)
        with storage_errors("The stored file could not be removed."):
            self._client.delete_object(Bucket=self._bucket, Key=name)

    def delete_all(self, keys: Collection[str]) -> None:
        names = [{"Key": self._name(key)} for key in keys]
        sentence = "The stored files could not be removed."
        for start in range(0, len(names), MOST_DELETED_AT_ONCE):
            some = {"Objects": names[start : start + MOST_DELETED_AT_ONCE], "Quiet": True}
            with storage_errors(sentence):
                answer = self._client.delete_objects(Bucket=self._bucket, Delete=some)
            current_progress().beat()
            for refused in answer.get("Errors", []):
                kind = AccessRefused if refused.get("Code") == _DENIED else StorageError
                raise kind(sentence, detail=f"{refused.get('Key')}: {refused.get('Code')}")

    def signed_url(self, key: str, *, base_url: str, file_name: str, lifetime_seconds: int) -> str:
        asked = {
            "Bucket": self._bucket,
            "Key": self._name(key),
            "ResponseContentDisposition": attachment(file_name),
        }
        with storage_errors("The stored file's address could not be signed."):
            url: str = self.connection.signer.generate_presigned_url(
                "get_object", Params=asked, ExpiresIn=lifetime_seconds
            )
        return url

    def open_parts(self, key: str, *, content_type: str) -> str:
        name = self._name(key)
        with storage_errors("The upload could not be opened."):
            answer = self._client.create_multipart_upload(
                Bucket=self._bucket, Key=name, ContentType=content_type
            )
        multipart_id: str = answer["UploadId"]
        return multipart_id

    def signed_part_url(
        self,
        key: str,
        multipart_id: str,
        *,
        number: int,
        size_bytes: int,
        base_url: str,
        lifetime_seconds: int,
    ) -> str:
        asked = {
            **self._multipart(key, multipart_id),
            "PartNumber": number,
            # A signed header: the server refuses any other size.
            "ContentLength": size_bytes,
        }
        with storage_errors("The part's address could not be signed."):
            url: str = self.connection.signer.generate_presigned_url(
                "upload_part", Params=asked, ExpiresIn=lifetime_seconds
            )
        return url

    def list_parts(self, key: str, multipart_id: str) -> Sequence[StoredPart]:
        with storage_errors("The upload's parts could not be listed."):
            pages = self._client.get_paginator("list_parts").paginate(**self._multipart(key, multipart_id))
            return [
                StoredPart(
                    number=found["PartNumber"], etag=found["ETag"].strip('"'), size_bytes=found["Size"]
                )
                for page in pages
                for found in page.get("Parts", [])
            ]

    def complete_parts(self, key: str, multipart_id: str, parts: Sequence[StoredPart]) -> None:
        named = [{"PartNumber": part.number, "ETag": f'"{part.etag}"'} for part in parts]
        with storage_errors("The upload's parts could not be assembled."):
            self._client.complete_multipart_upload(
                **self._multipart(key, multipart_id), MultipartUpload={"Parts": named}
            )

    def abort_parts(self, key: str, multipart_id: str) -> None:
        with suppress(KeyNotFound), storage_errors("The upload's parts could not be removed."):
            self._client.abort_multipart_upload(**self._multipart(key, multipart_id))

    def check(self, *, beside: str | None = None) -> None:
        folder = self.connection.prefix if beside is None else _folder(self._name(beside))
        name = f"{folder}{PROBE_PREFIX}{secrets.token_hex(8)}"
        content = secrets.token_bytes(16)
        try:
            self._brief.put_object(Bucket=self._bucket, Key=name, Body=content)
            try:
                read = self._brief.get_object(Bucket=self._bucket, Key=name)["Body"].read()
                # Without the right to list, the server answers 403 for a missing file.
                self._brief.list_objects_v2(Bucket=self._bucket, Prefix=name, MaxKeys=1)
            finally:
                self._brief.delete_object(Bucket=self._bucket, Key=name)
        except S3_ERRORS as error:
            raise explain(error, self.connection) from error
        if read != content:
            raise StorageError("The S3 server does not return what was written to it.")

    def check_listing(self) -> None:
        """As `check`, by listing alone: nothing is written. Raises StorageError with a sentence for the operator."""
        try:
            self._brief.list_objects_v2(Bucket=self._bucket, Prefix=self.connection.prefix, MaxKeys=1)
        except S3_ERRORS as error:
            raise explain(error, self.connection) from error

    def _name(self, key: str) -> str:
        check_key(key)
        return self.connection.prefix + key

    def _multipart(self, key: str, multipart_id: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._name(key), "UploadId": multipart_id}

    def _transfer(self) -> TransferManager:
        """A manager for one transfer, so that no transfer waits for another's parts. Its exit waits for it."""
        options = self.connection.options
        return TransferManager(
            self._client,
            TransferConfig(
                multipart_threshold=options.part_bytes,
                multipart_chunksize=options.part_bytes,
                max_request_concurrency=options.concurrency,
                max_io_queue_size=MAX_WAITING_PIECES,
            ),
        )

    def _list(self, start: str) -> Iterator[ListedObject]:
        paginator = self._client.get_paginator("list_objects_v2")
        page_size = {"PageSize": self.connection.options.page_keys}
        pages = iter(paginator.paginate(Bucket=self._bucket, Prefix=start, PaginationConfig=page_size))
        while True:
            with storage_errors("The storage could not be listed."):
                page = next(pages, None)
            if page is None:
                return
            for found in page.get("Contents", []):
                key = found["Key"].removeprefix(self.connection.prefix)
                # The bucket may contain other objects too.
                if is_key(key):
                    yield ListedObject(key=key, size_bytes=found["Size"], modified_at=found["LastModified"])


class _Beats(BaseSubscriber):  # type: ignore[misc]
    """Beats the progress of the thread that starts a transfer, whose pieces move in other threads."""

    def __init__(self) -> None:
        self._progress = current_progress()

    def on_progress(self, future: Any, bytes_transferred: int, **_: Any) -> None:
        self._progress.beat()


def create_bucket(connection: S3Connection) -> bool:
    """Creates the bucket unless it exists; returns whether it did. Raises StorageError."""
    client, bucket = connection.client, connection.bucket
    try:
        if _exists(connection):
            return False
        # Servers other than AWS have their own location names, or none.
        needs_location = connection.endpoint_url is None and connection.region != "us-east-1"
        location = (
            {"CreateBucketConfiguration": {"LocationConstraint": connection.region}} if needs_location else {}
        )
        client.create_bucket(Bucket=bucket, **location)
    except S3_ERRORS as error:
        if isinstance(error, ClientError) and code_of(error) == _ALREADY_OURS:
            return False
        raise explain(error, connection) from error
    return True


def abort_incomplete_uploads(connection: S3Connection) -> None:
    """Adds a lifecycle rule that aborts multipart uploads which are incomplete after two days. Other rules stay.

    Raises StorageError, also when the server does not support lifecycle rules.
    """
    client, bucket = connection.client, connection.bucket
    try:
        rules = _existing_rules(
            client.get_bucket_lifecycle_configuration, bucket=bucket, field="Rules", absent=_NO_LIFECYCLE
        )
        if any(rule.get("ID") == LIFECYCLE_RULE for rule in rules):
            return
        rules.append(
            {
                "ID": LIFECYCLE_RULE,
                "Status": "Enabled",
                "Filter": {"Prefix": connection.prefix},
                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": ABORT_AFTER_DAYS},
            }
        )
        client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
    except S3_ERRORS as error:
        raise explain(error, connection) from error


def allow_origins(connection: S3Connection, origins: Sequence[str]) -> None:
    """Adds a CORS rule so that web pages of these origins can use signed URLs to read, and to send parts of uploads.

    Other rules stay. Raises StorageError, also when the server does not support CORS rules.
    """
    rule = {
        "ID": CORS_RULE,
        "AllowedOrigins": list(origins),
        "AllowedMethods": ["GET", "HEAD", "PUT"],
        "AllowedHeaders": ["*"],
        "ExposeHeaders": list(CORS_EXPOSED_HEADERS),
        "MaxAgeSeconds": 7200,
    }
    client, bucket = connection.client, connection.bucket
    try:
        rules = _existing_rules(client.get_bucket_cors, bucket=bucket, field="CORSRules", absent=_NO_CORS)
        others = [other for other in rules if other.get("ID") != CORS_RULE]
        client.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [*others, rule]})
    except S3_ERRORS as error:
        raise explain(error, connection) from error


def _folder(name: str) -> str:
    """The folder of an object's name with its slash; empty for a name without a slash."""
    return name[: name.rfind("/") + 1]


def _chunks(body: Any) -> Iterator[bytes]:
    try:
        while True:
            with storage_errors("The stored file could not be read."):
                chunk: bytes = body.read(CHUNK_BYTES)
            if not chunk:
                return
            yield chunk
    finally:
        body.close()


def _exists(connection: S3Connection) -> bool:
    try:
        connection.client.head_bucket(Bucket=connection.bucket)
    except ClientError as error:
        if code_of(error) in ("404", "NoSuchBucket"):
            return False
        raise
    return True


def _existing_rules(
    request: Callable[..., dict[str, Any]], *, bucket: str, field: str, absent: str
) -> list[dict[str, Any]]:
    """The rules in `field` of the answer; none where the server answers with the error code `absent`."""
    try:
        return list(request(Bucket=bucket).get(field, []))
    except ClientError as error:
        if code_of(error) == absent:
            return []
        raise
