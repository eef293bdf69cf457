"""What may be asked of a render, and how each option is read from the text of a request."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from app.platform.errors import InvalidRequest
from app.platform.media.rates import Retime, parse_retime, parse_target_fps
from app.webhooks.urls import parse_webhook_url
from models.catalog import DEFAULT_ENGINE, ENGINES, Engine

LEAST_PRIORITY, MOST_PRIORITY = -100, 100


@dataclass(frozen=True, kw_only=True)
class RenderOptions:
    """How a file is to be rendered. The defaults are those of a request that names none.

    `target_fps` is None for the input's own frames. `priority` is the place among the user's own renders,
    `webhook_url` an address that is told how the render goes.
    """

    engine: Engine = ENGINES[DEFAULT_ENGINE]
    target_fps: Fraction | None = None
    retime: Retime = Retime.NEAREST
    measures_quality: bool = False
    priority: int = 0
    webhook_url: str | None = None


def find_engine(engine_id: str) -> Engine:
    """Raises InvalidRequest for an engine that does not exist."""
    engine = ENGINES.get(engine_id)
    if engine is None:
        known = " or ".join(f'"{name}"' for name in ENGINES)
        raise InvalidRequest(f"`engine` must be {known}.")
    return engine


def parse_priority(text: str) -> int:
    """A render's place among its user's own. Raises InvalidRequest for what is no whole number of the range."""
    if re.fullmatch(r"[+-]?[0-9]{1,3}", text) and LEAST_PRIORITY <= int(text) <= MOST_PRIORITY:
        return int(text)
    raise InvalidRequest(f"`priority` must be a whole number from {LEAST_PRIORITY} to {MOST_PRIORITY}.")


def parse_measures_quality(text: str) -> bool:
    """Whether the output's quality is to be measured. Raises InvalidRequest for what is neither true nor false."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    raise InvalidRequest("`quality` must be true or false.")


# By the name of the request's field: which option it is, and how it is read.
_FIELDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "engine": ("engine", find_engine),
    "target_fps": ("target_fps", parse_target_fps),
    "retime": ("retime", parse_retime),
    "quality": ("measures_quality", parse_measures_quality),
    "priority": ("priority", parse_priority),
    "webhook_url": ("webhook_url", parse_webhook_url),
}
OPTION_FIELDS = frozenset(_FIELDS)


def parse_options(fields: Mapping[str, str]) -> RenderOptions:
    """The options among a request's fields. Raises InvalidRequest with one message per fault."""
    options: dict[str, Any] = {}
    faults: list[str] = []
    for name, (option, parse) in _FIELDS.items():
        try:
            if name in fields:
                options[option] = parse(fields[name])
        except InvalidRequest as error:
            faults += error.messages
    if faults:
        raise InvalidRequest(*faults)
    return RenderOptions(**options)
