"""What one run of ffprobe tells of a small file: its streams, and all of their packets.

A start of ffprobe costs more than reading such a file does, so all that several steps need is read at once.
"""

from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from app.platform.byte_sizes import MIB
from app.platform.errors import FfmpegAnswerTooLong, FfmpegKilled

from .ffmpeg import FfmpegRunner
from .ffprobe_output import KnownLines, fraction, section_list

STREAM_FIELDS = (
    "index,id,codec_type,codec_name,codec_tag_string,profile,width,height,coded_width,coded_height,pix_fmt,"
    "sample_aspect_ratio,time_base,avg_frame_rate,r_frame_rate,duration_ts,nb_frames,color_range,color_space,"
    "color_transfer,color_primaries,chroma_location,field_order,channels,channel_layout,sample_rate"
)
PROBE_ENTRIES = (
    "format=format_name,start_time,duration,nb_streams:format_tags"
    f":stream={STREAM_FIELDS}:stream_disposition=default,attached_pic:stream_tags:stream_side_data:chapter=id"
)
# ffprobe prints the fields in this order in any case; side data may follow, on the same line or the next one.
PACKET_FIELDS = "stream_index,pts,dts,duration,size,pos,flags"
PACKET_ENTRIES = f"packet={PACKET_FIELDS}:packet_side_data=side_data_type"
# A file of at most this size is described and its packets are read in one run of ffprobe. The run ends at these limits,
# and both are done again separately.
MOST_BYTES = 16 * MIB
CPU_SECONDS = 1
OUTPUT_BYTES = 2 * MIB
UNKNOWN = "N/A"


@dataclass(frozen=True, kw_only=True)
class FileListing:
    """`answer`: ffprobe's to PROBE_ENTRIES. `packets`: as by `scan_packets`. `said`: ffprobe's stderr."""

    answer: dict[str, Any]
    packets: KnownLines
    said: str

    def packets_of(self, index: int) -> Generator[str]:
        """The stream's packets as ffprobe prints `packet=pts,dts,duration,size,pos,flags` of it alone."""
        for line in self.packets:
            fields = line.split(",")
            if fields[0] == str(index):
                yield ",".join(fields[1:7])

    def sound_packets(self) -> Generator[str]:
        """The packets of sound as ffprobe prints `packet=stream_index,pts_time,duration_time,pos` and side data."""
        bases = {
            str(stream["index"]): fraction(stream.get("time_base")) or Fraction(1)
            for stream in section_list(self.answer, "streams")
            if stream.get("codec_type") == "audio"
        }
        for line in self.packets:
            index, pts, _dts, duration, _size, place, _flags, *more = line.split(",")
            if (base := bases.get(index)) is not None:
                yield ",".join((index, _seconds(pts, base), _seconds(duration, base), place, *more))


def list_file(runner: FfmpegRunner, path: Path) -> FileListing | None:
    """Reads the file in one run; None for a file that may take more than its limits. Raises FfmpegError."""
    if path.stat().st_size > MOST_BYTES:
        return None
    try:
        answer, said = runner.probe_with_stderr(
            path,
            *("-show_entries", f"{PROBE_ENTRIES}:{PACKET_ENTRIES}"),
            cpu_seconds=CPU_SECONDS,
            output_limit_bytes=OUTPUT_BYTES,
        )
    except (FfmpegKilled, FfmpegAnswerTooLong):
        return None
    packets = _packets_of(answer, said)
    answer.pop("packets", None)
    return FileListing(answer=answer, packets=packets, said=said)


def _packets_of(answer: dict[str, Any], said: str) -> KnownLines:
    """The packets as lines, from ffprobe's answer to PACKET_ENTRIES in JSON."""
    fields = PACKET_FIELDS.split(",")
    lines = [
        ",".join(
            [str(packet.get(field, UNKNOWN)) for field in fields]
            + [str(entry.get("side_data_type")) for entry in section_list(packet, "side_data_list")]
        )
        for packet in section_list(answer, "packets")
    ]
    return KnownLines(lines, said)


def _seconds(ticks: str, base: Fraction) -> str:
    """As ffprobe prints them, from its ticks."""
    return ticks if ticks == UNKNOWN else f"{int(ticks) * (base.numerator / base.denominator):.6f}"
