"""How long to wait before another attempt, and how many: the type, and every policy of the code."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Self

_random = random.SystemRandom()


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """The pause before each retry in a row: `steps_seconds` in turn, then the last of them again and again.

    Each is multiplied by a random factor from the range `jitter`.
    """

    steps_seconds: tuple[float, ...]
    jitter: tuple[float, float] = (1.0, 1.0)

    @classmethod
    def exponential(
        cls, first: float, longest: float, *, factor: float = 2.0, jitter: tuple[float, float] = (1.0, 1.0)
    ) -> Self:
        """From `first` seconds, each pause `factor` times the one before, up to `longest` seconds."""
        steps = []
        while first < longest:
            steps.append(first)
            first *= factor
        return cls(steps_seconds=(*steps, longest), jitter=jitter)

    @property
    def longest_seconds(self) -> float:
        """The last pause, without jitter."""
        return self.steps_seconds[-1]

    def pause(self, retry: int) -> float:
        """Seconds to wait before that retry in a row; the first is 1."""
        return self.steps_seconds[min(retry, len(self.steps_seconds)) - 1] * _random.uniform(*self.jitter)

    def pauses(self) -> Iterator[float]:
        """The pauses of one row of retries. Never ends."""
        return map(self.pause, count(1))


class RetryRow:
    """The retries of one policy in a row, counted until `reset`. Not thread-safe."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self.retries = 0

    def next_pause(self) -> float:
        """Seconds to wait before the next retry in this row."""
        self.retries += 1
        return self._policy.pause(self.retries)

    def reset(self) -> None:
        self.retries = 0


# A unit of work whose attempt failed; that met an outage; whose lease expired for the second time or more.
WORK_FAILED = RetryPolicy.exponential(2.0, 300.0)
WORK_OUTAGE = RetryPolicy.exponential(2.0, 60.0, jitter=(0.75, 1.0))
WORK_LEASE_EXPIRED = RetryPolicy.exponential(2.0, 60.0)
# A lease expires, and ffmpeg is killed, for many reasons, most of them unrelated to the work: so many count as one
# failure. In a storm, which ends work of all kinds, so many, which take twenty minutes for three failures.
EXPIRIES_PER_FAILURE = 3
EXPIRIES_PER_FAILURE_IN_A_STORM = 9
# A worker that met an outage, before its next claim: this machine may be the only one that lacks something.
WORKER_OUTAGE = RetryPolicy.exponential(2.0, 15.0)
# The self-tests of a worker whose units fail while others' are done.
QUARANTINE = RetryPolicy(steps_seconds=(1.0, 15.0, 60.0, 120.0, 300.0))
# A call to storage or database that a worker repeats with the work in hand.
OUTAGE_RETRY = RetryPolicy.exponential(0.5, 5.0, jitter=(0.75, 1.0))

PREVIEW_FAILED = RetryPolicy(steps_seconds=tuple(2.0 * failures for failures in range(1, 1001)))
PREVIEW_OUTAGE = RetryPolicy(steps_seconds=(5.0,))

# As Standard Webhooks recommends, and one after 45 s, for a receiver that restarts: three days and a bit, eleven
# attempts in all. After the last step it is given up.
WEBHOOK_DELIVERY = RetryPolicy(
    steps_seconds=(5.0, 45.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0),
    jitter=(1.0, 1.1),
)
# A result on its way to its user's destination: nine attempts in eight hours; a presigned URL rarely lives longer.
DESTINATION_DELIVERY = RetryPolicy(
    steps_seconds=(5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 14_400.0), jitter=(1.0, 1.1)
)
# A dispatcher after a round that failed.
DISPATCH = RetryPolicy(steps_seconds=(5.0,))

# A GET that was answered 503 because of the database.
READ_RETRY = RetryPolicy.exponential(0.1, 2.0, jitter=(0.5, 1.5))
# The check whether a render or preview has ended, for a client that waits for it.
HELD_ANSWER = RetryPolicy.exponential(0.1, 0.75, factor=1.5)

# A child process of the supervisor that has ended.
CHILD_RESTART = RetryPolicy.exponential(1.0, 30.0)


def preview_poll(interval_seconds: float) -> RetryPolicy:
    """A worker's look for previews, which happens every `interval_seconds`, after one that the database refused."""
    return RetryPolicy.exponential(2 * interval_seconds, 10.0)
