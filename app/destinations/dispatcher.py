"""Sends finished results to their users' destinations, each by one PUT, straight from the storage.

Apart from the dispatcher of webhooks, because a result may take minutes. One that is sent twice after a crash is the
same object.
"""

import re
import time
from collections.abc import Iterator

import httpx
import structlog

from app.destinations.ledger import REMOVED, ClaimedDestination, DestinationLedger
from app.http.metrics import destination_attempts
from app.http.resources import Resources
from app.platform.byte_sizes import GIB
from app.platform.deliveries import AttemptResult
from app.platform.dispatcher import LOOK_SECONDS, Dispatcher, DispatchLimits
from app.platform.errors import KeyNotFound, OutboundError, OutboundTimeout, RegenError, StorageError
from app.platform.outbound import guarded_client, outbound_errors

LEASE_SECONDS = 60.0
# The longest pause of a receiver that takes nothing, or does not answer.
STALL_SECONDS = 60.0
# A receiver that is slower than this, after a while, holds a place that others wait for.
LEAST_BYTES_PER_SECOND = 64 * 1024
PATIENCE_SECONDS = 60.0
MOST_ANSWER_BYTES = 4096
# Another attempt may be answered otherwise.
PASSING_STATUSES = frozenset({408, 409, 423, 425, 429})
# S3 and its like take no more in one request.
MOST_BYTES_OF_S3 = 5 * GIB

NOT_READ = "The result could not be read from the storage."
TOO_SLOW = f"It took less than {LEAST_BYTES_PER_SECOND // 1024} KiB a second."
STOPPING = "The server stops."

log = structlog.get_logger(__name__)


class DestinationDispatcher(Dispatcher[ClaimedDestination, AttemptResult]):
    """Breaks off what it sends when it stops."""

    def __init__(self, resources: Resources, *, look_seconds: float = LOOK_SECONDS) -> None:
        most = resources.settings.destination_concurrency
        super().__init__(
            DestinationLedger(database=resources.database, lease_seconds=LEASE_SECONDS),
            name="destinations",
            limits=DispatchLimits(most=most, per_user=max(1, most // 4), scarce=most // 2),
            attempts=destination_attempts,
            look_seconds=look_seconds,
            renews=True,
        )
        self._resources = resources

    def attempt(self, claimed: ClaimedDestination) -> AttemptResult | None:
        result = self._result(claimed)
        return None if self._stopping.is_set() else result

    def _result(self, claimed: ClaimedDestination) -> AttemptResult:
        try:
            size_bytes = self._resources.storage.stat(claimed.storage_key).size_bytes
            return self._put(claimed, size_bytes)
        except OutboundError as error:
            return AttemptResult(error=error.message, detail=error.detail)
        except KeyNotFound as error:
            return AttemptResult(error=REMOVED, detail=error.detail, is_final=True)
        except StorageError as error:
            return AttemptResult(error=NOT_READ, detail=f"{error.message} {error.detail}")

    def _put(self, claimed: ClaimedDestination, size_bytes: int) -> AttemptResult:
        settings = self._resources.settings
        with (
            outbound_errors(),
            guarded_client(
                allowed_networks=settings.outbound_allowed_networks,
                total_seconds=settings.destination_timeout_seconds,
                read_seconds=STALL_SECONDS,
                cancelled=lambda: self.is_given_up(claimed),
            ) as client,
            client.stream(
                "PUT",
                claimed.url,
                content=self._bytes_of(claimed),
                headers={"Content-Type": claimed.content_type, "Content-Length": str(size_bytes)},
            ) as answer,
        ):
            return _result(answer, size_bytes)

    def _bytes_of(self, claimed: ClaimedDestination) -> Iterator[bytes]:
        started, sent = time.monotonic(), 0
        for block in self._resources.storage.read(claimed.storage_key):
            if self.is_given_up(claimed):
                raise OutboundError(STOPPING)
            elapsed = time.monotonic() - started
            if elapsed > PATIENCE_SECONDS and sent < LEAST_BYTES_PER_SECOND * elapsed:
                raise OutboundTimeout(TOO_SLOW)
            yield block
            sent += len(block)

    def tell_outage(self, error: Exception) -> None:
        if isinstance(error, RegenError):
            log.warning("destinations_not_looked_for", error=error.message, detail=error.detail)
        else:
            log.exception("destinations_not_looked_for")

    def tell_lost(self, claimed: ClaimedDestination) -> None:
        log.exception("result_delivery_lost", render_id=claimed.id)

    def tell_kept(self, claimed: ClaimedDestination, error: RegenError) -> None:
        log.warning("result_not_given_back", render_id=claimed.id, error=error.message)


def _result(answer: httpx.Response, size_bytes: int) -> AttemptResult:
    """What the answer to a PUT means. Of its body the code of an S3 error alone is read."""
    status = answer.status_code
    if 200 <= status < 300:
        return AttemptResult()
    said = b""
    for chunk in answer.iter_raw(MOST_ANSWER_BYTES):
        said += chunk
        if len(said) >= MOST_ANSWER_BYTES:
            break
    code = re.search(rb"<Code>([A-Za-z]{1,60})</Code>", said[:MOST_ANSWER_BYTES])
    told = f"It answered {status}{f' ({code[1].decode()})' if code else ''}."
    if 300 <= status < 400:
        told += " Redirects are not followed."
    if size_bytes > MOST_BYTES_OF_S3:
        told += f" The result has {size_bytes / GIB:.1f} GiB; S3 takes at most 5 in one request."
    return AttemptResult(error=told, is_final=status < 500 and status not in PASSING_STATUSES)
