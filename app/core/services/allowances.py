"""What a user may do with a key, as far as it is counted: sizes, numbers, money."""

from dataclasses import dataclass

from app.core.media.limits import MediaLimits


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """The tightest of the server's, the user's and the key's limits. `media` are those on single videos."""

    media: MediaLimits
