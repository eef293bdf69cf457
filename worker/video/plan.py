"""The result of preparing a render: one plan for the whole video, and one for each segment.

Both are plain data, which one worker stores in the database as JSON and another reads.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from pydantic import TypeAdapter

from app.platform.media.containers import (
    OUTPUT_CONTAINERS,
    ContainerName,
    OutputContainer,
    VideoCodec,
    segment_container,
)
from app.platform.media.first_frames import ContentLight, MasteringDisplay, Spatial
from app.platform.media.info import VideoProperties
from app.platform.media.rates import Retime
from app.platform.media.time_range import TimeRange
from worker.inference.frames import FrameFormat
from worker.video.colour import OutputTags
from worker.video.continuous_copy import ContinuousCopy
from worker.video.deinterlace import Deinterlacing
from worker.video.input_ranges import InputRanges

# A segment may discard so many decoded frames before its first whatever its length: encoders place keyframes up to 250
# frames apart unless they are told otherwise. One that discards more is at least as long as what it discards.
MOST_DISCARDED_FRAMES = 300


@dataclass(frozen=True, kw_only=True)
class RenderPlan:
    """What the segments and the finish need to know of the whole video.

    Attributes:
        stream_index: the video stream in the input file.
        source: format of decoded frames, after rotation: the network's input.
        target: format of the network's output and the encoder's input.
        decoded_pix_fmts: pixel formats that the decoder's filters may output; all have the memory layout of `source`.
        expansion: a filter for decoded frames, see ColourPlan.
        decoder: ffmpeg's decoder of the stream, where its usual one leaves transparency out; None: the usual one.
        source_time_base: seconds per tick of the source's timestamps.
        is_turned: whether ffmpeg turns or mirrors the decoded frames.
        seekable: whether frames can be found by the source's timestamps.
        tags: colour tags of the output.
        codec: of the output.
        container: of the output.
        reorder: whether the encoder may use B-frames.
        sample_aspect_ratio: of the output; frames are never resampled for it.
        timescale: ticks per second of all output times.
        total_ticks: duration of the output.
        offset_ticks: time from the input's start to its first frame.
        input_start_seconds: timestamp of the input's start, which becomes 0 in the output.
        frame_count: output frames.
        source_frame_count: frames that the decoder delivers, of the part, before they become two each.
        frame_rate: of the output, on average where it varies.
        encoder_rate: what encoders are told of the rate, where segments were made before the average was known; None:
            `frame_rate`.
        segment_count: number of segments.
        segment_seconds, segment_max_output_pixels: how long segments may be, so that another attempt at a half-made
            plan cuts the rest as the first did; None in plans of versions that did not store it.
        part: what is rendered of the input; None: all of it. It begins at `input_start_seconds`.
        retime: how output frames between two source frames are made.
        stabilise: how far the network's pictures are averaged over time, 0 (not at all) to 3.
        warnings: sentences for the user.
        deinterlacing: None if the source is progressive.
        continuous: how the copy is made that stands for the input, None if the input itself is read.
        spatial: tags of spherical and stereoscopic video, the same in source and output.
        has_captions: whether the source's first pictures have closed captions.
        mastering_display, content_light: HDR metadata, the same in source and output.
    """

    stream_index: int
    source: FrameFormat
    target: FrameFormat
    decoded_pix_fmts: tuple[str, ...]
    source_time_base: Fraction
    seekable: bool
    tags: OutputTags
    codec: VideoCodec
    reorder: bool
    sample_aspect_ratio: Fraction
    timescale: int
    total_ticks: int
    offset_ticks: int
    input_start_seconds: Fraction
    frame_count: int
    source_frame_count: int
    frame_rate: Fraction
    segment_count: int
    retime: Retime = Retime.NEAREST
    warnings: tuple[str, ...] = ()
    deinterlacing: Deinterlacing | None = None
    expansion: str | None = None
    decoder: str | None = None
    mastering_display: MasteringDisplay | None = None
    content_light: ContentLight | None = None
    spatial: Spatial | None = None
    has_captions: bool = False
    is_turned: bool = False
    continuous: ContinuousCopy | None = None
    encoder_rate: Fraction | None = None
    segment_seconds: Fraction | None = None
    segment_max_output_pixels: int | None = None
    part: TimeRange | None = None
    container: ContainerName = "mp4"
    stabilise: int = 0

    @property
    def file(self) -> OutputContainer:
        """The output's container."""
        return OUTPUT_CONTAINERS[self.container]

    @property
    def segment_file(self) -> OutputContainer:
        """The container of the segments, and of what is joined from them first."""
        return segment_container(self.codec, has_alpha=self.target.has_alpha)

    @property
    def alpha_tag(self) -> dict[str, str]:
        """ffmpeg's options for a copy of the video, whose pixel format it does not know: whether alpha is beside it."""
        is_layer = self.codec == "vp9" and self.target.has_alpha
        return {"metadata:s:v:0": "alpha_mode=1"} if is_layer else {}

    @property
    def segment_timescale(self) -> int:
        """What the segments' files say to be ticks per second."""
        return self.segment_file.time_base_den or self.timescale

    @property
    def written_timescale(self) -> int:
        """Ticks per second of the finished file."""
        return self.file.time_base_den or self.timescale

    def written_tick(self, tick: int) -> int:
        """`tick` as the finished file has it: rounded as ffmpeg does, halves away from zero."""
        scale = self.written_timescale
        return (2 * tick * scale + self.timescale) // (2 * self.timescale)

    @property
    def duration_seconds(self) -> Fraction:
        return Fraction(self.total_ticks, self.timescale)

    @property
    def skipped_seconds(self) -> Fraction:
        """What of the input precedes the part that is rendered."""
        return Fraction(0) if self.part is None else self.part.start

    @property
    def output(self) -> VideoProperties:
        return VideoProperties(
            width=self.target.width,
            height=self.target.height,
            frame_rate=self.frame_rate,
            duration_seconds=self.duration_seconds,
            frames=self.frame_count,
        )

    @property
    def coded_rate(self) -> Fraction:
        """The rate that encoders are told."""
        return self.encoder_rate or self.frame_rate

    @property
    def coding_id(self) -> str:
        """Identifies what segments have to have in common; none of it changes while the rest is planned."""
        common = _RENDER_PLAN.dump_json(self, exclude=_OF_THE_WHOLE)
        return hashlib.sha256(common).hexdigest()[:16]

    def to_json(self) -> str:
        return _RENDER_PLAN.dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> "RenderPlan":
        return _RENDER_PLAN.validate_json(text)


