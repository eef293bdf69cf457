"""The eight ways in which a display matrix turns and mirrors: a deinterlaced video is shown like any other."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits
from app.platform.media.probe import probe_video
from app.platform.settings import Settings
from worker.video.colour import plan_colour
from worker.video.decoder import decoder_options, filter_chain
from worker.video.deinterlace import Deinterlacing

# a, b, c, d of the matrix: degrees clockwise, and whether left and right are swapped before.
ORIENTATIONS = {
    (1, 0, 0, 1): (0, False),
    (0, 1, -1, 0): (90, False),
    (-1, 0, 0, -1): (180, False),
    (0, -1, 1, 0): (270, False),
    (-1, 0, 0, 1): (0, True),
    (0, -1, -1, 0): (90, True),
    (1, 0, 0, -1): (180, True),
    (0, 1, 1, 0): (270, True),
}


def test_deinterlaced_video_is_turned_as_ffmpeg_turns_it(
    clip: Callable[..., Path], runner: FfmpegRunner, ffmpeg: Callable[..., bytes], tmp_path: Path
) -> None:
    plain = clip("plain.mp4", frames=1, size="32x16").read_bytes()
    inputs: list[Any] = []
    outputs: list[Any] = []
    pictures: dict[tuple[int, int, int, int], tuple[Path, Path]] = {}
    for number, (matrix, orientation) in enumerate(ORIENTATIONS.items()):
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(_turned(plain, matrix))
        video = probe_video(runner, path, limits=MediaLimits.from_settings(Settings())).video
        assert (video.rotation, video.is_mirrored) == orientation
        # Frames that are not marked as interlaced pass the filter unchanged.
        deinterlacing = Deinterlacing(
            filter="bwdif",
            parity="auto",
            marked_only=True,
            rotation=video.rotation,
            is_mirrored=video.is_mirrored,
        )
        colour = plan_colour(video, scale=4)
        chain = filter_chain(
            time_base=video.time_base,
            source=colour.source,
            decoded_pix_fmts=colour.decoded_pix_fmts,
            deinterlacing=deinterlacing,
            expansion=colour.expansion,
        )
        for name, value in decoder_options(deinterlacing).items():
            inputs += [f"-{name}"] if value is None else [f"-{name}", str(value)]
        inputs += ["-i", path, "-i", path]
        raw = ("-f", "rawvideo", "-pix_fmt", "yuv420p")
        pictures[matrix] = ours, ffmpegs = tmp_path / f"{number}.ours", tmp_path / f"{number}.ffmpegs"
        outputs += ["-map", f"{2 * number}:v", "-vf", chain, *raw, ours]
        outputs += ["-map", f"{2 * number + 1}:v", *raw, ffmpegs]
    ffmpeg(*inputs, *outputs)
    for matrix, (ours, ffmpegs) in pictures.items():
        assert ours.read_bytes() == ffmpegs.read_bytes() != b"", matrix


def _turned(plain: bytes, matrix: tuple[int, int, int, int]) -> bytes:
    """The file with that matrix in its track's header, version 0 (ISO/IEC 14496-12, 8.3.2)."""
    a, b, c, d = (number << 16 for number in matrix)
    data = bytearray(plain)
    struct.pack_into(">9i", data, data.index(b"tkhd") + 4 + 40, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    return bytes(data)
