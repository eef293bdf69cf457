"""Rules on how many requests may be made in a stretch of time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limits import RateLimitItem

# Far beyond what counts anything, and within what every counter can hold.
MOST_REQUESTS = 1_000_000
LONGEST_SECONDS = 366 * 24 * 3600


def parse_rule(rule: str) -> tuple[RateLimitItem, ...]:
    """The parts of a rule such as `100/minute` or `10/second;1000/hour`, all of which hold together.

    Raises ValueError when it cannot be understood, or is about more than a million requests or a year.
    """
    # Loading it takes a while, and most servers have no rules.
    from limits import parse_many

    sentence = f"{rule!r} is no rule: it must look like 100/minute"
    try:
        items = tuple(parse_many(rule))
    except (ValueError, TypeError) as error:
        raise ValueError(sentence) from error
    for item in items:
        if not (0 < item.amount <= MOST_REQUESTS and 0 < item.get_expiry() <= LONGEST_SECONDS):
            raise ValueError(sentence)
    return items
