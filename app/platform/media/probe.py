"""Probing an upload: whether it is a video within the limits, and its streams."""

from collections.abc import Callable
from fractions import Fraction
from math import atan2, degrees
from pathlib import Path
from typing import Any

from app.platform.errors import (
    CodecRefused,
    FfmpegAnswerTooLong,
    FfmpegError,
    FfmpegKilled,
    FfmpegMissing,
    FfmpegTimeout,
    LimitExceeded,
    NotAVideo,
    PermanentError,
)

from .clock import may_restart
from .ffmpeg import FfmpegRunner
from .ffprobe_output import UNTAGGED, disposition, fraction, integer, section_list, tagged
from .file_listing import PROBE_ENTRIES, FileListing, list_file
from .h273 import ColourPrimaries, MatrixCoefficients, TransferCharacteristics
from .info import ColourTags, MediaInfo, OtherStream, StreamKind, VideoStream
from .limits import (
    WITHOUT_DESCRIPTIONS,
    MediaLimits,
    check_descriptions,
    check_frame_size,
    check_input,
    check_stream_count,
)
from .mp4_boxes import check_box_count
from .packet_summary import (
    PacketSummary,
    scan_packets,
    summarize_packets,
)
from .pixel_formats import read_pix_fmt
from .recognition import (
    ENCRYPTED,
    NO_INDEX,
    PICTURE,
    PICTURE_BRANDS,
    SOUND,
    has_protection_scheme,
    is_encrypted,
    reason_unreadable,
    refused_frame_sizes,
)
from .scrambled_streams import is_scrambled
from .timing import time_video
from .whitelists import VIDEO_DECODERS, is_decodable

__all__ = [
    "ColourTags",
    "MediaInfo",
    "OtherStream",
    "VideoStream",
    "colour_tags",
    "moving_stream_index",
    "probe_video",
]

# Formats of pictures, which are videos if they have more than one.
ANIMATION_FORMATS = ("gif", "apng")
TOO_COSTLY = "Examining this file takes more time or memory than this server allows."
TOO_MANY = f"If it has very many chapters or tags: {WITHOUT_DESCRIPTIONS}"
# The C library's words for ENOMEM, and the dynamic linker's.
OUT_OF_MEMORY = ("Cannot allocate memory", "failed to map segment")
DAMAGED = "The video in this file cannot be decoded: it is damaged or incomplete."


def probe_video(runner: FfmpegRunner, path: Path, *, limits: MediaLimits) -> MediaInfo:
    """Probe the file at `path`: its streams, and every packet of its video stream, without decoding.

    The video is the first stream with more than one picture: those marked as default come first. Raises NotAVideo
    with a sentence that says what the file is instead, LimitExceeded when it is over a limit or the probe exceeds the
    runner's limits on time and memory, and FfmpegMissing.
    """
    runner = runner.within_one_limit()
    check_box_count(path)
    try:
        answer, said, listing = _describe(runner, path, limits)
        streams, container = section_list(answer, "streams"), answer.get("format", {})
        candidates = _moving_streams(streams, container)
        _refuse_scrambled(path, candidates[0], container)
        restarts = may_restart(str(container.get("format_name", "")))

        def summarize(stream_index: int) -> PacketSummary | None:
            scanned = scan_packets(runner, path) if listing is None else listing.packets
            return summarize_packets(
                scanned, streams, stream_index=stream_index, restarts=restarts, limits=limits
            )

        video, time_base, scan = _choose_video(candidates, said, limits, summarize, path)
    except FfmpegMissing:
        raise
    except (FfmpegTimeout, FfmpegKilled) as error:
        raise LimitExceeded(TOO_COSTLY, detail=error.detail) from error
    except CodecRefused as error:
        raise NotAVideo(error.message) from error
    except FfmpegError as error:
        raise _refusal(path, error.detail or "", limits) from error
    format_name = str(container.get("format_name", ""))
    if scan.frames == 1 and format_name in ANIMATION_FORMATS:
        raise NotAVideo(PICTURE)
    start_seconds = fraction(container.get("start_time"))
    info = MediaInfo(
        format_name=format_name,
        # ffprobe finds no start time for a transport stream of a single frame.
        start_seconds=scan.start_pts * time_base if start_seconds is None else start_seconds,
        video=_describe_video(video, scan, time_base=time_base, container=container),
        others=tuple(_describe_other(stream) for stream in streams if stream is not video),
        stream_count=len(streams),
        shifts=scan.shifts,
        spacings=scan.spacings,
        listing=listing,
    )
    check_input(info, limits)
    return info


def moving_stream_index(runner: FfmpegRunner, path: Path) -> int:
    """The index of the stream that `probe_video` takes, as far as the file's head tells: not whether it has more than
    one picture. Raises FfmpegError and NotAVideo."""
    entries = "stream=index,codec_type:stream_disposition=default,attached_pic"
    answer = runner.probe(path, "-show_entries", entries)
    index: int = _moving_streams(section_list(answer, "streams"), {})[0]["index"]
    return index


