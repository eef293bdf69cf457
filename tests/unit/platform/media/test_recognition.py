"""What ffprobe says beside its answer."""

from typing import Any

import pytest

from app.platform.media.process import DISK_FULL
from app.platform.media.recognition import is_encrypted, refused_frame_sizes

SAID = """[h264 @ 0x5604d37d0d40] [IMGUTILS @ 0x7ffd3f174a60] [error] Picture size 16384x16384 is invalid
[mjpeg @ 0x55aa0dc4fc80] [IMGUTILS @ 0x7fff56] [error] Picture size 8192x8191 exceeds specified max pixel count 18000000
    title           : [h264 @ 0x1] Picture size 1x1 is invalid
"""


def test_refused_frame_sizes_are_told_by_their_decoder() -> None:
    assert refused_frame_sizes(SAID) == [(16384, 16384), (8192, 8191)]
    assert refused_frame_sizes(SAID, ("mjpeg",)) == [(8192, 8191)]
    assert refused_frame_sizes("all is well") == []


@pytest.mark.parametrize(
    "said",
    [
        "[error] av_interleaved_write_frame(): No space left on device",
        "[out#0/matroska @ 0x5571346f4740] [error] Error closing file: No space left on device",
        "[vost#0:0 @ 0x5571] [mux @ 0x5572] [error] Error writing: Disk quota exceeded",
    ],
)
def test_a_full_disk_is_ffmpegs_word_and_not_that_of_a_file(said: str) -> None:
    assert DISK_FULL.search(f"[mov @ 0x1] [warning] before\n{said}\nafter")
    assert not DISK_FULL.search(f"[mov @ 0x1] [warning] the title {said}")


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        ({"tags": {"enc_key_id": "a2tra2tra2tra2tra2traw=="}}, ""),  # Matroska
        ({}, "[matroska,webm @ 0x55a7d9324880] [error] Unsupported encoding type"),
        ({"codec_tag_string": "[219][0][0][0]"}, ""),  # HLS Sample Encryption
        ({"codec_tag_string": "drms"}, ""),
    ],
)
def test_encrypted_streams_are_told_by_what_ffprobe_shows(stream: dict[str, Any], said: str) -> None:
    assert is_encrypted(stream, said)
    assert not is_encrypted({"codec_tag_string": "avc1", "tags": {"ENC_KEY_ID": "x"}})
