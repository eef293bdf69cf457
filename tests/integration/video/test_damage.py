"""Damaged and encrypted videos are told as such, and whole ones are not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.platform.errors import NotAVideo
from app.platform.media.recognition import ENCRYPTED
from worker.video.scan import DAMAGE_WARNING

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


@pytest.mark.parametrize("kind", ["cenc", "drmi"])
def test_encryption_is_told(clip: Callable[..., Path], planned: Callable[..., Any], kind: str) -> None:
    key, key_id = "76a6c65c5ea762046bd749a2e632ccbb", "a7e61c373e219033c21091fa607bf3b8"
    encryption = ("-encryption_scheme", "cenc-aes-ctr", "-encryption_key", key, "-encryption_kid", key_id)
    path = clip("a.mp4", *X264, *(encryption if kind == "cenc" else ()), frames=5)
    if kind == "drmi":
        # The sample entry of FairPlay.
        path.write_bytes(path.read_bytes().replace(b"avc1\0\0", b"drmi\0\0"))
    with pytest.raises(NotAVideo) as refused:
        planned(path)
    assert refused.value.message == ENCRYPTED
