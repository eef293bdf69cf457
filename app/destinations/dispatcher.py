"""Sends finished results to their users' destinations, each by one PUT, straight from the storage.

Every API server has one dispatcher, apart from that of webhooks: a result may take minutes. Claims in the database
ensure that one process at a time sends a result; one that is sent twice after a crash is the same object.
"""

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import structlog

from app.destinations.ledger import REMOVED, ClaimedDestination, DestinationLedger, PutResult
from app.http.resources import Resources
from app.platform.byte_sizes import GIB
from app.platform.errors import KeyNotFound, OutboundError, OutboundTimeout, RegenError, StorageError
from app.platform.outbound import guarded_client, outbound_errors
from app.platform.retry_policies import WEBHOOK_DISPATCH

LOOK_SECONDS = 1.0
LEASE_SECONDS = 60.0
# The longest pause of a receiver that takes nothing, or does not answer.
STALL_SECONDS = 60.0
# A receiver that is slower than this, after a while, holds a place that others wait for.
LEAST_BYTES_PER_SECOND = 64 * 1024
PATIENCE_SECONDS = 60.0
MOST_ANSWER_BYTES = 4096
# When stopping, so long for giving back what is in hand.
GIVE_BACK_SECONDS = 5.0
# Another attempt may be answered otherwise.
PASSING_STATUSES = frozenset({408, 409, 423, 425, 429})
# S3 and its like take no more in one request.
MOST_BYTES_OF_S3 = 5 * GIB

NOT_READ = "The result could not be read from the storage."
TOO_SLOW = f"It took less than {LEAST_BYTES_PER_SECOND // 1024} KiB a second."
STOPPING = "The server stops."

log = structlog.get_logger(__name__)


class DestinationDispatcher:
    """Sends nothing if `REGEN_DESTINATION_CONCURRENCY` is 0."""

    def __init__(self, resources: Resources, *, look_seconds: float = LOOK_SECONDS) -> None:
        self.ledger = DestinationLedger(database=resources.database, lease_seconds=LEASE_SECONDS)
        self._resources = resources
        self._look_seconds = look_seconds
        self._most = resources.settings.destination_concurrency
        # Of all users: receivers that failed last time leave room for the others.
        self._most_failing = max(1, self._most // 2)
        self._in_hand: dict[str, ClaimedDestination] = {}
        self._lost: set[str] = set()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._kept_at = 0.0

    def start(self) -> None:
        if self._most == 0:
            return
        self._thread = threading.Thread(target=self._run, name="destinations", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Begin no further attempt, break off those in progress and give them back. Returns within seconds."""
        self._stopping.set()
        self._wake.set()
        if self._thread is None:
            return
        self._thread.join(GIVE_BACK_SECONDS)
        # If the database does not answer, the leases expire.
        giving_back = threading.Thread(target=self._give_back, name="destinations-end", daemon=True)
        giving_back.start()
        giving_back.join(GIVE_BACK_SECONDS)

    def _run(self) -> None:
        trouble: type[Exception] | None = None
        while not self._stopping.is_set():
            self._wake.clear()
            pause = self._look_seconds
            try:
                self._keep()
                self._look()
                trouble = None
            except Exception as error:
                # No error may end the thread. Each outage is logged once.
                pause = max(pause, WEBHOOK_DISPATCH.pause(1))
                if trouble is not type(error):
                    log.warning("destinations_not_looked_for", error=str(error), exc_info=True)
                trouble = type(error)
            self._wake.wait(pause)

    def _keep(self) -> None:
        """Renew the leases of what is being sent."""
        now = time.monotonic()
        if now - self._kept_at < LEASE_SECONDS / 4:
            return
        self._kept_at = now
        for claimed in self._held():
            if not self.ledger.keep(claimed):
                with self._lock:
                    self._lost.add(claimed.id)

    def _look(self) -> None:
        """Claim and send what is due, within the limits."""
        while not self._stopping.is_set():
            held = self._held()
            users = Counter(claimed.user_id for claimed in held)
            room = self._most - len(held)
            if room <= 0:
                return
            share = self._share(room)
            due = self.ledger.due(
                limit=1,
                but_users=[user for user, count in users.items() if count >= share],
                but_failing=sum(claimed.is_failing for claimed in held) >= self._most_failing,
            )
            if not due:
                return
            claimed = self.ledger.claim(due[0])
            if claimed is not None:
                with self._lock:
                    self._in_hand[claimed.id] = claimed
                name = f"destination-{claimed.id}"
                threading.Thread(target=self._deliver, args=(claimed,), name=name, daemon=True).start()

    def _share(self, room: int) -> int:
        """How many a user may have in hand: a quarter, and of the last half of the places one, so that users whose
        receivers are slow leave places to others."""
        return 1 if room <= self._most // 2 else max(1, self._most // 4)

    def _held(self) -> list[ClaimedDestination]:
        with self._lock:
            return list(self._in_hand.values())

    def _deliver(self, claimed: ClaimedDestination) -> None:
        try:
            result = self._attempt(claimed)
            if not self._stopping.is_set():
                self._note(claimed, result)
        except Exception:
            # The lease expires, and it is sent again.
            log.exception("result_delivery_lost", render_id=claimed.id)
        finally:
            with self._lock:
                self._in_hand.pop(claimed.id, None)
                self._lost.discard(claimed.id)
            self._wake.set()

    def _attempt(self, claimed: ClaimedDestination) -> PutResult:
        storage = self._resources.storage
        try:
            size_bytes = storage.stat(claimed.storage_key).size_bytes
            return self._put(claimed, size_bytes)
        except OutboundError as error:
            return PutResult(error=error.message, detail=error.detail)
        except KeyNotFound as error:
            return PutResult(error=REMOVED, detail=error.detail, is_final=True)
        except StorageError as error:
            return PutResult(error=NOT_READ, detail=f"{error.message} {error.detail}")

    def _put(self, claimed: ClaimedDestination, size_bytes: int) -> PutResult:
        settings = self._resources.settings
        with (
            outbound_errors(),
            guarded_client(
                allowed_networks=settings.outbound_allowed_networks,
                total_seconds=settings.destination_timeout_seconds,
                read_seconds=STALL_SECONDS,
                cancelled=lambda: self._is_given_up(claimed),
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
            if self._is_given_up(claimed):
                raise OutboundError(STOPPING)
            elapsed = time.monotonic() - started
            if elapsed > PATIENCE_SECONDS and sent < LEAST_BYTES_PER_SECOND * elapsed:
                raise OutboundTimeout(TOO_SLOW)
            yield block
            sent += len(block)

    def _is_given_up(self, claimed: ClaimedDestination) -> bool:
        return self._stopping.is_set() or claimed.id in self._lost

    def _note(self, claimed: ClaimedDestination, result: PutResult) -> None:
        """Record the result; tries again while the database is away, because otherwise the result is sent twice."""
        until = time.monotonic() + LEASE_SECONDS
        while True:
            try:
                self.ledger.note(claimed, result)
                return
            except RegenError:
                if self._stopping.wait(LOOK_SECONDS) or time.monotonic() > until:
                    raise

    def _give_back(self) -> None:
        for claimed in self._held():
            try:
                self.ledger.give_back(claimed)
            except RegenError as error:
                log.warning("result_not_given_back", render_id=claimed.id, error=error.message)


def _result(answer: httpx.Response, size_bytes: int) -> PutResult:
    """What the answer to a PUT means. Of its body the code of an S3 error alone is read."""
    status = answer.status_code
    if 200 <= status < 300:
        return PutResult()
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
    return PutResult(error=told, is_final=status < 500 and status not in PASSING_STATUSES)
