"""Files with streams in codecs outside the whitelist: which of their decoders ffprobe may open all the same.

ffprobe opens a decoder for every stream of a file and fails at the first refused one: one sound track in a rare codec
would make the whole video unreadable. So after such a failure the demuxer is asked for the codec of each stream, by a
copy that opens no decoder, and the run is repeated with the decoders of sound, subtitles and cover pictures allowed,
each for its own stream. They are opened but decode nothing: ffprobe decodes only if asked for frames, in which case
there is no second run, and the demuxer's own probing uses the whitelist of the whole file. A video stream in an
unlisted codec is refused by its name, unopened.

A run's stderr, which a file may have written, decides only whether the demuxer is asked.
"""

import re
from collections.abc import Mapping, Sequence

from app.platform.errors import CodecRefused, FfmpegError

from .whitelists import is_decodable

# Decoders allowed in addition to the whitelist, by stream index.
OpenedDecoders = Mapping[int, Sequence[str]]

# Codecs of cover pictures; their decoders read nothing of the file when they are opened.
COVER_CODECS = frozenset({"bmp", "tiff", "webp"})

# Prints each stream's kind and codec, and no packets.
COPYING = ("-map", "0", "-copy_unknown", "-c", "copy", "-t", "0", "-f", "framecrc", "pipe:1")

# ffprobe arguments that cause decoding: -show_frames, -count_frames, -analyze_frames, -show_entries frame=...
_DECODING = re.compile(r"^-(show|count|analyze)_frames|(^|:)(packets_and_)?frames?(=|:|_|$)")
_STREAM = re.compile(r"^#media_type ([0-9]+): (\w+)\n#codec_id \1: ([\w.-]+)$", re.M)
_CODEC = re.compile(r"^ D[.E][A-Z].{3} (\S+)(?: .*?\(decoders: ([^)]*)\))?", re.M)


def may_be_unlisted(error: FfmpegError, ffprobe_args: Sequence[str]) -> bool:
    """Whether the run may have failed at an unlisted codec, and may be repeated with its decoder opened."""
    decodes = any(_DECODING.search(argument) for argument in ffprobe_args)
    return not decodes and "not on whitelist" in (error.detail or "")


def decoders_by_codec(listing: str) -> Mapping[str, Sequence[str]]:
    """The decoders of each codec, by ffmpeg's answer to `-codecs`."""
    return {codec: decoders.split() if decoders else (codec,) for codec, decoders in _CODEC.findall(listing)}


def decoders_to_open(copied: str, decoders: Mapping[str, Sequence[str]]) -> OpenedDecoders:
    """The decoders of unlisted streams, by what COPYING prints. Raises CodecRefused for one of a video."""
    opened = {}
    for index, kind, codec in _STREAM.findall(copied):
        if is_decodable(codec) or codec not in decoders:
            continue
        if kind == "video" and codec not in COVER_CODECS:
            others = sum(other == "video" for _, other, _ in _STREAM.findall(copied)) - 1
            raise CodecRefused(codec=codec, stream_index=int(index), is_only_video=not others)
        opened[int(index)] = decoders[codec]
    return opened
