"""Types of settings that pydantic lacks. A validator's message completes `REGEN_NAME ...`."""

import re
from collections.abc import Callable
from fractions import Fraction
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, SecretStr
from pydantic_settings import NoDecode

from app.platform.work_kinds import WorkQueue

# Of a random hexadecimal secret of the least length, one in a hundred million has fewer different characters.
LEAST_SECRET_CHARACTERS = 32
LEAST_DIFFERENT_CHARACTERS = 8
LEAST_TOKEN_CHARACTERS = 16

UNLIMITED = "unlimited"

_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/\s]+")
_HOST = re.compile(r"\*|[a-z0-9]([a-z0-9.-]*[a-z0-9])?|[0-9a-f:]+")
_KEY_PREFIX = re.compile(r"([A-Za-z0-9_-][A-Za-z0-9._-]*/)*")


def weakness(secret: str, *, least_characters: int = LEAST_SECRET_CHARACTERS) -> str | None:
    """Why the secret could be guessed, as a requirement; None if it is long and varied enough."""
    if len(secret) < least_characters:
        return f"must have at least {least_characters} characters, not {len(secret)}"
    # A text that repeats a shorter one appears in its own double before the second half begins.
    if len(set(secret)) < LEAST_DIFFERENT_CHARACTERS or secret in (secret + secret)[1:-1]:
        return "must be random: it has too few different characters, or repeats itself"
    return None


def _strong(least_characters: int) -> Callable[[SecretStr], SecretStr]:
    def check(secret: SecretStr) -> SecretStr:
        if (why := weakness(secret.get_secret_value(), least_characters=least_characters)) is not None:
            raise ValueError(why)
        return secret

    return check


def _fraction(value: Any) -> Fraction:
    try:
        return Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise ValueError("must be a number such as 4, 0.5 or 1/3") from None


def _url(example: str, schemes: tuple[str, ...] = ()) -> Callable[[str], str]:
    """A URL with one of the schemes; without schemes, only checks that it can be parsed."""

    def check(url: str) -> str:
        try:
            parts = urlsplit(url)
            is_url = not schemes or (parts.scheme in schemes and bool(parts.hostname or parts.path))
        except ValueError:
            is_url = False
        if not is_url:
            raise ValueError(f"must look like {example}")
        return url

    return check


def _address_alone(url: str) -> str:
    parts = urlsplit(url)
    if not parts.hostname or parts.query or parts.fragment or parts.username is not None:
        raise ValueError(
            "must be only an address, such as https://example.com/regen, without credentials or a query"
        )
    return url.rstrip("/")


def _matching(pattern: re.Pattern[str], example: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"must look like {example}")
        return text

    return check


def _network(value: Any) -> IPv4Network | IPv6Network:
    try:
        return ip_network(value)
    except ValueError:
        raise ValueError(
            "must list networks such as 10.1.0.0/16 or fd00::/8, without bits beyond the prefix"
        ) from None


def _lifted(value: Any) -> Any:
    return None if isinstance(value, str) and value.strip().lower() == UNLIMITED else value


def _parts(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


# None: unlimited, which an unset setting may not be.
RateLimit = Annotated[str | None, BeforeValidator(_lifted)]
MostInAll = Annotated[Annotated[int, Field(ge=0)] | None, BeforeValidator(_lifted)]
PositiveFraction = Annotated[Fraction, BeforeValidator(_fraction), Field(gt=0)]
DatabaseUrl = Annotated[str, AfterValidator(_url("postgresql://user@host:5432/name"))]
BrokerUrl = Annotated[str, AfterValidator(_url("redis://host:6379/0", ("redis", "rediss", "redis+socket")))]
HttpUrl = Annotated[str, AfterValidator(_url("https://regen.example.com", ("http", "https")))]
NameList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parts)]
QueueList = Annotated[tuple[WorkQueue, ...], NoDecode, BeforeValidator(_parts), Field(min_length=1)]
NetworkList = Annotated[
    tuple[Annotated[IPv4Network | IPv6Network, PlainValidator(_network)], ...],
    NoDecode,
    BeforeValidator(_parts),
]
PublicUrl = Annotated[HttpUrl, AfterValidator(_address_alone)]
HostList = Annotated[
    tuple[
        Annotated[
            str,
            AfterValidator(str.lower),
            AfterValidator(_matching(_HOST, "regen.lan or 10.0.0.5, without a port")),
        ],
        ...,
    ],
    NoDecode,
    BeforeValidator(_parts),
]
OriginList = Annotated[
    tuple[Annotated[str, AfterValidator(_matching(_ORIGIN, "https://app.example.com"))], ...],
    NoDecode,
    BeforeValidator(_parts),
]
KeyPrefix = Annotated[str, AfterValidator(_matching(_KEY_PREFIX, "regen/ with a slash only at the end"))]
AbsolutePath = Annotated[Path, AfterValidator(lambda path: path.expanduser().resolve())]
StrongSecret = Annotated[SecretStr, AfterValidator(_strong(LEAST_SECRET_CHARACTERS))]
Token = Annotated[SecretStr, AfterValidator(_strong(LEAST_TOKEN_CHARACTERS))]
