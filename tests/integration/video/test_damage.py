"""Damaged and encrypted videos are told as such, and whole ones are not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.platform.errors import NotAVideo
from app.platform.media.recognition import ENCRYPTED
from worker.video.frame_scan import DAMAGE_WARNING

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
X265 = (
    "-c:v",
    "libx265",
    "-preset",
    "ultrafast",
    "-pix_fmt",
    "yuv420p",
    "-x265-params",
    "log-level=none:bframes=0",
)
LOST = "noise=drop=eq(n\\,4)"
GARBLED = "noise=amount=if(eq(n\\,0)\\,0\\,300)"


@pytest.mark.parametrize(
    ("coding", "damage"),
    [
        (X265, LOST),
        (("-c:v", "mjpeg", "-pix_fmt", "yuvj420p"), GARBLED),
        (("-c:v", "prores_ks", "-pix_fmt", "yuv422p10le"), GARBLED),
        (("-c:v", "utvideo", "-pix_fmt", "yuv420p"), GARBLED),
    ],
)
def test_damage_is_told(
    clip: Callable[..., Path],
    planned: Callable[..., Any],
    ffmpeg: Callable[..., bytes],
    tmp_path: Path,
    coding: tuple[str, ...],
    damage: str,
) -> None:
    whole, damaged = clip("whole.mkv", *coding, frames=8), tmp_path / "damaged.mkv"
    ffmpeg("-i", whole, "-c", "copy", "-bsf:v", damage, damaged)
    assert DAMAGE_WARNING in planned(damaged)[1].warnings
    assert planned(whole)[1].warnings == ()


def test_few_whole_pictures_are_rendered(
    clip: Callable[..., Path], rendered: Callable[..., Any], ffmpeg: Callable[..., bytes], tmp_path: Path
) -> None:
    """All but the first of eight are damaged, most so that they cannot be decoded."""
    whole, damaged = clip("whole.mkv", "-c:v", "utvideo", "-pix_fmt", "yuv420p", frames=8), tmp_path / "a.mkv"
    ffmpeg("-i", whole, "-c", "copy", "-bsf:v", GARBLED, damaged)
    result = rendered(damaged)
    assert 1 <= result.finished.properties.frames < 4
    assert DAMAGE_WARNING in result.finished.warnings


KEYS = (
    "-encryption_key",
    "76a6c65c5ea762046bd749a2e632ccbb",
    "-encryption_kid",
    "a7e61c373e219033c21091fa607bf3b8",
)


def _fairplay(data: bytes) -> bytes:
    return data.replace(b"avc1\0\0", b"drmi\0\0")


def _scrambled(data: bytes) -> bytes:
    """All packets of the stream 0x100."""
    packets = np.frombuffer(bytearray(data), np.uint8).reshape(-1, 188)
    packets[(packets[:, 1] & 31 == 1) & (packets[:, 2] == 0), 3] |= 0x80
    return packets.tobytes()


def _with_drm(data: bytes) -> bytes:
    """With ASF's object of extended content encryption, of no bytes, among those of its header."""
    encryption = bytes.fromhex("14E68A292226174CB935DAE07EE9289C") + (28).to_bytes(8, "little") + bytes(4)
    size = (int.from_bytes(data[16:24], "little") + len(encryption)).to_bytes(8, "little")
    return data[:16] + size + bytes([data[24] + 1]) + data[25:30] + encryption + data[30:]


@pytest.mark.parametrize(
    ("name", "coding", "encrypted"),
    [
        ("cenc.mp4", (*X264, "-encryption_scheme", "cenc-aes-ctr", *KEYS), bytes),
        ("fairplay.mp4", X264, _fairplay),
        ("scrambled.ts", X264, _scrambled),
        ("drm.wmv", ("-c:v", "wmv2"), _with_drm),
    ],
)
def test_encryption_is_told(
    clip: Callable[..., Path],
    planned: Callable[..., Any],
    name: str,
    coding: tuple[str, ...],
    encrypted: Callable[[bytes], bytes],
) -> None:
    path = clip(name, *coding, frames=5)
    path.write_bytes(encrypted(path.read_bytes()))
    with pytest.raises(NotAVideo) as refused:
        planned(path)
    assert refused.value.message == ENCRYPTED
