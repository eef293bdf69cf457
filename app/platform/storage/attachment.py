"""Under which name a browser saves what it downloads."""

import re
import unicodedata
from urllib.parse import quote

NAMELESS = "video"


def attachment(name: str) -> str:
    """A Content-Disposition that offers `name` for download: plain ASCII, and exact after RFC 6266."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9 ._()\[\]+,=@~-]", "_", ascii_name) or NAMELESS
    header = f'attachment; filename="{plain}"'
    if plain != name:
        header += f"; filename*=UTF-8''{quote(name, safe='')}"
    return header
