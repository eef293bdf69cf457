"""How the mock behaves: how renders move on, and what its answers repeat."""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Self

from app.platform.errors import InvalidRequest
from app.platform.settings import Settings

KEY = "regen_mock_key"
ADMIN_KEY = "regen_mock_admin_key"
USER_NAME = "mock"

FIRST_MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
LONGEST_SECONDS = 3600.0
MOST_POLLS = 1000
_TRANSITIONS = re.compile(r"(?P<kind>instant)|(?P<timed>seconds|polls):(?P<amount>[0-9]+(\.[0-9]+)?)")


class Pace(StrEnum):
    """`instant`: a render has ended before anybody looks. `seconds` and `polls`: how long each status lasts."""

    INSTANT = "instant"
    SECONDS = "seconds"
    POLLS = "polls"


@dataclass(frozen=True, kw_only=True)
class Transitions:
    """When a render moves on: `amount` seconds, or that many GETs of it, after it came into its present status."""

    pace: Pace = Pace.INSTANT
    amount: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of `instant`, `seconds:2`, `polls:3`. Raises InvalidRequest for anything else."""
        found = _TRANSITIONS.fullmatch(text)
        fault = InvalidRequest("`transitions` must be like instant, seconds:1.5 or polls:2.")
        if found is None:
            raise fault
        if found["kind"]:
            return cls()
        pace, amount = Pace(found["timed"]), float(found["amount"])
        if pace is Pace.POLLS and not (amount.is_integer() and 1 <= amount <= MOST_POLLS):
            raise fault
        if not math.isfinite(amount) or amount > LONGEST_SECONDS:
            raise fault
        return cls(pace=pace, amount=amount)

    def __str__(self) -> str:
        return "instant" if self.pace is Pace.INSTANT else f"{self.pace.value}:{self.amount:g}"


@dataclass(frozen=True, kw_only=True)
class MockOptions:
    """`clock` is the moment of the first request; None for the machine's own time."""

    seed: int = 0
    clock: datetime | None = None
    transitions: Transitions = Transitions()

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Raises InvalidRequest for transitions that are none."""
        return cls(
            seed=settings.mock_seed,
            clock=None if settings.mock_clock is None else in_utc(settings.mock_clock),
            transitions=Transitions.parse(settings.mock_transitions),
        )


def in_utc(moment: datetime) -> datetime:
    """One without a time zone is taken for UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
