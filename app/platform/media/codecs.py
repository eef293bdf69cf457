"""The codecs of a render's video, and what of codec, container and quality goes together."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias, cast, get_args

from app.platform.errors import InvalidRequest
from app.platform.media.containers import OUTPUT_CONTAINERS, ContainerName, OutputContainer, VideoCodec
from app.platform.quoting import received

Quality: TypeAlias = Literal["lossless", "high", "medium", "small"]

VMAF_PREFIX = "vmaf="
LEAST_VMAF, MOST_VMAF = 70, 99
# As requests, rows and answers spell what is asked of the encoder.
OUTPUT_QUALITY_PATTERN = "^(lossless|high|medium|small|vmaf=([78][0-9]|9[0-8])(\\.[0-9])?|vmaf=99(\\.0)?)$"
# libvmaf refuses smaller pictures, or crashes.
LEAST_VMAF_SIDE = 33


@dataclass(frozen=True)
class VmafTarget:
    """The VMAF that the output is to have, in as few bits as that takes."""

    vmaf: float

    def __str__(self) -> str:
        return f"{VMAF_PREFIX}{self.vmaf:g}"


@dataclass(frozen=True, kw_only=True)
class OutputCodec:
    """A codec that renders can have.

    `name`: as sentences call it. `encoder`: ffmpeg's. `container`: the one without another request. `qualities`:
    those that it has, the best first. `least_side`, `most_height`: of the output, in pixels. `holds_hdr10`: whether
    the stream has a place for a mastering display and light levels; `holds_captions`: whether its pictures have one for
    closed captions that this server writes and players read. `alpha_containers`: those in which it holds transparency,
    with `alpha_bits` a sample at most. `has_crf`: whether its encoder has a scale of constant
    quality, on which a target can be searched.
    """

    name: str
    encoder: str
    container: ContainerName
    qualities: tuple[Quality, ...] = get_args(Quality)
    least_side: int = 2
    most_height: int = 16_384
    holds_hdr10: bool = False
    holds_captions: bool = False
    alpha_containers: tuple[ContainerName, ...] = ()
    alpha_bits: int = 16
    has_crf: bool = True

    def quality(self, wanted: Quality) -> Quality:
        """The wanted quality, or the codec's best if it lacks that one."""
        return wanted if wanted in self.qualities else self.qualities[0]


CODECS: Mapping[VideoCodec, OutputCodec] = {
    "h264": OutputCodec(name="H.264", encoder="libx264", container="mp4", holds_captions=True),
    "hevc": OutputCodec(
        name="HEVC", encoder="libx265", container="mp4", holds_hdr10=True, holds_captions=True
    ),
    # Versions of SVT-AV1 before 3 have no lossless mode; those limits of size are its own.
    "av1": OutputCodec(
        name="AV1",
        encoder="libsvtav1",
        container="mp4",
        qualities=("high", "medium", "small"),
        least_side=64,
        most_height=8704,
        holds_hdr10=True,
    ),
    "prores": OutputCodec(
        name="ProRes",
        encoder="prores_ks",
        container="mov",
        qualities=("high", "medium", "small"),
        alpha_containers=("mkv", "mov"),
        alpha_bits=10,
        has_crf=False,
    ),
    "ffv1": OutputCodec(
        name="FFV1",
        encoder="ffv1",
        container="mkv",
        qualities=("lossless",),
        alpha_containers=("mkv",),
        has_crf=False,
    ),
    # Alpha is a second stream of it, which MP4 has no place for.
    "vp9": OutputCodec(
        name="VP9", encoder="libvpx-vp9", container="mp4", alpha_containers=("mkv", "webm"), alpha_bits=8
    ),
}


