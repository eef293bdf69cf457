"""Sound with gaps of more than a minute, and sound that comes long after the film."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.film import SOUND_RATE, Film

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")


@pytest.mark.parametrize(
    ("codec", "starts", "heard_at"),
    [
        # Within the film of 300 s: padded; after it: cut.
        (("-c:a", "pcm_s16le"), (0, 100, 250), (0, 100, 250)),
        (("-c:a", "aac"), (0, 100, 6000), (0, 100)),
    ],
)
def test_sound_keeps_to_the_film(
    codec: tuple[str, ...],
    starts: tuple[int, ...],
    heard_at: tuple[int, ...],
    tmp_path: Path,
    ffmpeg: Callable[..., bytes],
    numbered: Callable[..., str],
    rendered: Callable[..., Any],
) -> None:
    slides = numbered(frames=3, after=",settb=1/1000,setpts=N*100*1000,trim=end_frame=3")
    tone, source = tmp_path / "tone.mkv", tmp_path / "source.mkv"
    ffmpeg("-f", "lavfi", "-i", f"sine=r=8000:d={len(starts)}", "-ar", "8000", "-ac", "1", *codec, tone)
    # Of each second of the tone, the packets are moved to where it is to be heard.
    late = "".join(
        f"+gte(TS*TB\\,{n})*{at - n - (starts[n - 1] - n + 1 if n else 0)}" for n, at in enumerate(starts)
    )
    ffmpeg(
        *("-f", "lavfi", "-i", slides, "-i", tone, "-map", "0:v", "-map", "1:a", "-fps_mode", "passthrough"),
        *(*X264, "-c:a", "copy", "-bsf:a", f"setts=ts=TS+(0{late})/TB", "-max_interleave_delta", "0", source),
    )
    result = rendered(source)
    film = Film(result.output)
    assert float(film.facts["format"]["duration"]) < 310
    sound = np.abs(film.sound(0, start=film.start, seconds=Fraction(300)))
    seconds = sound.reshape(300, SOUND_RATE).max(axis=1) > 0.05
    edges = {at + edge for at in heard_at for edge in (-1, 1)}
    assert set(np.flatnonzero(seconds)) - edges == set(heard_at)
    for at in heard_at:
        begins = np.flatnonzero(sound[max(0, at - 1) * SOUND_RATE :] > 0.05)[0] / SOUND_RATE + max(0, at - 1)
        assert abs(begins - at) < 0.15
    assert any("minute" in warning for warning in result.finished.warnings) == (len(heard_at) < len(starts))
