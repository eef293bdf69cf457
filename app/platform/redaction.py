"""Removes keys, passwords, tokens and signatures from finished log lines.

It works in two steps. Secrets in the settings are known, and removed wherever they occur. Other secrets (a client's API
key, the signature in a URL, the password in an error's text) are recognised by their form.
"""

import json
import re
from collections.abc import Callable, Iterator
from urllib.parse import quote, unquote, urlsplit

from pydantic import SecretStr

from app.platform.settings import Settings

REMOVED = "[removed]"

# A shorter secret would match parts of harmless words; it is still removed where its form is recognised.
LEAST_CHARACTERS = 8

# No pattern crosses a quote or a backslash, so that a JSON line stays valid. None backtracks over a text, because part
# of what is logged comes from clients. Before each: words, one of which is in everything that it matches, because
# looking for words takes a twentieth of the time, and most lines have none. None has an i: patterns match its dotless
# and dotted relatives too, which no folding of case makes equal.
_FORMS = (
    # API keys of this server
    (("regen_",), re.compile(r"regen_[A-Za-z0-9_-]{43}"), REMOVED),
    # Webhook secrets, also in a URL
    (("whsec_",), re.compile(r"whsec_[A-Za-z0-9+/%]{43,80}"), REMOVED),
    # `Authorization: Basic ...`, also as a pair or an item of a dictionary
    (
        ("author", "-key", "x-amz-secur"),
        re.compile(
            r"""((?:authorization|x-api-key|x-amz-security-token)["'\s\\]{0,4}[:=,]["'\s\\b]{0,4})"""
            r"""(?:[A-Za-z0-9-]+\s+)?[^\s"'\\,]+""",
            re.IGNORECASE,
        ),
        rf"\1{REMOVED}",
    ),
    (("bearer",), re.compile(r"\b(bearer\s+)[A-Za-z0-9._~+/=-]+", re.IGNORECASE), rf"\1{REMOVED}"),
    # scheme://user:password@host
    (("://",), re.compile(r"""(://[^\s/?#:@"'\\]*:)[^\s/?#"'\\]+@"""), rf"\1{REMOVED}@"),
    (
        ("gnature",),
        re.compile(r"\b(signature\W{1,6})[A-Za-z0-9_/+=-]{16,}", re.IGNORECASE),
        rf"\1{REMOVED}",
    ),
    # password=..., "token": "..."
    (
        ("passw", "secret", "token", "key"),
        re.compile(
            r"""((?:password|passwd|secret|token|api[_-]?key|secret[_-]?key|access[_-]?key)"""
            r"""(?:\\?["']\s*:\s*b?\\?["']|=\\?["']?))[^\s"'\\,;&)}\]]+""",
            re.IGNORECASE,
        ),
        rf"\1{REMOVED}",
    ),
)
_QUERY = re.compile(r"""\?[^\s"'<>\\]*""")
_SIGNED = ("signature", "x-amz-")


def redactor(settings: Settings) -> Callable[[str], str]:
    """A function that removes every secret from a finished log line."""
    # The longest first, because one secret may be part of another.
    known = sorted(
        {form for secret in _secrets(settings) for form in _written(secret)}, key=len, reverse=True
    )
    exactly = re.compile("|".join(re.escape(form) for form in known)) if known else None

    def redact(line: str) -> str:
        if exactly is not None:
            line = exactly.sub(REMOVED, line)
        line = _QUERY.sub(_unless_signed, line)
        folded = line.casefold()
        for words, form, replacement in _FORMS:
            if any(word in folded for word in words):
                line = form.sub(replacement, line)
        return line

    return redact


def _unless_signed(query: re.Match[str]) -> str:
    text = query.group()
    return f"?{REMOVED}" if any(sign in text.lower() for sign in _SIGNED) else text


def _secrets(settings: Settings) -> Iterator[str]:
    """Every secret setting, and the passwords in the settings' URLs."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            yield value.get_secret_value()
        elif isinstance(value, str) and "://" in value:
            password = urlsplit(value).password
            if password:
                yield password
                yield unquote(password)


def _written(secret: str) -> set[str]:
    """The forms of a secret in a line: plain, percent-encoded, in JSON, as a Python literal."""
    if len(secret) < LEAST_CHARACTERS:
        return set()
    return {secret, quote(secret, safe=""), json.dumps(secret)[1:-1], repr(secret)[1:-1]}
