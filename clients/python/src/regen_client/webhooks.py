"""Events that the server sends, signed by Standard Webhooks."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from regen_client.errors import InvalidWebhook

PREFIX = "whsec_"


def verify_webhook(
    body: bytes | str,
    headers: Mapping[str, str],
    secrets: str | Sequence[str],
    *,
    tolerance_seconds: float = 300,
) -> dict[str, Any]:
    """The event in a request's raw `body`: `type`, `timestamp` and `data`, whose `render` is as the API answers it.

    `secrets`: one or more `whsec_...` of `GET /v1/webhooks/secret`; one that fits is enough. Raises InvalidWebhook
    unless a signature is valid and at most `tolerance_seconds` old, or ValueError for a secret that is none.
    """
    content = body.encode() if isinstance(body, str) else body
    lower = {name.lower(): value for name, value in headers.items()}
    try:
        event_id, timestamp = lower["webhook-id"], lower["webhook-timestamp"]
        given, sent_at = lower["webhook-signature"], int(timestamp)
    except (KeyError, ValueError):
        raise InvalidWebhook("The headers of a webhook are missing or malformed.") from None
    if abs(time.time() - sent_at) > tolerance_seconds:
        raise InvalidWebhook("The webhook is too old, or its date is in the future.")
    signed = f"{event_id}.{timestamp}.".encode() + content
    expected = [_signature(secret, signed) for secret in ([secrets] if isinstance(secrets, str) else secrets)]
    signatures = [text.removeprefix("v1,").encode() for text in given.split() if text.startswith("v1,")]
    if not any(hmac.compare_digest(one, other) for one in signatures for other in expected):
        raise InvalidWebhook("The webhook's signature is not valid.")
    try:
        event = json.loads(content)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise InvalidWebhook("The webhook's body is not a JSON object.")
    return event


def _signature(secret: str, signed: bytes) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("A webhook secret is whsec_ and base64.") from None
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256))