@dataclass(frozen=True, kw_only=True)
class OutputFormat:
    """What a request says of the output's codec, container and quality; None: nothing."""

    codec: VideoCodec | None = None
    container: ContainerName | None = None
    quality: Quality | VmafTarget | None = None

    @property
    def container_name(self) -> ContainerName:
        """The container: without a request, the codec's."""
        return self.container or (CODECS[self.codec].container if self.codec else "mp4")

    @property
    def file(self) -> OutputContainer:
        return OUTPUT_CONTAINERS[self.container_name]

    @property
    def chosen_codec(self) -> VideoCodec | None:
        """The codec; None: H.264 or HEVC, as the frames need."""
        return self.codec or self.file.usual_codec

    @property
    def holds_alpha(self) -> bool:
        """Whether transparency of the input has a place in the output."""
        codec = self.chosen_codec
        return codec is not None and self.container_name in CODECS[codec].alpha_containers

    @property
    def needs_able_worker(self) -> bool:
        """Whether a worker's ffmpeg may lack what this takes."""
        return self.chosen_codec is not None or isinstance(self.quality, VmafTarget)

    def check(self) -> None:
        """Raises InvalidRequest, which says what there is, for what cannot go together."""
        codec, file = self.chosen_codec, self.file
        if self.codec is not None and self.codec not in file.video_codecs:
            others = [name for name, other in OUTPUT_CONTAINERS.items() if self.codec in other.video_codecs]
            raise InvalidRequest(
                f"`container` {self.container} cannot hold `codec` {self.codec}: {self.container} holds "
                f"{_listed(file.video_codecs)}, and {self.codec} goes into {_listed(others, 'or')}."
            )
        if isinstance(self.quality, VmafTarget):
            if codec is not None and not CODECS[codec].has_crf:
                raise InvalidRequest(
                    f"`output_quality` {self.quality} is not for `codec` {codec}, which has "
                    f"{_listed(CODECS[codec].qualities)}; a target goes with "
                    f"{_listed((name for name, other in CODECS.items() if other.has_crf), 'or')}."
                )
        elif self.quality is not None and codec is not None and self.quality not in CODECS[codec].qualities:
            having = [name for name, other in CODECS.items() if self.quality in other.qualities]
            raise InvalidRequest(
                f"`output_quality` {self.quality} is not for `codec` {codec}, which has "
                f"{_listed(CODECS[codec].qualities)}; {self.quality} goes with {_listed(having, 'or')}."
            )

    def check_size(self, width: int, height: int) -> None:
        """Raises InvalidRequest if the codec has no frames of that size, in pixels, or VMAF is not measured of them."""
        if isinstance(self.quality, VmafTarget) and min(width, height) < LEAST_VMAF_SIDE:
            raise InvalidRequest(
                f"`output_quality` {self.quality} needs an output from {LEAST_VMAF_SIDE}x{LEAST_VMAF_SIDE} on, of "
                f"which VMAF can be measured; this one would have {width}x{height}."
            )
        codec = self.chosen_codec
        if codec is None:
            return
        has = CODECS[codec]
        if min(width, height) < has.least_side or height > has.most_height:
            raise InvalidRequest(
                f"{has.name} needs an output from {has.least_side}x{has.least_side} to 16384x{has.most_height}; "
                f"this one would have {width}x{height}. Choose another `codec` or size."
            )


def formats_with_alpha() -> str:
    """The codecs and containers that hold transparency, as a sentence lists them."""
    return _listed(
        f"{codec.name} in {_listed((OUTPUT_CONTAINERS[name].name for name in codec.alpha_containers), 'or')}"
        for codec in CODECS.values()
        if codec.alpha_containers
    )


def _listed(names: Iterable[str], word: str = "and") -> str:
    *others, last = names
    return f"{', '.join(others)} {word} {last}" if others else last


def parse_output_quality(text: str) -> str:
    """A quality's name, or a target in its shortest spelling. Raises InvalidRequest for a text that is neither."""
    value = re.sub(r"\s*=\s*", "=", text.strip().lower())
    if value in get_args(Quality):
        return value
    if re.fullmatch(OUTPUT_QUALITY_PATTERN, value):
        return str(VmafTarget(float(value.removeprefix(VMAF_PREFIX))))
    raise InvalidRequest(
        f"`output_quality` must be {', '.join(get_args(Quality))}, or a target such as `vmaf=95`, from {LEAST_VMAF} "
        f"to {MOST_VMAF} with at most one decimal{received(text)}"
    )


def encoder_quality(text: str | None) -> Quality | VmafTarget | None:
    """What a text of `parse_output_quality` asks for."""
    if text is not None and text.startswith(VMAF_PREFIX):
        return VmafTarget(float(text.removeprefix(VMAF_PREFIX)))
    return cast("Quality | None", text)


def _parse(text: str, *, name: str, among: tuple[str, ...]) -> str:
    """Raises InvalidRequest for a text that is none of these."""
    value = re.sub(r"^\.", "", text.strip().lower()) if name == "container" else text.strip().lower()
    if value in among:
        return value
    raise InvalidRequest(f"`{name}` must be {_listed(among, 'or')}{received(text)}")


parse_codec = partial(_parse, name="codec", among=get_args(VideoCodec))
parse_container = partial(_parse, name="container", among=get_args(ContainerName))
