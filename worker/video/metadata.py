"""The input's tags and timecode in the output, and warnings about those that it does not hold."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from app.platform.media.containers import MP4, OutputContainer
from worker.video.plan import RenderPlan, SegmentPlan

TAGS_LEFT_OUT = "Metadata for which {container} has no place was left out: {names}."
TIMECODE_LEFT_OUT = "The timecode was left out: it counts frames at a different rate than the output's."

# Tags of cameras, which go into a list of tags with free names. It takes the place of the list that all players read.
_CAMERA_TAG = re.compile(r"com\..+|make|model", re.IGNORECASE)
# Tags that describe the input's own coding.
_TECHNICAL_TAG = re.compile(
    r"major_brand|minor_version|compatible_brands|encoder|encoded_by|encoding.*|handler_name|vendor_id|duration"
    r"|creation_time|timecode|software|wmfsdk.*|isvbr|deviceconformancetemplate|_?statistics.*|bps.*|number_of_.*"
    r"|generation_uid|uid|.*_uid|.*package_umid|product_version.*|toolkit_version.*|application_platform|company_name"
    r"|product_name|operational_pattern_ul|modification_date|location-.*",
    re.IGNORECASE,
)
_TIMECODE = re.compile(r"[0-9]{2}:[0-5][0-9]:[0-5][0-9](?P<mark>[:;.])(?P<frames>[0-9]{2,3})")
# Frames a second that timecode is defined for, and those of its drop-frame form.
_TIMECODE_RATES = (24, 25, 30, 48, 50, 60, 100, 120)
_DROP_FRAME_RATES = (Fraction(30_000, 1001), Fraction(60_000, 1001))
MOST_NAMES, MOST_NAME_CHARACTERS = 8, 40


@dataclass(frozen=True, kw_only=True)
class KeptMetadata:
    """`options`: of the muxer. `arguments`: of the output's command line."""

    options: Mapping[str, Any]
    arguments: Sequence[str]
    warnings: Sequence[str]


def keep_metadata(
    tags: Mapping[str, str],
    streams: Sequence[Mapping[str, Any]],
    *,
    render: RenderPlan,
    segments: Sequence[SegmentPlan],
) -> KeptMetadata:
    """How the output keeps the container's tags and the timecode of it or of one of its streams."""
    options: dict[str, Any] = {}
    arguments: list[str] = []
    warnings = []
    is_iso = render.file.is_iso
    if not is_iso or any(_CAMERA_TAG.fullmatch(name) for name in tags):
        if is_iso:
            options["movflags"] = f"{render.file.finished_options['movflags']}+use_metadata_tags"
        brands = ("major_brand", "minor_version", "compatible_brands", "timecode")
        arguments += [word for name in brands for word in ("-metadata", f"{name}=")]
    codes = [section.get("tags", {}).get("timecode") for section in streams] + [tags.get("timecode")]
    code = next((found for text in codes if text and (found := read_timecode(text))), None)
    if code is not None:
        if _counts_frames(code, render, segments):
            if is_iso:
                options["write_tmcd"] = 1
            skipped = 0 if render.part is None else segments[0].first_frame
            arguments += [
                "-metadata:s:v:0",
                f"timecode={later_timecode(code, skipped, rate=round(render.frame_rate))}",
            ]
        else:
            warnings.append(TIMECODE_LEFT_OUT)
    return KeptMetadata(options=options, arguments=arguments, warnings=warnings)


def read_timecode(text: str) -> re.Match[str] | None:
    return _TIMECODE.fullmatch(text)


def _counts_frames(code: re.Match[str], render: RenderPlan, segments: Sequence[SegmentPlan]) -> bool:
    """Whether the output has the input's frames at a constant rate that the timecode may count."""
    rate = render.frame_rate
    durations = {ticks for segment in segments for _count, ticks in segment.runs}
    return (
        render.frame_count == render.source_frame_count
        and (render.deinterlacing is None or render.deinterlacing.film_rate is None)
        and len(durations) == 1
        and round(rate) in _TIMECODE_RATES
        and int(code["frames"]) < round(rate)
        and (code["mark"] == ":" or rate in _DROP_FRAME_RATES)
    )


def later_timecode(code: re.Match[str], frames: int, *, rate: int) -> str:
    """The timecode so many frames later, within a day (SMPTE ST 12-1)."""
    if not frames:
        return code[0]
    hours, minutes, seconds = (int(digits) for digits in code[0][:8].split(":"))
    # Drop-frame timecode leaves out the first numbers of each minute, but of each tenth.
    dropped = 0 if code["mark"] == ":" else rate // 15
    passed = 60 * hours + minutes
    number = (60 * passed + seconds) * rate + int(code["frames"]) - dropped * (passed - passed // 10) + frames
    in_ten = 600 * rate - 9 * dropped
    tens, rest = divmod(number % (144 * in_ten), in_ten)
    number = number % (144 * in_ten) + 9 * dropped * tens
    number += dropped * max(0, (rest - dropped) // (60 * rate - dropped))
    whole, frame = divmod(number, rate)
    text = f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"
    return f"{text}{code['mark']}{frame:0{len(code['frames'])}}"


def lost_tags(
    before: Mapping[str, str], after: Mapping[str, str], *, container: OutputContainer = MP4
) -> list[str]:
    """A warning about the container's tags that the output does not hold."""
    kept = {name.casefold() for name in after}
    names = [
        "".join(character for character in name if character.isprintable())[:MOST_NAME_CHARACTERS]
        for name in before
        if name.casefold() not in kept and not _TECHNICAL_TAG.fullmatch(name)
    ]
    if not names:
        return []
    listed = ", ".join(names[:MOST_NAMES])
    if len(names) > MOST_NAMES:
        listed += f" and {len(names) - MOST_NAMES} more"
    return [TAGS_LEFT_OUT.format(container=container.name, names=listed)]
