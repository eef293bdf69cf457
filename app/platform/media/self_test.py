"""Tests whether the video programs work: they encode a few generated frames and sounds, and decode them again."""

from dataclasses import dataclass
from pathlib import Path

from app.platform.byte_sizes import GIB
from app.platform.errors import FfmpegError
from app.platform.media.containers import MP4
from app.platform.media.ffmpeg import FfmpegRunner

WALL_SECONDS = 60.0
MEMORY_BYTES = 4 * GIB

VIDEO = "testsrc2=size=256x144:rate=25:duration=0.2"
SOUND = "sine=duration=0.2"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An encoder that work needs, and the graph of a generated source to encode with it."""

    encoder: str
    source: str
    suffix: str

    def path_in(self, directory: Path) -> Path:
        return directory / f"{self.encoder}{self.suffix}"


SAMPLES = (
    Sample(encoder="libx264", source=VIDEO, suffix=MP4.suffix),
    Sample(encoder="libx265", source=VIDEO, suffix=MP4.suffix),
    Sample(encoder="aac", source=SOUND, suffix=".m4a"),
)


def encode(runner: FfmpegRunner, sample: Sample, path: Path) -> None:
    """Raises FfmpegError if the encoder does not write `path`."""
    is_video = sample.source is VIDEO
    options = {"vcodec": sample.encoder, "pix_fmt": "yuv420p"} if is_video else {"acodec": sample.encoder}
    source = runner.generated_input(sample.source)
    runner.run(runner.output(source, path, **options), purpose=f"encoding with {sample.encoder}")
    if not path.is_file() or not path.stat().st_size:
        raise FfmpegError("The program reports success but has written nothing.")


def decode(runner: FfmpegRunner, path: Path, scratch: Path) -> None:
    """Raises FfmpegError if the file cannot be decoded to one in `scratch`."""
    decoded = scratch / f"{path.stem}.nut"
    command = runner.output(runner.input(path), decoded, vcodec="rawvideo", acodec="pcm_s16le")
    runner.run(command, purpose=f"decoding {path.stem}")


def check_programs(runner: FfmpegRunner, scratch: Path) -> None:
    """Encodes, probes and decodes every sample in the empty directory `scratch`. Raises FfmpegError."""
    for sample in SAMPLES:
        path = sample.path_in(scratch)
        encode(runner, sample, path)
        runner.probe(path, "-show_streams")
        decode(runner, path, scratch)
