"""The mock's options: when renders change status, and the seed and clock of its answers."""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Self

from app.platform.errors import InvalidRequest
from app.platform.settings import Settings

LONGEST_SECONDS = 3600.0
MOST_POLLS = 1000
_TRANSITIONS = re.compile(r"(?P<instant>instant)|(?P<mode>seconds|polls):(?P<amount>[0-9]+(\.[0-9]+)?)")


class TransitionMode(StrEnum):
    """The unit of a status's length; `instant`: every render has ended before the next request is answered."""

    INSTANT = "instant"
    SECONDS = "seconds"
    POLLS = "polls"


@dataclass(frozen=True, kw_only=True)
class Transitions:
    """Each status lasts `amount` seconds, or is shown by `amount` GETs of the render."""

    mode: TransitionMode = TransitionMode.INSTANT
    amount: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses `instant`, `seconds:2` or `polls:3`. Raises InvalidRequest for anything else."""
        found = _TRANSITIONS.fullmatch(text)
        invalid = InvalidRequest("`transitions` must be like instant, seconds:1.5 or polls:2.")
        if found is None:
            raise invalid
        if found["instant"]:
            return cls()
        mode, amount = TransitionMode(found["mode"]), float(found["amount"])
        if mode is TransitionMode.POLLS and not (amount.is_integer() and 1 <= amount <= MOST_POLLS):
            raise invalid
        if not math.isfinite(amount) or amount > LONGEST_SECONDS:
            raise invalid
        return cls(mode=mode, amount=amount)

    def __str__(self) -> str:
        return "instant" if self.mode is TransitionMode.INSTANT else f"{self.mode.value}:{self.amount:g}"


INSTANT = Transitions()


KEY = "regen_mock_key"
ADMIN_KEY = "regen_mock_admin_key"
USER_NAME = "mock"

FIRST_MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class MockOptions:
    """`clock` is the moment of the first request; None for the machine's own time. With `strict` unknown
    names in requests are refused, of which the server only warns."""

    seed: int = 0
    clock: datetime | None = None
    transitions: Transitions = INSTANT
    strict: bool = False

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Raises InvalidRequest for invalid transitions."""
        return cls(
            seed=settings.mock_seed,
            clock=None if settings.mock_clock is None else in_utc(settings.mock_clock),
            transitions=Transitions.parse(settings.mock_transitions),
            strict=settings.mock_strict,
        )


def in_utc(moment: datetime) -> datetime:
    """A moment without a time zone is taken as UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
