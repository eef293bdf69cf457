"""Contents of a request, quoted in a message to its user."""

import json

MOST_CHARACTERS = 60


class Verbatim(str):
    """A text that is shown without quotes: a number as it was written."""

    __slots__ = ()


def quoted(value: object) -> str:
    """The value as JSON on one line of printable characters, shortened to about 60 of them."""
    if isinstance(value, Verbatim):
        return printable(shortened(value))
    if isinstance(value, str):
        return printable(json.dumps(shortened(value), ensure_ascii=False))
    written = ""
    try:
        # Piece by piece: neither the size nor the depth of a value matters.
        for piece in json.JSONEncoder(ensure_ascii=False, default=str).iterencode(value):
            written += piece
            if len(written) > MOST_CHARACTERS:
                break
    except ValueError:
        written += "a number of thousands of digits"
    return printable(shortened(written))


def received(value: object) -> str:
    """The end of a sentence about an expected value: what was received instead."""
    return f"; received {quoted(value)}."


def shortened(text: str) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"


def printable(text: str) -> str:
    """The text with non-printing characters escaped, such as control characters and direction marks."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
