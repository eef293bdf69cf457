"""What may be asked of a render or a preview."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypedDict


class SharedOptions(TypedDict, total=False):
    """How renders and previews make the picture: docs/options.md of the server. Options left out are the server's
    defaults."""

    scale: int
    max_width: int
    max_height: int
    strength: float
    grain: float
    stabilise: int
    deinterlace: Literal["auto", "off", "frame", "field", "detelecine"]


class RenderOptions(SharedOptions, total=False):
    """How to render a video."""

    engine: str
    target_fps: float | str
    retime: Literal["nearest", "blend", "motion"]
    start: float | str
    end: float | str
    codec: str
    container: str
    output_quality: str
    quality: bool
    metadata: Mapping[str, str]
    cancel_after: int
    priority: int
    webhook_url: str
    destination: str


class PreviewOptions(SharedOptions, total=False):
    """How to make a preview. `crop_width` and `crop_height` are those of a part around the centre."""

    crop_width: int
    crop_height: int