@dataclass(frozen=True, kw_only=True)
class SegmentPlan:
    """One run of source frames, and the output frames that are made of them.

    Attributes:
        index: from 0.
        first_frame: number of the first source frame in presentation order, from 0.
        first_pts, last_pts: timestamps of the first and the last source frame, in ticks of the source.
        seek_ticks: where to start decoding, in ticks of the source, the best first; decoding from the start of the file
            is the fallback.
        repeats: for each source frame, how many output frames show it; 1 for each frame around the segment.
        between: for each source frame, the phases (see `timeline.FULL_PHASE`) of the output frames that follow these
            and are interpolated between it and the next source frame, which is then in the run too. Empty: none.
        checksums: for each source frame, the Adler-32 (from 0, as ffmpeg's framecrc) of its bytes.
        start_tick: timestamp of the first output frame in the whole video.
        runs: runs of equal frame duration: (output frames, ticks each).
        discarded_frames: how many source frames are decoded before the first, from the first of `seek_ticks` on or,
            without any, from the start of the file.
        coding_id: of the render's plan.
        input_ranges: the bytes of the input that decoding from the first of `seek_ticks` should read; None: all.
        leading, trailing: how many of the network's input frames, at the beginning and at the end, are frames around
            the segment, which no output frame shows: those within it are averaged with them.
    """

    index: int
    first_frame: int
    first_pts: int
    last_pts: int
    seek_ticks: tuple[int, ...]
    repeats: tuple[int, ...]
    checksums: tuple[int, ...]
    start_tick: int
    runs: tuple[tuple[int, int], ...]
    between: tuple[tuple[int, ...], ...] = ()
    discarded_frames: int = 0
    coding_id: str = ""
    input_ranges: InputRanges | None = None
    leading: int = 0
    trailing: int = 0

    @property
    def source_frames(self) -> int:
        """How many source frames the segment decodes."""
        return len(self.repeats)

    @property
    def used_frames(self) -> int:
        """How many frames of the network are shown, source frames and interpolated ones."""
        return self.network_frames - self.leading - self.trailing

    @property
    def network_frames(self) -> int:
        """How many frames go through the network, those around the segment included."""
        return sum(1 for count in self.repeats if count) + sum(map(len, self.between))

    @property
    def output_frames(self) -> int:
        return sum(self.repeats) + sum(map(len, self.between)) - self.leading - self.trailing

    @property
    def duration_ticks(self) -> int:
        return sum(count * ticks for count, ticks in self.runs)

    def output_ticks(self) -> Iterator[int]:
        """The timestamp of each output frame; the segment's first is 0."""
        tick = 0
        for count, duration in self.runs:
            for _ in range(count):
                yield tick
                tick += duration

    def to_json(self) -> str:
        return _SEGMENT_PLAN.dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> "SegmentPlan":
        return _SEGMENT_PLAN.validate_json(text)


_RENDER_PLAN = TypeAdapter(RenderPlan)
# What is not known before the whole video is read, and changes no segment that is planned by then, and how long these
# are. Frames that are found otherwise (`seekable`) or deinterlaced are compared with the segment's checksums.
_OF_THE_WHOLE = {
    "total_ticks",
    "frame_count",
    "source_frame_count",
    "frame_rate",
    "segment_count",
    "retime",
    "warnings",
    "seekable",
    "has_captions",
    "deinterlacing",
    "segment_seconds",
    "segment_max_output_pixels",
    "part",
    "container",
    "stabilise",
}
_SEGMENT_PLAN = TypeAdapter(SegmentPlan)
