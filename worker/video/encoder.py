"""Encodes one segment: raw frames on stdin to a file with exact timestamps, suitable for joining by stream copy."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

from app.platform.errors import ConfigurationError, FfmpegError
from app.platform.media.codecs import CODECS, Quality
from app.platform.media.containers import VideoCodec
from app.platform.media.ffmpeg import FfmpegRunner, Stream
from app.platform.media.h273 import UNSPECIFIED
from worker.inference.frames import FrameFormat
from worker.video.filter_expressions import expression_tree
from worker.video.plan import RenderPlan, SegmentPlan

# Largest frame of H.264 level 5.2: 36,864 macroblocks, no side longer than the square root of 8 times that
# (ITU-T H.264, A.3.1 and table A-1).
H264_MAX_MACROBLOCKS = 36_864
MACROBLOCK = 16
# x265's smallest picture side; sides are padded to multiples of the smallest coding unit.
X265_MIN_SIDE = 16
X265_CODING_UNIT = 8
# Pictures with a smaller side have coding trees that level 5 and above, which long pictures need, does not allow.
LEVEL_5_MIN_SIDE = 32
# With B-frames the first packets of a segment have decoding times before its start. They fit between the last ones of
# the previous segment only if each segment has more frames than the encoder delays; shorter ones use no B-frames.
MIN_REORDERED_FRAMES = 4
# Longest keyframe interval, for seeking players.
KEYFRAME_SECONDS = 10
MAX_RATE_DENOMINATOR = 100_000
# Each term of the ratio has sixteen bits in the stream (ITU-T H.264, sar_width).
MAX_ASPECT_TERM = 65_535

# The largest code point of primaries that x264 and x265 write.
ENCODERS_MAX_PRIMARIES = 12
# Indexed by their code (ITU-T H.265, chroma_sample_loc_type_top_field).
CHROMA_LOCATIONS = ("left", "center", "topleft", "top", "bottomleft", "bottom")
# Units of mastering metadata in the stream (ITU-T H.265, D.3.28).
COLOUR_UNIT = Fraction(1, 50_000)
LUMINANCE_UNIT = Fraction(1, 10_000)

ENCODERS: dict[VideoCodec, str] = {codec: its.encoder for codec, its in CODECS.items()}
# ProRes has twice the chroma rows of what the network makes.
PRORES_PIX_FMT = "yuv422p10le"
# Of SVT-AV1.
MOST_AV1_RATE = 240


@dataclass(frozen=True, kw_only=True)
class QualityStep:
    """`crf` None: lossless, or ProRes. `preset`: the encoder's own word for its effort, for ProRes its profile."""

    crf: float | None
    preset: str


# x264's preset medium is visually lossless at CRF 16 (its authors say 17 or 18), x265's at about 2 higher. At CRF 14
# the preset veryfast has the same quality in half the time, with a fifth more bits (bench/RESULTS.md).
QUALITIES: dict[VideoCodec, dict[Quality, QualityStep]] = {
    "h264": {
        "lossless": QualityStep(crf=None, preset="veryfast"),
        "high": QualityStep(crf=14, preset="veryfast"),
        "medium": QualityStep(crf=20, preset="medium"),
        "small": QualityStep(crf=25, preset="slow"),
    },
    "hevc": {
        "lossless": QualityStep(crf=None, preset="veryfast"),
        "high": QualityStep(crf=18, preset="medium"),
        "medium": QualityStep(crf=22, preset="medium"),
        "small": QualityStep(crf=27, preset="medium"),
    },
    "av1": {
        "high": QualityStep(crf=20, preset="8"),
        "medium": QualityStep(crf=30, preset="8"),
        "small": QualityStep(crf=40, preset="6"),
    },
    "prores": {
        "high": QualityStep(crf=None, preset="hq"),
        "medium": QualityStep(crf=None, preset="standard"),
        "small": QualityStep(crf=None, preset="lt"),
    },
    "ffv1": {"lossless": QualityStep(crf=None, preset="3")},
    "vp9": {
        "lossless": QualityStep(crf=None, preset="4"),
        "high": QualityStep(crf=16, preset="4"),
        "medium": QualityStep(crf=26, preset="4"),
        "small": QualityStep(crf=36, preset="3"),
    },
}


