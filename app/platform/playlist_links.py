"""Signed links of playlists. One signature permits the playlist of a render and all that it names."""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from urllib.parse import urlencode

from app.platform import clock
from app.platform.errors import Forbidden, NotFound

# The links of a day change this often: a player that reads a list again finds what it has in its cache.
CHANGES_A_LIFETIME = 24


def signed_query(render_id: str, *, key: bytes, lifetime_seconds: int, now: float | None = None) -> str:
    """The query of links that are valid for at most so long, and for 23 parts in 24 of it at least."""
    step = max(1, lifetime_seconds // CHANGES_A_LIFETIME)
    end = int(clock.now().timestamp() if now is None else now) + lifetime_seconds
    expires = str(end - end % step)
    return urlencode({"expires": expires, "signature": _signature(render_id, expires, key)})


def check_signature(
    render_id: str, *, expires: str, signature: str, key: bytes, now: float | None = None
) -> None:
    """Raises NotFound for a wrong signature, Forbidden for an expired link."""
    expected = _signature(render_id, expires, key)
    if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "surrogatepass")):
        raise NotFound("There is nothing at this address.")
    if int(expires) <= (clock.now().timestamp() if now is None else now):
        raise Forbidden("This link has expired.")


def _signature(render_id: str, expires: str, key: bytes) -> str:
    # Neither holds a space: no other pair has the same text.
    digest = hmac.digest(key, f"{render_id} {expires}".encode("utf-8", "surrogatepass"), hashlib.sha256)
    return urlsafe_b64encode(digest[:18]).decode()
