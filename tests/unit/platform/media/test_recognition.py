"""What ffprobe says beside its answer."""

from typing import Any

import pytest

from app.platform.errors import FfmpegError
from app.platform.media.process import DISK_FULL
from app.platform.media.recognition import is_encrypted, refused_frame_sizes
from app.platform.media.scanned_lines import with_refused_decoder

SAID = """[h264 @ 0x5604d37d0d40] [IMGUTILS @ 0x7ffd3f174a60] [error] Picture size 16384x16384 is invalid
[mjpeg @ 0x55aa0dc4fc80] [IMGUTILS @ 0x7fff56] [error] Picture size 8192x8191 exceeds specified max pixel count 18000000
    title           : [h264 @ 0x1] Picture size 1x1 is invalid
"""
REFUSED = """[tta @ 0x55a9] [error] Codec (tta) not on whitelist 'h264,aac'
[warning] Could not open codec for input stream 1
"""


def test_refused_frame_sizes_are_told_by_their_decoder() -> None:
    assert refused_frame_sizes(SAID) == [(16384, 16384), (8192, 8191)]
    assert refused_frame_sizes(SAID, ("mjpeg",)) == [(8192, 8191)]
    assert refused_frame_sizes("all is well") == []


def test_a_refused_decoder_is_allowed_for_its_stream_once() -> None:
    error = FfmpegError("failed", detail=REFUSED)
    assert with_refused_decoder(error, {}, ["-show_packets"]) == {1: "tta"}
    assert with_refused_decoder(error, {0: "wavpack"}, []) == {0: "wavpack", 1: "tta"}
    assert with_refused_decoder(error, {1: "tta"}, []) is None
    assert with_refused_decoder(FfmpegError("failed", detail="Invalid data"), {}, []) is None


@pytest.mark.parametrize(
    "argument",
    ["-show_frames", "-count_frames", "frame=pts", "stream=index:frame=pts", "frame_tags=x", "frames"],
)
def test_no_unlisted_decoder_is_opened_where_it_would_decode(argument: str) -> None:
    assert (
        with_refused_decoder(FfmpegError("failed", detail=REFUSED), {}, ["-show_entries", argument]) is None
    )
    harmless = ["-show_entries", "stream=nb_frames,avg_frame_rate:packet=pts"]
    assert with_refused_decoder(FfmpegError("failed", detail=REFUSED), {}, harmless) == {1: "tta"}


def test_so_many_decoders_are_no_users_file() -> None:
    opened = dict.fromkeys(range(100, 132), "tta")
    assert with_refused_decoder(FfmpegError("failed", detail=REFUSED), opened, []) is None


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


def test_a_refused_decoder_is_ffprobes_word_and_not_that_of_a_file() -> None:
    titled = "".join(f"[mov @ 0x1] [warning] the title {line}\n" for line in REFUSED.splitlines())
    assert with_refused_decoder(FfmpegError("failed", detail=titled), {}, []) is None


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
