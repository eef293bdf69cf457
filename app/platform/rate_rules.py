"""Rate limit rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limits import RateLimitItem

# Upper bounds far beyond any useful rule, which every counter can hold.
MOST_REQUESTS = 1_000_000
LONGEST_SECONDS = 366 * 24 * 3600


def parse_rule(rule: str) -> tuple[RateLimitItem, ...]:
    """The items of a rule such as `100/minute` or `10/second;1000/hour`, all of which apply.

    Raises ValueError for an invalid rule, and for one of more than a million requests or a year.
    """
    # The import is slow, and most servers have no rules.
    from limits import parse_many

    sentence = f"{rule!r} is not a rate limit: it must look like 100/minute"
    try:
        items = tuple(parse_many(rule))
    except (ValueError, TypeError) as error:
        raise ValueError(sentence) from error
    for item in items:
        if not (0 < item.amount <= MOST_REQUESTS and 0 < item.get_expiry() <= LONGEST_SECONDS):
            raise ValueError(sentence)
    return items
