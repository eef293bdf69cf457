"""Clips of the corpus as ffmpeg makes them: drawn frames in, a file of the wanted kind out."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.media.drawing import draw, write_click

CAREFUL = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "12", "-g", "10", "-bf", "2")
X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-crf", "12")
X265_PARAMETERS = "log-level=none:keyint=10"
AAC = ("-c:a", "aac", "-b:a", "128k")
# Of a usual clip: frames, and their rate.
COUNT = 16
RATE = Fraction(25)
# The click is heard when frame 6 of a usual clip is shown.
CLICK_SECONDS = 6 / RATE


@dataclass(frozen=True, kw_only=True)
class Tags:
    """Colour tags by ffmpeg's names."""

    primaries: str
    transfer: str
    matrix: str
    range: str = "tv"


BT709 = Tags(primaries="bt709", transfer="bt709", matrix="bt709")
BT709_FULL = Tags(primaries="bt709", transfer="bt709", matrix="bt709", range="pc")
SD_525 = Tags(primaries="smpte170m", transfer="smpte170m", matrix="smpte170m")
SD_625 = Tags(primaries="bt470bg", transfer="smpte170m", matrix="bt470bg")
PQ = Tags(primaries="bt2020", transfer="smpte2084", matrix="bt2020nc")
HLG = Tags(primaries="bt2020", transfer="arib-std-b67", matrix="bt2020nc")
UNTAGGED = Tags(primaries="unknown", transfer="unknown", matrix="unknown", range="unknown")

# Names that the scale filter has for the matrices.
_SCALE_MATRIX = {"bt709": "bt709", "smpte170m": "bt601", "bt470bg": "bt601", "bt2020nc": "bt2020"}


def run(*arguments: str | Path, pipe: bytes | None = None) -> None:
    done = subprocess.run(
        ["ffmpeg", "-v", "error", "-y", *map(str, arguments)],
        capture_output=True,
        check=False,
        input=b"" if pipe is None else pipe,
    )
    if done.returncode:
        raise RuntimeError(f"ffmpeg {' '.join(map(str, arguments))}:\n{done.stderr.decode()[-2000:]}")


def tag_options(tags: Tags) -> list[str]:
    return [
        *("-color_primaries", tags.primaries, "-color_trc", tags.transfer),
        *("-colorspace", tags.matrix, "-color_range", tags.range),
    ]


def tag_filter(tags: Tags) -> str:
    """Newer versions of ffmpeg take an encoder's tags from the frames alone, which the scale filter tags."""
    return (
        f"setparams=range={tags.range}:color_primaries={tags.primaries}:color_trc={tags.transfer}"
        f":colorspace={tags.matrix}"
    )


@dataclass(frozen=True, kw_only=True)
class Sound:
    """A track with a click. `codec`: ffmpeg's options."""

    seconds: Fraction = COUNT / RATE
    click_at: Fraction = CLICK_SECONDS
    channels: int = 1
    codec: Sequence[str] = AAC
    language: str = "eng"


def encode(
    path: Path,
    *,
    count: int = COUNT,
    size: tuple[int, int] = (96, 64),
    rate: str = str(RATE),
    encoder: Sequence[str] = X264,
    pix_fmt: str = "yuv420p",
    colours: Tags = BT709,
    tagged: bool = True,
    before: str = "",
    after: str = "",
    pictures: NDArray[np.uint16] | None = None,
    moments: int = 1,
    before_picture: Sequence[str] = (),
    sounds: Sequence[Sound] = (Sound(),),
    extra_inputs: Sequence[str | Path] = (),
    options: Sequence[str] = (),
) -> Path:
    """Encode drawn frames and clicks to `path`.

    `colours` is how the pixels are converted; `tagged` whether the file says so. `before` and `after` are filters
    around the conversion, each ending or starting without a comma. `pictures` takes the place of the drawn frames,
    `before_picture` are input options of theirs.
    """
    frames = draw(count, *size) if pictures is None else pictures
    filters = [
        *([before] if before else []),
        f"scale=out_color_matrix={_SCALE_MATRIX[colours.matrix]}:out_range={colours.range}:flags={CAREFUL}",
        f"format={pix_fmt}",
        *([after] if after else []),
        tag_filter(colours if tagged else UNTAGGED),
    ]
    inputs: list[str | Path] = []
    codecs: list[str] = []
    for index, sound in enumerate(sounds):
        click = path.with_name(f"{path.name}.{index}.wav")
        write_click(
            click,
            seconds=float(sound.seconds),
            at_seconds=float(sound.click_at),
            channels=sound.channels,
        )
        inputs += ["-i", click]
        codecs += [option.replace(":a", f":a:{index}") for option in sound.codec]
        codecs += [f"-metadata:s:a:{index}", f"language={sound.language}"]
    height, width = frames.shape[1:3]
    try:
        run(
            *(*before_picture, "-f", "rawvideo", "-pix_fmt", "rgb48le", "-s", f"{width}x{height}"),
            *("-framerate", str(Fraction(rate) * moments), "-i", "pipe:0", *inputs, *extra_inputs),
            *("-map", "0:v", *(word for index in range(len(sounds)) for word in ("-map", f"{index + 1}:a"))),
            *("-vf", ",".join(filters), "-fps_mode", "passthrough", *encoder, *codecs),
            *(tag_options(colours) if tagged else ()),
            *options,
            path,
            pipe=frames.tobytes(),
        )
    finally:
        for sound_file in path.parent.glob(f"{path.name}.*.wav"):
            sound_file.unlink()
    return path
