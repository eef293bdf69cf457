"""Storage keys. A key of an attempt's result contains the attempt's number, so that a late result never overwrites
a good one."""

import re

from app.platform.media.containers import MP4

FILES_PREFIX = "files/"
RENDERS_PREFIX = "renders/"
PREVIEWS_PREFIX = "previews/"

_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")


def check_key(key: str) -> None:
    """Raises ValueError for a malformed key; see Storage."""
    if not is_key(key):
        raise ValueError(f"{key!r} is not a storage key")


def check_prefix(prefix: str) -> None:
    """Raises ValueError if no key can start with `prefix`."""
    if prefix and not is_key(prefix.removesuffix("/")):
        raise ValueError(f"{prefix!r} is not the start of a storage key")


def is_key(name: str) -> bool:
    return all(map(_PART.fullmatch, name.split("/")))


def input_key(file_id: str) -> str:
    return f"{FILES_PREFIX}{file_id}/input"


def render_prefix(render_id: str) -> str:
    """The prefix of all keys of a render."""
    return f"{RENDERS_PREFIX}{render_id}/"


def segments_prefix(render_id: str) -> str:
    return f"{render_prefix(render_id)}segments/"


def segment_key(render_id: str, *, position: int, attempt: int, suffix: str = MP4.suffix) -> str:
    """`suffix`, here and below, includes the dot."""
    return f"{segments_prefix(render_id)}{position:06d}-{attempt}{suffix}"


def output_key(render_id: str, *, attempt: int, suffix: str = MP4.suffix) -> str:
    return f"{render_prefix(render_id)}output-{attempt}{suffix}"


def thumbnail_key(render_id: str, *, attempt: int) -> str:
    return f"{render_prefix(render_id)}thumbnail-{attempt}.jpg"


def sound_key(render_id: str, *, attempt: int) -> str:
    """The key of the sound that goes with a render's segments."""
    return f"{render_prefix(render_id)}sound-{attempt}.m4a"


def preview_prefix(preview_id: str) -> str:
    """The prefix of all keys of a preview."""
    return f"{PREVIEWS_PREFIX}{preview_id}/"


def before_key(preview_id: str, *, attempt: int, suffix: str) -> str:
    """The key of a preview's input frame; `suffix` includes the dot."""
    return f"{preview_prefix(preview_id)}before-{attempt}{suffix}"


def after_key(preview_id: str, *, attempt: int, suffix: str) -> str:
    """The key of a preview's upscaled frame; `suffix` includes the dot."""
    return f"{preview_prefix(preview_id)}after-{attempt}{suffix}"
