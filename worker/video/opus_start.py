"""Opus in Matroska: ffmpeg 5 moves its start by the encoder's delay a second time."""

from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

from app.platform.media.ffmpeg import FfmpegRunner, Programs

# Of libopus, and so of nearly all Opus: 312 samples.
DELAY_SECONDS = Fraction(312, 48_000)
# Bitstream filters that move it back, in ticks of Matroska, where ffmpeg 5 runs them, and of the sound.
FILTERS = ("", "setts=ts=TS+6.5", "setts=ts=TS+312")

_found: dict[Programs, str] = {}


def opus_filter(runner: FfmpegRunner) -> str:
    """The filter for packets of Opus that this ffmpeg needs; found once, by files of a twentieth of a second."""
    if runner.programs not in _found:
        with TemporaryDirectory(prefix="opus-") as name:
            path = Path(name) / "tone.mkv"
            for one in FILTERS:
                options = {"c:a": "libopus", "f": "matroska", "avoid_negative_ts": "disabled"}
                tone = runner.generated_input("sine=d=0.05:r=48000")
                stream = runner.output(tone, path, **options, **({"bsf:a": one} if one else {}))
                runner.run(stream, purpose="trying its sound")
                answer = runner.probe(path, "-read_intervals", "%+#1", "-show_entries", "packet=pts_time")
                first = Fraction(answer["packets"][0]["pts_time"])
                if abs(first + DELAY_SECONDS) < Fraction(3, 2000):
                    break
            else:
                one = ""
        _found[runner.programs] = one
    return _found[runner.programs]
