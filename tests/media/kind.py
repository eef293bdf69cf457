"""What a kind of file is: how a clip of it is made, and what must come of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from tests.media.encoding import BT709, COUNT, RATE, Tags


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One clip: how it is made, and what its render must be like.

    `size`: of the input as displayed. `frames`: of the input, None where only a decoder can say. `first_number`: the
    one drawn on the first of them. `rate`: what the input's timestamps are multiples of, None where they vary.
    `fields`: what the upload asks for. `tags`, `depth`, `sar`: of the output. `clockwise`: what turns the coded
    pictures upright. `sounds`, `channels`: of the output's tracks. `most_samples`: how far the sound may move, in
    1/48000 s. `warnings`: a pattern for each warning. `is_interlaced`: compared with what the camera saw. `encoders`:
    that ffmpeg must have.
    """

    name: str
    suffix: str
    make: Callable[[Path], Path]
    about: str
    size: tuple[int, int] = (96, 64)
    frames: int | None = COUNT
    first_number: int = 0
    rate: Fraction | None = RATE
    fields: dict[str, str] = field(default_factory=dict)
    tags: Tags = BT709
    depth: int = 8
    sar: Fraction = Fraction(1)
    clockwise: int = 0
    sounds: Sequence[str] = ("aac",)
    channels: Sequence[int] = (1,)
    most_samples: int = 1
    warnings: Sequence[str] = ()
    is_hdr10: bool = False
    has_extras: bool = False
    is_interlaced: bool = False
    encoders: Sequence[str] = ("libx264",)

    @property
    def file_name(self) -> str:
        return self.name + self.suffix

    @property
    def target_rate(self) -> Fraction | None:
        """Exact, of what `fields` ask for."""
        ntsc = {"23.976": Fraction(24000, 1001), "29.97": Fraction(30000, 1001)}
        asked = self.fields.get("target_fps")
        return None if asked is None else ntsc.get(asked, Fraction(asked))
