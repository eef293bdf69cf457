"""Faults of the settings, as sentences: refused values, and unknown names."""

import difflib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from app.platform.settings import DEFAULT_SECRETS_DIR, Settings

PREFIX = "REGEN_"
SECRETS_DIR = "REGEN_SECRETS_DIR"
# Read by docker-compose.yml and by the tests, not by the server.
FOREIGN_PREFIXES = ("REGEN_TEST_",)
# Read by clients.
FOREIGN_NAMES = frozenset({"REGEN_SERVER", "REGEN_KEY"})

_BY_TYPE = {
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "value_error": "{error}",
    "too_short": "must not be empty",
}
_BY_KIND = {
    "int": "must be a whole number",
    "float": "must be a number",
    "finite": "must be a finite number",
    "bool": "must be true or false",
    "datetime": "must be a moment such as 2026-01-01T00:00:00Z",
}


def variable(name: str) -> str:
    """The environment variable of a field of the settings."""
    return PREFIX + name.upper()


def sentences(error: ValidationError) -> list[str]:
    """One sentence for each refused setting. Never shows the value of a secret or an address."""
    faults = {
        str(fault["loc"][0]): fault
        for fault in reversed(error.errors())
        # A default derived from other settings is not to blame for their faults.
        if fault["type"] != "default_factory_not_called"
    }
    return [_sentence(name, faults[name]) for name in Settings.model_fields if name in faults]


def unknown_settings() -> Iterator[tuple[str, str | None]]:
    """The unknown setting names in the environment and among the files of secrets, each with the most similar
    setting."""
    known = [SECRETS_DIR, *map(variable, Settings.model_fields)]
    directory = Path(os.environ.get(SECRETS_DIR, DEFAULT_SECRETS_DIR))
    files = [path.name for path in directory.glob(f"{PREFIX.lower()}*")] if directory.is_dir() else []
    for given in sorted([name for name in os.environ if name.upper().startswith(PREFIX)] + files):
        name = given.upper()
        if name not in (*known, *FOREIGN_NAMES) and not name.startswith(FOREIGN_PREFIXES):
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
            yield given, near[0] if near else None


def _sentence(name: str, fault: Any) -> str:
    kind = fault["type"]
    context = {
        key: f"{value:g}" if isinstance(value, float) else value
        for key, value in fault.get("ctx", {}).items()
    }
    template = _BY_TYPE.get(kind) or _BY_KIND.get(kind.partition("_")[0])
    must = template.format(**context) if template else f"cannot be used: {fault['msg']}"
    is_shown = not name.endswith("_url") and SecretStr.__name__ not in str(Settings.model_fields[name])
    given = f", not {fault['input']!r}" if is_shown and isinstance(fault["input"], str | int | float) else ""
    return f"{variable(name)} {must}{given}."
