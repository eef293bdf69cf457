"""How many boxes an MP4 file may consist of."""

from pathlib import Path

import pytest

from app.platform.errors import LimitExceeded
from app.platform.media.mp4_boxes import MOST_BOXES, check_box_count

FREE = b"\x00\x00\x00\x08free"
LONG = b"\x00\x00\x00\x01mdat" + (24).to_bytes(8) + bytes(8)
TO_THE_END = b"\x00\x00\x00\x00mdat"


@pytest.mark.parametrize(
    ("content", "is_accepted"),
    [
        (FREE * MOST_BOXES, True),
        (FREE * MOST_BOXES + b"abc", False),
        (FREE * (MOST_BOXES + 1), False),
        (LONG * (MOST_BOXES + 1), False),
        (TO_THE_END + FREE * MOST_BOXES, True),
        (b"\x1a\x45\xdf\xa3" + FREE * MOST_BOXES, True),
        (b"\x00\x00\x00\x05free" * MOST_BOXES, True),
        (b"\x00\x00\x00\x01mdat\x00", True),
        (b"", True),
    ],
)
def test_a_file_of_too_many_boxes_is_refused_with_the_command_that_joins_them(
    content: bytes, is_accepted: bool, tmp_path: Path
) -> None:
    """What is no MP4, or ends in a box without a size, has few."""
    path = tmp_path / "boxes.mp4"
    path.write_bytes(content)
    if is_accepted:
        check_box_count(path)
    else:
        with pytest.raises(LimitExceeded, match=r"100,000 fragments.* -c copy"):
            check_box_count(path)