def _describe(
    runner: FfmpegRunner, path: Path, limits: MediaLimits
) -> tuple[dict[str, Any], str, FileListing | None]:
    """ffprobe's description of the file, its stderr of that, and all packets too if the file is small.

    Raises LimitExceeded and FfmpegError.
    """
    listing = list_file(runner, path)
    answer, said = _open(runner, path, limits) if listing is None else (listing.answer, listing.said)
    streams = section_list(answer, "streams")
    check_stream_count(len(streams), limits)
    tags = [section.get("tags", {}) for section in (answer.get("format", {}), *streams)]
    check_descriptions(
        chapters=len(section_list(answer, "chapters")),
        tags=[str(text) for section in tags for tag in section.items() for text in tag],
    )
    # What a decoder said of a later packet does not describe the file.
    if listing is not None and (refused_frame_sizes(said) or is_encrypted({}, said)):
        answer, said = _open(runner, path, limits)
    return answer, said, listing


def _open(runner: FfmpegRunner, path: Path, limits: MediaLimits) -> tuple[dict[str, Any], str]:
    """ffprobe's description of the file without reading all of it, and its stderr.

    Raises LimitExceeded and FfmpegError.
    """
    try:
        return runner.probe_with_stderr(
            path, "-show_entries", PROBE_ENTRIES, cpu_seconds=limits.opening_cpu_seconds
        )
    except (FfmpegKilled, FfmpegAnswerTooLong) as error:
        raise LimitExceeded(f"{TOO_COSTLY} {TOO_MANY}", detail=error.detail) from error


def _refusal(path: Path, said: str, limits: MediaLimits) -> LimitExceeded | NotAVideo:
    """Why ffprobe gave up on the file, from its messages."""
    if any(words in said for words in OUT_OF_MEMORY):
        return LimitExceeded(TOO_COSTLY, detail=said)
    try:
        for width, height in refused_frame_sizes(said):
            check_frame_size(width=width, height=height, limits=limits)
    except LimitExceeded as refusal:
        return refusal
    return NotAVideo(reason_unreadable(path, said), detail=said)


def _moving_streams(streams: list[dict[str, Any]], container: dict[str, Any]) -> list[dict[str, Any]]:
    """The video streams that are not cover art, those marked as default first. Raises NotAVideo if there is none."""
    if container.get("tags", {}).get("major_brand", "").strip() in PICTURE_BRANDS:
        raise NotAVideo(PICTURE)
    moving = [
        stream
        for stream in streams
        if stream.get("codec_type") == "video" and not disposition(stream, "attached_pic")
    ]
    if not moving:
        if not streams and "mov" in str(container.get("format_name")).split(","):
            raise NotAVideo(NO_INDEX)
        has_sound = any(stream.get("codec_type") == "audio" for stream in streams)
        raise NotAVideo(SOUND if has_sound else "This file contains no video.")
    return sorted(moving, key=lambda stream: not disposition(stream, "default"))


def _refuse_scrambled(path: Path, stream: dict[str, Any], container: dict[str, Any]) -> None:
    """Raises NotAVideo for a scrambled stream of a transport stream."""
    pid = str(stream.get("id"))
    if (
        container.get("format_name") == "mpegts"
        and pid.startswith("0x")
        and is_scrambled(path, pid=int(pid, 16))
    ):
        raise NotAVideo(ENCRYPTED)


def _choose_video(
    candidates: list[dict[str, Any]],
    said: str,
    limits: MediaLimits,
    summarize: Callable[[int], PacketSummary | None],
    path: Path,
) -> tuple[dict[str, Any], Fraction, PacketSummary]:
    """The stream to upscale, its time base and its packets (of `stream_index`): the first of more than one picture.

    A stream of one picture is the last choice, because not every muxer marks cover art. One that has packets but
    cannot be decoded takes precedence over it, and is refused. Raises NotAVideo and LimitExceeded.
    """
    refusals, stills = [], []
    for stream in candidates:
        refusal = _refusal_to_decode(stream, said, limits)
        time_base = fraction(stream.get("time_base")) or Fraction(1)
        scan = summarize(stream["index"])
        if scan is None:
            continue
        if refusal is not None:
            refusals.append(refusal)
        elif scan.frames > 1:
            return stream, time_base, scan
        else:
            stills.append((stream, time_base, scan))
    if refusals:
        raise refusals[0]
    if stills:
        return stills[0]
    raise NotAVideo(ENCRYPTED if has_protection_scheme(path) else "The video in this file has no pictures.")


