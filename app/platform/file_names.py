"""Names that clients give their files: made safe on the way in, derived for downloads on the way out."""

import email.utils
import hashlib
import re
import unicodedata
from email.message import Message

from anyascii import anyascii

UNNAMED = "video"
MAX_NAME_CHARACTERS = 255
MAX_SUFFIX_CHARACTERS = 20
MAX_ASCII_CHARACTERS = 200

# Characters that shells, quoted strings and every file system accept unchanged.
_PLAIN = re.compile(r"[A-Za-z0-9 ._()\[\]+,=@~-]+")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9 ._()\[\]+,=@~-]+")

# Browsers' escapes for a quote and line breaks in a quoted file name (WHATWG HTML, multipart/form-data).
_BROWSER_ESCAPES = {"%22": '"', "%0D": "\r", "%0A": "\n"}
_BROWSER_ESCAPE = re.compile("|".join(_BROWSER_ESCAPES), re.IGNORECASE)


def disposition_parameters(header: bytes) -> dict[str, str]:
    """The parameters of a part's Content-Disposition, by lower-case name.

    Understands quoted strings (RFC 7578), UTF-8 bytes as browsers send them, browsers' percent escapes, and
    the extended and continued forms `filename*` and `filename*0` (RFC 5987, RFC 2231), which win over the
    plain one. Raises ValueError if the header cannot be parsed.
    """
    try:
        text = header.decode("utf-8")
    except UnicodeDecodeError:
        text = header.decode("latin-1")
    if any(unicodedata.category(character) == "Cc" and character != "\t" for character in text):
        raise ValueError("there are control characters in Content-Disposition")
    message = Message()
    message["Content-Disposition"] = text
    try:
        parameters = message.get_params([], header="Content-Disposition")
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from error
    plain: dict[str, str] = {}
    extended: dict[str, str] = {}
    # The first is the disposition itself: form-data.
    for name, value in parameters[1:]:
        key = name.lower()
        if isinstance(value, tuple):
            extended.setdefault(key, email.utils.collapse_rfc2231_value(value))
        else:
            plain.setdefault(
                key, _BROWSER_ESCAPE.sub(lambda found: _BROWSER_ESCAPES[found[0].upper()], value)
            )
    return {**plain, **extended}


def safe_name(name: str) -> str:
    """The last part of a path-like name without non-printing characters, at most 255 characters."""
    base = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    shown = "".join(
        character for character in base if unicodedata.category(character)[0] != "C" or character == "\u200d"
    )
    shown = " ".join(shown.split())
    if not shown.strip(". "):
        return UNNAMED
    stem, suffix = _split(shown)
    return stem[: MAX_NAME_CHARACTERS - len(suffix)] + suffix


def output_name(uploaded_name: str, *, scale: int | str, suffix: str) -> str:
    """`clip.mov` at scale 4 becomes `clip-4x`, at `640x360` `clip-640x360`, and the suffix (with its dot)."""
    stem, _suffix = _split(uploaded_name)
    ending = f"-{scale}{'x' if isinstance(scale, int) else ''}{suffix}"
    return stem[: MAX_NAME_CHARACTERS - len(ending)] + ending


def ascii_name(name: str) -> str:
    """A name for clients that support only ASCII: visible, at most 200 characters, and different for each name.

    A plain ASCII name is unchanged. Any other is transliterated, with a digest that distinguishes similar
    names: `видео.mov` becomes `video-199ec1.mov`.
    """
    if _PLAIN.fullmatch(name) and not name.startswith((".", "-", " ")) and len(name) <= MAX_ASCII_CHARACTERS:
        return name
    stem, suffix = (_NOT_PLAIN.sub("_", anyascii(part)) for part in _split(name))
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    ending = f"-{digest}{suffix}"
    stem = stem.strip("._- ") or UNNAMED
    return stem[: MAX_ASCII_CHARACTERS - len(ending)].rstrip() + ending


def _split(name: str) -> tuple[str, str]:
    """Stem and suffix; the part after the last dot is a suffix only if it looks like one."""
    stem, dot, suffix = name.rpartition(".")
    if not dot or not stem or not suffix.isalnum() or len(suffix) > MAX_SUFFIX_CHARACTERS:
        return name, ""
    return stem, dot + suffix
