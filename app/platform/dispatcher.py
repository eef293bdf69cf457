"""The thread that finds deliveries that are due, claims them, and makes each attempt in a thread of its own.

Every server has one for each kind of delivery. Claims in the database ensure that one process at a time sends a
delivery.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from typing import Generic

import prometheus_client

from app.platform.deliveries import C, Claimed, DeliveryLedger, DueDelivery, Full, R
from app.platform.errors import RegenError
from app.platform.retry_policies import DISPATCH

LOOK_SECONDS = 1.0
# When stopping, so long for giving back what is in hand.
GIVE_BACK_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class DispatchLimits:
    """How many deliveries may be in hand: in all, of a user, of those that are failing, and for a receiver.

    Of the last `scarce` places a user has one, so that users together, however slow their receivers, leave places to
    others. `per_receiver` is None where receivers are not counted.
    """

    most: int
    per_user: int
    scarce: int
    per_receiver: int | None = None

    @property
    def failing(self) -> int:
        """Of all users: receivers that failed last time leave room for the others."""
        return max(1, self.most // 2)


@dataclass(kw_only=True)
class _Load:
    """How many deliveries are in hand: for each user and host, for each user, and of those that are failing."""

    limits: DispatchLimits
    receivers: Counter[tuple[str, str]] = field(default_factory=Counter)
    users: Counter[str] = field(default_factory=Counter)
    failing: int = 0

    def add(self, one: DueDelivery) -> None:
        if self.limits.per_receiver is not None:
            self.receivers[one.user_id, one.host] += 1
        self.users[one.user_id] += 1
        self.failing += one.is_failing

    @property
    def room(self) -> int:
        return self.limits.most - self.users.total()

    @property
    def full(self) -> Full:
        share = 1 if self.room <= self.limits.scarce else self.limits.per_user
        per_receiver = self.limits.per_receiver or 0
        return Full(
            users={user for user, count in self.users.items() if count >= share},
            receivers={one for one, count in self.receivers.items() if count >= per_receiver},
            failing=self.failing >= self.limits.failing,
        )

    def has_room_for(self, due: DueDelivery) -> bool:
        full = self.full
        return (
            due.user_id not in full.users
            and (due.user_id, due.host) not in full.receivers
            and not (due.is_failing and full.failing)
        )


class Dispatcher(ABC, Generic[C, R]):
    """Looks about once a second, in a thread with the `name`; with no place at all (`limits`) it sends nothing.

    `attempts` counts attempts by `outcome`. When stopping, attempts have `grace_seconds` to end; then their deliveries
    are given back. `renews`: attempts may outlast their leases, which are renewed meanwhile.
    """

    def __init__(
        self,
        ledger: DeliveryLedger[C, R],
        *,
        name: str,
        limits: DispatchLimits,
        attempts: prometheus_client.Counter,
        look_seconds: float,
        grace_seconds: float = 0.0,
        renews: bool = False,
    ) -> None:
        self.ledger = ledger
        self._name = name
        self._limits = limits
        self._attempts = attempts
        self._look_seconds = look_seconds
        self._grace_seconds = grace_seconds
        self._renews = renews
        self._renewed_at = 0.0
        self._in_hand: dict[str, C] = {}
        self._lost: set[str] = set()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._trouble: type[Exception] | None = None

    def start(self) -> None:
        """Start looking for deliveries. Does nothing if this process sends none."""
        if self._limits.most == 0:
            return
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Begin no further attempt, and give back what does not end at once. Returns within seconds."""
        self._stopping.set()
        self._wake.set()
        if self._thread is None:
            return
        self._thread.join(GIVE_BACK_SECONDS)
        deadline = time.monotonic() + self._grace_seconds
        while self._in_hand and time.monotonic() < deadline:
            time.sleep(0.02)
        # If the database does not answer, the leases expire.
        giving_back = threading.Thread(target=self._give_back, name=f"{self._name}-end", daemon=True)
        giving_back.start()
        giving_back.join(GIVE_BACK_SECONDS)

    @abstractmethod
    def attempt(self, claimed: C) -> R | None:
        """Send the delivery. None when that was broken off because it `is_given_up`."""

    @abstractmethod
    def tell_outage(self, error: Exception) -> None:
        """Log that deliveries could not be looked for. Called once for each outage."""

    @abstractmethod
    def tell_lost(self, claimed: C) -> None:
        """Log the error in progress, for which a result was not recorded."""

    @abstractmethod
    def tell_kept(self, claimed: C, error: RegenError) -> None:
        """Log that a delivery was not given back: its lease will expire."""

    def is_given_up(self, claimed: Claimed) -> bool:
        """Whether this process stops, or lost the lease."""
        return self._stopping.is_set() or claimed.id in self._lost

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            pause = self._look_seconds
            try:
                self._renew()
                self._look()
                self._trouble = None
            except Exception as error:
                # No error may end the thread.
                pause = max(pause, DISPATCH.pause(1))
                trouble, self._trouble = self._trouble, type(error)
                if trouble is not type(error):
                    self.tell_outage(error)
            self._wake.wait(pause)

    def _renew(self) -> None:
        now = time.monotonic()
        if not self._renews or now - self._renewed_at < self.ledger.lease_seconds / 4:
            return
        self._renewed_at = now
        for claimed in self._held():
            if not self.ledger.keep(claimed):
                with self._lock:
                    self._lost.add(claimed.id)

    def _look(self) -> None:
        """Claim and send what is due, within the limits."""
        while not self._stopping.is_set():
            load = _Load(limits=self._limits)
            for claimed in self._held():
                load.add(claimed)
            if load.room <= 0:
                return
            due = self.ledger.due(limit=load.room, full=load.full)
            if not due:
                return
            for one in due:
                if load.has_room_for(one) and not self._stopping.is_set():
                    load.add(one)
                    self._take(one)

    def _held(self) -> list[C]:
        with self._lock:
            return list(self._in_hand.values())

    def _take(self, due: DueDelivery) -> None:
        claimed = self.ledger.claim(due)
        if claimed is None:
            return
        with self._lock:
            self._in_hand[claimed.id] = claimed
        name = f"{self._name}-{claimed.id}"
        try:
            threading.Thread(target=self._deliver, args=(claimed,), name=name, daemon=True).start()
        except RuntimeError:  # No thread is left; the lease will expire.
            self._put_down(claimed)
            raise

    def _put_down(self, claimed: C) -> None:
        with self._lock:
            self._in_hand.pop(claimed.id, None)
            self._lost.discard(claimed.id)

    def _deliver(self, claimed: C) -> None:
        try:
            result = self.attempt(claimed)
            if result is not None:
                self._attempts.labels(outcome="failed" if result.error else "delivered").inc()
                self._note(claimed, result)
        except Exception:
            # The lease expires, and the delivery is tried again.
            self.tell_lost(claimed)
        finally:
            self._put_down(claimed)
            # Another may wait for this place.
            self._wake.set()

    def _note(self, claimed: C, result: R) -> None:
        """Record the result; tries again while the database is away, because otherwise it is sent twice."""
        until = time.monotonic() + self.ledger.lease_seconds
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
                self.tell_kept(claimed, error)