def _refusal_to_decode(video: dict[str, Any], said: str, limits: MediaLimits) -> NotAVideo | None:
    """Why a video stream cannot be decoded here. Raises LimitExceeded for one of too many pixels."""
    codec = video.get("codec_name")
    if is_encrypted(video, said):
        return NotAVideo(ENCRYPTED)
    if codec not in VIDEO_DECODERS:
        named = f" ({codec})" if codec else ""
        return NotAVideo(
            f"The video in this file is in a codec that this server does not decode{named}. "
            "Convert it to another one first, such as H.264, ProRes or FFV1."
        )
    # ffmpeg drops a refused size, and uses that of the first frame, or none.
    claims = refused_frame_sizes(said, VIDEO_DECODERS[codec])
    width, height = integer(video, "width"), integer(video, "height")
    for claimed_width, claimed_height in [*claims, (width, height)]:
        check_frame_size(width=claimed_width, height=claimed_height, limits=limits)
    # ffprobe finds no pixel format if it can decode no frame and no header.
    is_known = fraction(video.get("time_base")) is not None and video.get("pix_fmt") not in UNTAGGED
    if not is_known or width < 1 or height < 1:
        return NotAVideo(DAMAGED)
    try:
        read_pix_fmt(video["pix_fmt"])
    except PermanentError as error:
        return NotAVideo(error.message)
    return None


def _describe_video(
    stream: dict[str, Any], scan: PacketSummary, *, time_base: Fraction, container: dict[str, Any]
) -> VideoStream:
    side_data = section_list(stream, "side_data_list")
    width, height = _cropped_size(stream, side_data)
    sample_aspect_ratio = fraction(stream.get("sample_aspect_ratio"), separator=":") or Fraction(1)
    rotation, is_mirrored = _orientation(side_data)
    if rotation in (90, 270):
        width, height, sample_aspect_ratio = height, width, 1 / sample_aspect_ratio
    timing = time_video(stream, container, scan, time_base=time_base)
    return VideoStream(
        index=stream["index"],
        codec=stream["codec_name"],
        width=width,
        height=height,
        coded_width=integer(stream, "coded_width") or integer(stream, "width"),
        coded_height=integer(stream, "coded_height") or integer(stream, "height"),
        rotation=rotation,
        is_mirrored=is_mirrored,
        pix_fmt=stream["pix_fmt"],
        sample_aspect_ratio=sample_aspect_ratio,
        time_base=time_base,
        frame_rate=timing.frame_rate,
        start_pts=scan.start_pts,
        duration_seconds=timing.duration_seconds,
        frames=scan.frames,
        declared_frames=timing.declared_frames,
        colour=colour_tags(stream),
        field_order=tagged(stream, "field_order"),
    )


def colour_tags(stream: dict[str, Any]) -> ColourTags:
    """The colour tags of one of ffprobe's video streams."""
    names = [tagged(stream, field) for field in ("color_primaries", "color_transfer", "color_space")]
    primaries = ColourPrimaries.of_name(names[0] or "")
    transfer = TransferCharacteristics.of_name(names[1] or "")
    matrix = MatrixCoefficients.of_name(names[2] or "")
    return ColourTags(
        primaries=primaries,
        transfer=transfer,
        matrix=matrix,
        range=tagged(stream, "color_range"),
        chroma_location=tagged(stream, "chroma_location"),
        has_unknown=any(
            name is not None and code is None
            for name, code in zip(names, (primaries, transfer, matrix), strict=True)
        ),
    )


def _describe_other(stream: dict[str, Any]) -> OtherStream:
    kinds: dict[str, StreamKind] = {
        "audio": "audio",
        "subtitle": "subtitle",
        "attachment": "attachment",
        "video": "video",
    }
    codec = stream.get("codec_name")
    return OtherStream(
        index=stream["index"],
        kind=kinds.get(stream.get("codec_type", ""), "data"),
        codec=None if codec in UNTAGGED or codec == "none" else codec,
        is_default=disposition(stream, "default"),
        is_attached_picture=disposition(stream, "attached_pic"),
        is_decodable=is_decodable(codec),
    )


def _cropped_size(stream: dict[str, Any], side_data: list[dict[str, Any]]) -> tuple[int, int]:
    """Width and height after the container's crop, which ffmpeg applies and reports from 7.1 on."""
    width, height = integer(stream, "width"), integer(stream, "height")
    for entry in side_data:
        if entry.get("side_data_type") == "Frame Cropping":
            width -= integer(entry, "crop_left") + integer(entry, "crop_right")
            height -= integer(entry, "crop_top") + integer(entry, "crop_bottom")
    if width < 1 or height < 1:
        raise NotAVideo("The video in this file cannot be decoded: its frames are cropped away.")
    return width, height


def _orientation(side_data: list[dict[str, Any]]) -> tuple[int, bool]:
    """Degrees clockwise of the display matrix, and whether it mirrors left and right before that.

    (0, False) unless the angle is a multiple of 90, where ffmpeg keeps the size. The older `rotate` tag is ignored, as
    ffmpeg does from 5 on.
    """
    for entry in side_data:
        rows = [
            line.split(":")[1].split()
            for line in str(entry.get("displaymatrix", "")).split("\n")
            if ":" in line
        ]
        if len(rows) == 3:
            (a, b), (c, d) = ((int(number) for number in row[:2]) for row in rows[:2])
            # A mirror changes the signs of `a` and `b` alone (ISO/IEC 14496-12, 6.2.2).
            clockwise = degrees(atan2(-c, d))
            right_angle = round(clockwise / 90) * 90
            is_right = abs(clockwise - right_angle) < 1
            return (right_angle % 360, a * d - b * c < 0) if is_right else (0, False)
    return 0, False
