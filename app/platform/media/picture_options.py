"""How a render's picture is finished, as requests ask for it."""

import re

from app.platform.errors import InvalidRequest
from app.platform.quoting import received


def parse_share(text: str, *, name: str) -> float:
    """Raises InvalidRequest for anything but a number from 0 to 1."""
    number = text.strip()
    if re.fullmatch(r"\+?([0-9]{1,20}\.?[0-9]{0,40}|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?", number):
        share = float(number)
        if 0 <= share <= 1:
            return share
    raise InvalidRequest(f"`{name}` must be a number from 0 to 1{received(text)}")
