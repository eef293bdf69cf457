"""URLs to which webhooks and results are sent."""

from collections.abc import Collection

import httpx

from app.platform.errors import AddressRefused, InvalidRequest
from app.platform.outbound import MOST_URL_CHARACTERS, NO_HOST, REFUSED, check_url
from app.platform.public_addresses import Network, fixed_addresses, is_permitted

LONGEST_HOST = 253
MOST_DESTINATION_CHARACTERS = 8192


def parse_webhook_url(text: str, *, field: str = "webhook_url") -> str:
    """The URL, checked. Raises InvalidRequest, which names `field`, for one to which no event can be sent."""
    return _checked(text, field=field, most_characters=MOST_URL_CHARACTERS)


def parse_destination(text: str) -> str:
    """The same for one to which a result is sent. Presigned ones with a session's token are long."""
    return _checked(text, field="destination", most_characters=MOST_DESTINATION_CHARACTERS)


def _checked(text: str, *, field: str, most_characters: int) -> str:
    try:
        url = check_url(text, most_characters=most_characters)
    except AddressRefused as error:
        raise InvalidRequest(f"`{field}`: {error.message}") from error
    if not text.isascii() or not text.isprintable() or " " in text:
        raise InvalidRequest(f"`{field}`: The URL must be of printable ASCII characters, without spaces.")
    if len(url.host) > LONGEST_HOST:
        raise InvalidRequest(f"`{field}`: {NO_HOST}")
    return text


def require_permitted(
    text: str, *, allowed_networks: Collection[Network], field: str = "webhook_url"
) -> None:
    """Raises InvalidRequest for an address to which no event is ever sent, including `localhost`.

    Other names are looked up at each attempt.
    """
    addresses = fixed_addresses(check_url(text, most_characters=MOST_DESTINATION_CHARACTERS).host)
    if addresses and not any(is_permitted(one, allowed_networks=allowed_networks) for one in addresses):
        raise InvalidRequest(f"`{field}`: {REFUSED}")


def host_of(url: str) -> str:
    """The host of a URL that was accepted."""
    return httpx.URL(url).host[:LONGEST_HOST]
