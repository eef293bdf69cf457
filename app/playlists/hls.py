"""Writes a media playlist (RFC 8216)."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate, pairwise

CONTENT_TYPE = "application/vnd.apple.mpegurl"
# The first whose segments may be fragments of MP4.
VERSION = 7
MICROSECONDS = 1_000_000
INIT_NAME = "init.mp4"
FRAGMENT_SUFFIX = ".m4s"


def media_playlist(durations: Sequence[Fraction], *, listed: int, is_ended: bool, query: str) -> str:
    """A list that grows: of segments of these durations in seconds the first `listed`, at addresses relative to it.

    The target duration is that of all segments, so that it never changes. Durations are rounded so that their sum is
    right to the microsecond.
    """
    ends = [round(end * MICROSECONDS) for end in accumulate(durations, initial=Fraction(0))]
    lengths = [after - before for before, after in pairwise(ends)]
    longest = max(1, *(round(Fraction(length, MICROSECONDS)) for length in lengths))
    lines = [
        "#EXTM3U",
        f"#EXT-X-VERSION:{VERSION}",
        f"#EXT-X-TARGETDURATION:{longest}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-PLAYLIST-TYPE:EVENT",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        # Players begin near the end of a list that grows, unless it says where.
        "#EXT-X-START:TIME-OFFSET=0",
        f'#EXT-X-MAP:URI="stream/{INIT_NAME}?{query}"',
    ]
    for position, length in enumerate(lengths[:listed]):
        whole, rest = divmod(length, MICROSECONDS)
        lines += [f"#EXTINF:{whole}.{rest:06d},", f"stream/{position}{FRAGMENT_SUFFIX}?{query}"]
    if is_ended:
        lines.append("#EXT-X-ENDLIST")
    return "\n".join([*lines, ""])
