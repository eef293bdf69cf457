"""A render's options between requests, its row, and its work: the one place that knows which column holds which."""

from typing import Any

from app.platform.media.rates import TargetRate
from app.platform.media.work_options import WORK_OPTIONS, WorkOptions
from app.renders.options import RenderOptions
from app.renders.tables import Render
from models.catalog import Engine

# The columns whose names are not those of their options.
COLUMN_OF = {"start": "start_seconds", "end": "end_seconds", "metadata": "user_metadata"}


def columns_of(options: RenderOptions) -> dict[str, Any]:
    """What a row holds of a request's options."""
    values = {COLUMN_OF.get(name, name): getattr(options, name) for name in RenderOptions.model_fields}
    return values | {
        "engine": options.engine.id,
        "target_fps": options.exact_rate,
        "target_fps_sent": options.target_fps and options.target_fps.sent,
        "codec": options.form.chosen_codec,
    }


def options_of(render: Render, *, engine: Engine) -> RenderOptions:
    """The options of an existing render, which were checked when it was made."""
    values = {name: getattr(render, COLUMN_OF.get(name, name)) for name in RenderOptions.model_fields}
    return RenderOptions.model_construct(**values | {"engine": engine, "target_fps": _target_rate(render)})


def _target_rate(render: Render) -> TargetRate | None:
    if render.target_fps is None:
        return None
    return TargetRate(exact=render.target_fps, sent=render.target_fps_sent or float(render.target_fps))


def work_options_of(options: RenderOptions) -> WorkOptions:
    """As a render's work would read them."""
    columns = columns_of(options)
    return WorkOptions(**{name: columns[name] for name in WORK_OPTIONS})
