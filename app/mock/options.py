"""The mock's options: when renders change status, and the seed and clock of its answers."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from app.mock.transitions import INSTANT, Transitions
from app.platform.settings import Settings

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
