"""The gates that the settings ask for: one to look at uploads, a roomier one to work on them."""

from app.platform.media.ffmpeg import MediaGate, RunLimits, find_programs
from app.platform.settings import Settings


def upload_gate(settings: Settings) -> MediaGate:
    """For files of which nothing is known yet. Raises FfmpegMissing."""
    return _gate(
        settings, wall_seconds=settings.probe_timeout_seconds, memory_bytes=settings.probe_memory_bytes
    )


def work_gate(settings: Settings) -> MediaGate:
    """For decoding and encoding whole videos. Raises FfmpegMissing."""
    return _gate(
        settings, wall_seconds=settings.ffmpeg_timeout_seconds, memory_bytes=settings.ffmpeg_memory_bytes
    )


def _gate(settings: Settings, *, wall_seconds: float, memory_bytes: int) -> MediaGate:
    return MediaGate(
        programs=find_programs(ffmpeg=settings.ffmpeg, ffprobe=settings.ffprobe),
        limits=RunLimits(
            wall_seconds=wall_seconds, memory_bytes=memory_bytes, max_pixels=settings.max_input_pixels
        ),
    )