def choose_codec(target: FrameFormat) -> VideoCodec:
    """If none is asked for: H.264 for 8 bits up to the frame size of level 5.2, which all players decode; else HEVC."""
    columns = -(-target.width // MACROBLOCK)
    rows = -(-target.height // MACROBLOCK)
    fits = columns * rows <= H264_MAX_MACROBLOCKS and max(columns, rows) ** 2 <= 8 * H264_MAX_MACROBLOCKS
    return "h264" if fits and target.bit_depth == 8 else "hevc"


def timestamp_expression(runs: Sequence[tuple[int, int]]) -> str:
    """The timestamp of frame N as an expression for the setpts filter, for (frames, duration) runs.

    A balanced tree: hundreds of runs take few comparisons per frame and little recursion.
    """
    leaves: list[tuple[int, str]] = []
    frame = tick = 0
    for count, duration in runs:
        offset = tick - frame * duration
        leaves.append((frame, f"{offset}+{duration}*N" if offset else f"{duration}*N"))
        frame += count
        tick += count * duration
    return expression_tree(leaves)


def encoding_stream(
    runner: FfmpegRunner,
    destination: Path,
    *,
    render: RenderPlan,
    segment: SegmentPlan,
    quality: Quality | float,
    threads: int | None = None,
    repeatable: bool = False,
) -> Stream:
    """The command that encodes the segment's output frames from stdin to `destination`.

    A codec without that quality has its best; a number is a CRF, with the preset of `medium`. `threads` are the
    encoder's, None for its default; x265 uses its own unless the same is to come out on machines with any number of
    processors (`repeatable`).
    """
    target, tags, ratio = render.target, render.tags, render.sample_aspect_ratio
    # What the encoder cannot write is written into its packets.
    metadata: dict[str, int] = {}
    primaries = int(tags.primaries)
    if primaries > ENCODERS_MAX_PRIMARIES:
        metadata["colour_primaries"] = primaries
        primaries = UNSPECIFIED
    rate = render.coded_rate.limit_denominator(MAX_RATE_DENOMINATOR)
    filters = [
        f"settb=1/{render.segment_timescale}",
        f"setpts={timestamp_expression(segment.runs)}",
        f"setsar={ratio.numerator}/{ratio.denominator}:max={MAX_ASPECT_TERM}",
        # Newer versions take an encoder's tags from the frames, older ones from the options.
        # Numbers: their names for code points differ from ffprobe's.
        f"setparams=range={tags.range}:color_primaries={primaries}:color_trc={tags.transfer:d}"
        f":colorspace={tags.matrix:d}",
    ]
    if render.codec == "hevc" and min(target.width, target.height) < X265_MIN_SIDE:
        width, height = _padded(target.width), _padded(target.height)
        filters.append(f"pad={width}:{height}")
        metadata |= {"crop_right": width - target.width, "crop_bottom": height - target.height}
    source = runner.raw_input(
        width=target.width, height=target.height, pix_fmt=target.pix_fmt, frame_rate=rate
    )
    options: dict[str, Any] = {
        "vf": ",".join(filters),
        "fps_mode": "passthrough",
        "enc_time_base": f"1/{render.segment_timescale}",
        **render.segment_file.video_options(
            codec=render.codec, timescale=render.timescale, movie_timescale=render.timescale
        ),
        "pix_fmt": target.pix_fmt,
        **tags.options,
        "color_primaries": primaries,
        "g": max(1, round(KEYFRAME_SECONDS * render.coded_rate)),
        **_encoder_options(render, quality, threads, repeatable=repeatable),
    }
    if render.codec == "prores" and not target.has_alpha:
        options["pix_fmt"] = PRORES_PIX_FMT
    if metadata and render.codec in ("h264", "hevc"):
        written = ":".join(f"{name}={value:d}" for name, value in metadata.items())
        options["bsf:v"] = f"{render.codec}_metadata={written}"
    return runner.output(source["v:0"], destination, **options)


def _padded(side: int) -> int:
    """The smallest side that x265 codes without padding of its own."""
    return max(X265_MIN_SIDE, -(-side // X265_CODING_UNIT) * X265_CODING_UNIT)


def _step(codec: VideoCodec, quality: Quality | float) -> QualityStep:
    if not isinstance(quality, str):
        return replace(QUALITIES[codec]["medium"], crf=quality)
    if quality not in get_args(Quality):
        raise ConfigurationError(
            f"There is no quality {quality!r}; choose one of {', '.join(get_args(Quality))}."
        )
    return QUALITIES[codec][CODECS[codec].quality(quality)]


def _encoder_options(
    render: RenderPlan, quality: Quality | float, threads: int | None, *, repeatable: bool
) -> dict[str, Any]:
    step = _step(render.codec, quality)
    rate = render.coded_rate.limit_denominator(MAX_RATE_DENOMINATOR)
    # The rate is explicit: the encoders would otherwise take the time base for it and choose the highest level.
    parameters = [f"fps={rate.numerator}/{rate.denominator}"]
    if render.codec not in ("h264", "hevc"):
        return {"vcodec": ENCODERS[render.codec], **_other_options(render, step, threads)}
    options: dict[str, Any] = {"vcodec": ENCODERS[render.codec], "preset": step.preset}
    if not render.reorder:
        options["bf"] = 0
    if render.codec == "h264":
        # Headers that do not depend on the pictures, so that all segments share them.
        parameters += ["stitchable=1", "open-gop=0"]
        profile = "high" if render.target.bit_depth == 8 else "high10"
        options |= {"qp": 0} if step.crf is None else {"crf": step.crf, "profile:v": profile}
        options["x264-params"] = ":".join(parameters)
        if threads is not None:
            options["threads"] = threads
    else:
        parameters += ["open-gop=0", "log-level=error", "repeat-headers=0", "info=0"]
        if (location := render.tags.chroma_location) is not None:
            # x264 has no option for it and needs none: H.264's default is left.
            parameters.append(f"chromaloc={CHROMA_LOCATIONS.index(location)}")
        if min(render.target.width, render.target.height) < LEVEL_5_MIN_SIDE:
            parameters.append("allow-non-conformance=1")
        parameters += _hdr_parameters(render)
        if repeatable:
            parameters += [f"pools={threads}", "frame-threads=1"]
        if step.crf is None:
            parameters.append("lossless=1")
        else:
            options["crf"] = step.crf
        options["x265-params"] = ":".join(parameters)
    return options


def _other_options(render: RenderPlan, step: QualityStep, threads: int | None) -> dict[str, Any]:
    """Of the codecs that have no reordered packets: each packet is a frame that is shown."""
    options: dict[str, Any] = {} if threads is None else {"threads": threads}
    has_alpha = render.target.has_alpha
    if render.codec == "prores":
        # The others have no alpha.
        return {**options, "profile:v": "4444" if has_alpha else step.preset, "vendor": "apl0"}
    if render.codec == "ffv1":
        # Version 3 with a checksum in each slice, every frame by itself: the form that archives ask for.
        return {**options, "level": step.preset, "slicecrc": 1, "g": 1}
    if render.codec == "vp9":
        loss = {"lossless": 1} if step.crf is None else {"crf": step.crf, "b:v": 0}
        # Pictures that are not shown have none of alpha beside them.
        shown = {"auto-alt-ref": 0} if has_alpha else {}
        return {**options, **loss, **shown, "deadline": "good", "cpu-used": step.preset, "row-mt": 1}
    rate = min(render.coded_rate, Fraction(MOST_AV1_RATE)).limit_denominator(MAX_RATE_DENOMINATOR)
    parameters = [f"fps-num={rate.numerator}", f"fps-denom={rate.denominator}", "irefresh-type=2"]
    if threads is not None:
        parameters.append(f"lp={threads}")
    if (display := render.mastering_display) is not None:
        primaries = {"G": display.green, "B": display.blue, "R": display.red, "WP": display.white}
        colours = "".join(f"{name}({float(x):.5f},{float(y):.5f})" for name, (x, y) in primaries.items())
        light = f"L({float(display.max_luminance):.4f},{float(display.min_luminance):.4f})"
        parameters.append(f"mastering-display={colours}{light}")
    if (level := render.content_light) is not None:
        parameters.append(f"content-light={level.max_content},{level.max_frame_average}")
    return {"preset": step.preset, "crf": step.crf, "svtav1-params": ":".join(parameters)}


def _hdr_parameters(render: RenderPlan) -> list[str]:
    """x265's HDR parameters, in units of 0.00002 for colours and 0.0001 cd/m2 for luminance."""
    parameters = []
    if (display := render.mastering_display) is not None:
        primaries = {"G": display.green, "B": display.blue, "R": display.red, "WP": display.white}
        colours = "".join(
            f"{name}({round(x / COLOUR_UNIT)},{round(y / COLOUR_UNIT)})" for name, (x, y) in primaries.items()
        )
        most, least = (
            round(value / LUMINANCE_UNIT) for value in (display.max_luminance, display.min_luminance)
        )
        parameters.append(f"master-display={colours}L({most},{least})")
    if (light := render.content_light) is not None:
        parameters.append(f"max-cll={light.max_content},{light.max_frame_average}")
    return parameters


def missing_encoder(error: FfmpegError, render: RenderPlan) -> ConfigurationError | None:
    """The error to raise if ffmpeg failed because it lacks the encoder; None otherwise."""
    encoder = ENCODERS[render.codec]
    detail = error.detail or ""
    if "Unknown encoder" in detail or f"Encoder '{encoder}' not found" in detail:
        return ConfigurationError(
            f"This ffmpeg has no {encoder} encoder, which this video's output needs. "
            "Install an ffmpeg that has it (Debian's and Ubuntu's do), or set REGEN_FFMPEG to one.",
            detail=detail,
        )
    return None
