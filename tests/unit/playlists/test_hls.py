"""What players read of a render: RFC 8216."""

from fractions import Fraction
from itertools import pairwise

import pytest

from app.platform.errors import Forbidden, NotFound
from app.platform.playlist_links import check_signature, signed_query
from app.playlists.hls import media_playlist

THIRD = Fraction(1, 3)
HEAD = """#EXTM3U
#EXT-X-VERSION:7
#EXT-X-TARGETDURATION:4
#EXT-X-MEDIA-SEQUENCE:0
#EXT-X-PLAYLIST-TYPE:EVENT
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-START:TIME-OFFSET=0
#EXT-X-MAP:URI="stream/init.mp4?a=1"
"""


def listed(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("#EXTINF:")]


def test_it_lists_what_is_finished():
    durations = [Fraction(4004, 1001), Fraction(3), Fraction(4)]
    growing = media_playlist(durations, listed=2, is_ended=False, query="a=1")
    assert growing == f"{HEAD}#EXTINF:4.000000,\nstream/0.m4s?a=1\n#EXTINF:3.000000,\nstream/1.m4s?a=1\n"


def test_it_only_grows_until_it_ends():
    durations = [Fraction(2), Fraction(4), Fraction(1, 2)]
    states = [(1, False), (2, False), (3, True)]
    texts = [media_playlist(durations, listed=count, is_ended=end, query="a=1") for count, end in states]
    for before, after in pairwise(texts):
        assert after.startswith(before)
    assert [text.endswith("#EXT-X-ENDLIST\n") for text in texts] == [False, False, True]


def test_durations_do_not_drift():
    lines = listed(media_playlist([THIRD] * 3000, listed=3000, is_ended=True, query=""))
    lengths = [Fraction(line.removeprefix("#EXTINF:").removesuffix(",")) for line in lines]
    assert sum(lengths) == 1000
    assert max(abs(length - THIRD) for length in lengths) <= Fraction(1, 1_000_000)


@pytest.mark.parametrize(
    ("longest", "target"), [(Fraction(1, 10), 1), (Fraction(449, 100), 4), (Fraction(9, 2) + THIRD, 5)]
)
def test_no_segment_is_longer_than_the_target(longest, target):
    text = media_playlist([longest, Fraction(1, 10)], listed=1, is_ended=False, query="")
    assert f"#EXT-X-TARGETDURATION:{target}\n" in text


def test_a_link_is_of_one_render_and_expires():
    query = dict(
        pair.split("=") for pair in signed_query("one", key=b"k", lifetime_seconds=240, now=1005).split("&")
    )
    assert 1005 + 230 <= int(query["expires"]) <= 1005 + 240
    check_signature("one", **query, key=b"k", now=1005)
    with pytest.raises(Forbidden):
        check_signature("one", **query, key=b"k", now=1005 + 240)
    for render_id, key, more in (
        ("two", b"k", {}),
        ("one", b"other", {}),
        ("one", b"k", {"expires": "9999999"}),
    ):
        with pytest.raises(NotFound):
            check_signature(render_id, **{**query, **more}, key=key, now=1005)


def test_a_list_that_is_read_again_has_the_same_addresses():
    queries = {
        signed_query("one", key=b"k", lifetime_seconds=86_400, now=now)
        for now in range(7200, 7200 + 3600, 60)
    }
    assert len(queries) <= 2
