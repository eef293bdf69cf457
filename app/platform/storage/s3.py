"""Storage in a bucket of an S3-compatible server."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from s3transfer.manager import TransferConfig, TransferManager

from app.platform.errors import KeyNotFound, StorageError
from app.platform.storage.attachment import attachment
from app.platform.storage.contract import ListedObject, ReceivedPart, StoredObject
from app.platform.storage.keys import check_key, check_prefix, is_key
from app.platform.storage.s3_connection import S3Connection
from app.platform.storage.s3_errors import S3_ERRORS, explain, storage_errors

CHUNK_BYTES = 1024**2
DEFAULT_CONTENT_TYPE = "application/octet-stream"
# What was downloaded and waits for the disk, in pieces of 256 KiB.
WAITING_PIECES = 64
# Names that no key can have; what a check that was cut off left behind is no object.
PROBE_PREFIX = ".check-"


class S3Storage:
    """See Storage. `base_url` of signed URLs is ignored: clients download from the S3 server itself."""

    def __init__(self, connection: S3Connection) -> None:
        self.connection = connection
        self._bucket = connection.bucket
        self._client = connection.client
        self._brief = connection.brief

    def put_file(self, key: str, path: Path, *, content_type: str) -> None:
        name = self._name(key)
        with storage_errors("The file could not be stored."):
            with self._transfer() as transfer:
                transfer.upload(str(path), self._bucket, name, {"ContentType": content_type}).result()
            path.unlink(missing_ok=True)

    def fetch(self, key: str, path: Path) -> None:
        name = self._name(key)
        with storage_errors("The stored file could not be fetched."):
            # Into a name of its own beside `path`, which is renamed when complete. A connection that breaks costs
            # the part that was on its way.
            with self._transfer() as transfer:
                future = transfer.download(self._bucket, name, str(path))
                future.result()
            got_bytes = path.stat().st_size
        if got_bytes != future.meta.size:
            path.unlink()
            raise StorageError(
                "The stored file could not be fetched.", detail=f"{got_bytes} of {future.meta.size} bytes"
            )

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
            # A header that is signed: the server takes no other size.
            "ContentLength": size_bytes,
        }
        with storage_errors("The part's address could not be signed."):
            url: str = self.connection.signer.generate_presigned_url(
                "upload_part", Params=asked, ExpiresIn=lifetime_seconds
            )
        return url

    def list_parts(self, key: str, multipart_id: str) -> Sequence[ReceivedPart]:
        with storage_errors("The upload's parts could not be listed."):
            pages = self._client.get_paginator("list_parts").paginate(**self._multipart(key, multipart_id))
            return [
                ReceivedPart(
                    number=found["PartNumber"], etag=found["ETag"].strip('"'), size_bytes=found["Size"]
                )
                for page in pages
                for found in page.get("Parts", [])
            ]

    def complete_parts(self, key: str, multipart_id: str, parts: Sequence[ReceivedPart]) -> None:
        named = [{"PartNumber": part.number, "ETag": f'"{part.etag}"'} for part in parts]
        with storage_errors("The upload's parts could not be put together."):
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
                # Without this right a missing file looks like a forbidden one.
                self._brief.list_objects_v2(Bucket=self._bucket, Prefix=name, MaxKeys=1)
            finally:
                self._brief.delete_object(Bucket=self._bucket, Key=name)
        except S3_ERRORS as error:
            raise explain(error, self.connection) from error
        if read != content:
            raise StorageError("The S3 server does not give back what is written to it.")

    def _name(self, key: str) -> str:
        check_key(key)
        return self.connection.prefix + key

    def _multipart(self, key: str, multipart_id: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._name(key), "UploadId": multipart_id}

    def _transfer(self) -> TransferManager:
        """One for each transfer, so that none waits for another's parts. It ends when everything in it has ended."""
        tuning = self.connection.tuning
        return TransferManager(
            self._client,
            TransferConfig(
                multipart_threshold=tuning.part_bytes,
                multipart_chunksize=tuning.part_bytes,
                max_request_concurrency=tuning.concurrency,
                max_io_queue_size=WAITING_PIECES,
            ),
        )

    def _list(self, start: str) -> Iterator[ListedObject]:
        pages = iter(
            self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=start)
        )
        while True:
            with storage_errors("The storage could not be listed."):
                page = next(pages, None)
            if page is None:
                return
            for found in page.get("Contents", []):
                key = found["Key"].removeprefix(self.connection.prefix)
                # Others may keep things of theirs in the bucket.
                if is_key(key):
                    yield ListedObject(key=key, size_bytes=found["Size"], modified_at=found["LastModified"])


def _folder(name: str) -> str:
    """With its slash; empty where there is none."""
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
