"""Limits on input videos and on the outputs they would produce."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

from app.platform.errors import LimitExceeded
from app.platform.settings import Settings

from .info import MediaInfo, VideoProperties
from .output_size import OutputSize
from .rates import MAX_FPS

MAX_CHAPTERS = 2_000
MAX_TAGS = 2_000
# Some programs that make videos keep their whole project in a tag.
MAX_TAG_BYTES = 4 * 1024 * 1024
WITHOUT_DESCRIPTIONS = "`ffmpeg -i input -map_chapters -1 -map_metadata -1 -c copy output.mkv` removes them."
MAX_SOUND_GAPS = 100
# ffmpeg converts a text in time that grows with the square of its length: one of this length takes 0.7 seconds.
MAX_SUBTITLE_BYTES = 256 * 1024
MAX_SUBTITLES_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class MediaLimits:
    """Maximum pixels in one input and one output frame, seconds, output frames, and streams in a file.

    `max_output_side`: maximum pixels in a row or column of the output, a limit of encoders (x264: 16384).
    `opening_cpu_seconds`: processor time in which ffprobe opens a file and describes its streams; None for no limit.
    """

    max_input_pixels: int
    max_output_pixels: int
    max_duration_seconds: int
    max_output_frames: int
    max_streams: int
    max_output_side: int = 16384
    opening_cpu_seconds: int | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(
            max_input_pixels=settings.max_input_pixels,
            max_output_pixels=settings.max_output_pixels,
            max_duration_seconds=settings.max_duration_seconds,
            max_output_frames=settings.max_output_frames,
            max_streams=settings.max_streams,
            opening_cpu_seconds=settings.probe_cpu_seconds,
        )

    @property
    def max_input_frames(self) -> int:
        """Maximum frames of an input.

        An input may have more frames than an output, because `target_fps` may drop some, but not more than the longest
        allowed input at the highest frame rate of an output.
        """
        return max(self.max_output_frames, self.max_duration_seconds * MAX_FPS)


def check_stream_count(count: int, limits: MediaLimits) -> None:
    """Raises LimitExceeded."""
    if count > limits.max_streams:
        raise LimitExceeded(f"The file has {count:,} streams; at most {limits.max_streams:,} are accepted.")


def check_descriptions(*, chapters: int, tags: Sequence[str]) -> None:
    """Raises LimitExceeded for more chapters or tags (names and values) than any player shows.

    ffmpeg takes time in proportion to the square of their number each time that it opens the file.
    """
    size_bytes = sum(len(text.encode(errors="replace")) for text in tags)
    for count, limit, what in (
        (chapters, MAX_CHAPTERS, "chapters"),
        (len(tags) // 2, MAX_TAGS, "tags, such as titles"),
        (size_bytes, MAX_TAG_BYTES, "bytes of tags, such as titles"),
    ):
        if count > limit:
            raise LimitExceeded(
                f"The file has {count:,} {what}; at most {limit:,} are accepted. {WITHOUT_DESCRIPTIONS}"
            )


def check_frame_size(*, width: int, height: int, limits: MediaLimits) -> None:
    """Raises LimitExceeded for an input frame of too many pixels."""
    if width * height > limits.max_input_pixels:
        raise LimitExceeded(
            f"The video's frames are {width} x {height}, which is {width * height:,} pixels; "
            f"at most {limits.max_input_pixels:,} are accepted."
        )


def check_duration(duration_seconds: Fraction, limits: MediaLimits) -> None:
    """Raises LimitExceeded."""
    if duration_seconds > limits.max_duration_seconds:
        raise LimitExceeded(
            f"The video lasts {float(duration_seconds):,.1f} seconds or more; "
            f"at most {limits.max_duration_seconds:,} are accepted."
        )


def check_span(span_seconds: Fraction, *, kind: str, limits: MediaLimits) -> None:
    """Raises LimitExceeded for timestamps that reach too far; `kind` is ffprobe's name for the stream that does."""
    if kind == "video":
        check_duration(span_seconds, limits)
    named = {"audio": "sound", "subtitle": "subtitles"}.get(kind, "data")
    raise LimitExceeded(
        f"The timestamps of this file's {named} reach over {float(span_seconds):,.1f} seconds or more; "
        f"at most {limits.max_duration_seconds:,} are accepted."
    )


def check_sound_gaps(gaps: int) -> None:
    """Raises LimitExceeded for a sound track with too many gaps of more than a minute."""
    if gaps > MAX_SOUND_GAPS:
        raise LimitExceeded(
            f"A sound track of this file has more than {MAX_SOUND_GAPS} gaps of more than a minute; "
            "at most that many are accepted."
        )


def check_subtitles(*, size_bytes: int, total_bytes: int) -> None:
    """Raises LimitExceeded for a text of a subtitle, or all texts of the file together, that no player shows."""
    for size, limit, what in (
        (size_bytes, MAX_SUBTITLE_BYTES, "a subtitle"),
        (total_bytes, MAX_SUBTITLES_BYTES, "subtitles"),
    ):
        if size > limit:
            raise LimitExceeded(
                f"The file has {what} of more than {limit:,} bytes, which is too long. "
                "`ffmpeg -i input -map 0 -map -0:s -c copy output.mkv` removes all subtitles."
            )


def check_input_frames(frames: int, limits: MediaLimits) -> None:
    """Raises LimitExceeded."""
    if frames > limits.max_input_frames:
        raise LimitExceeded(f"The video has {limits.max_input_frames:,} frames or more, which is too many.")


def check_input(info: MediaInfo, limits: MediaLimits) -> None:
    """Raises LimitExceeded for an input over a limit, with a sentence that contains both numbers."""
    check_stream_count(info.stream_count, limits)
    check_frame_size(width=info.video.width, height=info.video.height, limits=limits)
    check_duration(info.video.duration_seconds, limits)
    check_input_frames(info.video.frames, limits)


def check_output(
    video: VideoProperties,
    *,
    scale: int,
    target_fps: Fraction | None,
    limits: MediaLimits,
    size: OutputSize | None = None,
) -> None:
    """Raises LimitExceeded if the output would be over a limit, one sentence per limit.

    `scale`, `size` and `target_fps` are as for `VideoProperties.upscaled`.
    """
    output = video.upscaled(scale=scale, target_fps=target_fps, size=size)
    width, height, frames = output.width, output.height, output.frames
    faults = []
    if width * height > limits.max_output_pixels:
        faults.append(
            f"The output's frames would be {width} x {height}, which is {width * height:,} pixels; "
            f"at most {limits.max_output_pixels:,} are possible."
        )
    elif max(width, height) > limits.max_output_side:
        faults.append(
            f"The output's frames would be {width} x {height}; "
            f"at most {limits.max_output_side:,} pixels to a side are possible."
        )
    if frames > limits.max_output_frames:
        faults.append(
            f"The output would have {frames:,} frames; at most {limits.max_output_frames:,} are possible."
        )
    if faults:
        raise LimitExceeded(*faults)
