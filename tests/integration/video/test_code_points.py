"""Every code point of ITU-T H.273: read from the input's bitstream, and written into the output's."""

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ffmpeg import merge_outputs

from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.h273 import ColourPrimaries, MatrixCoefficients, TransferCharacteristics
from app.platform.media.probe import colour_tags
from worker.video.colour import fill_tags
from worker.video.encoder import encoding_stream

# Primaries, transfer, matrix.
Codes = tuple[int, int, int]
BITSTREAM_FIELDS = ("colour_primaries", "transfer_characteristics", "matrix_coeffs|matrix_coefficients")
# By codec: its encoder, and the bitstream filter that changes its tags.
INPUTS = {
    "h264": (("libx264", "-preset", "ultrafast"), "h264_metadata"),
    "hevc": (("libx265", "-preset", "ultrafast", "-x265-params", "log-level=none"), "hevc_metadata"),
    "mpeg2": (("mpeg2video",), "mpeg2_metadata"),
}
KNOWN: Sequence[Codes] = tuple(
    zip_longest(ColourPrimaries, TransferCharacteristics, MatrixCoefficients, fillvalue=1)
)
# Reserved ones, those meaning "unspecified", and ones that the standard has not given out.
UNKNOWN: Sequence[Codes] = ((2, 2, 2), (3, 3, 3), (0, 0, 2), (200, 200, 200))


@pytest.mark.parametrize("codec", INPUTS)
def test_every_code_point_of_an_input_is_read(
    codec: str, clip: Callable[..., Path], ffmpeg: Callable[..., bytes], runner: FfmpegRunner, tmp_path: Path
) -> None:
    encoder, metadata = INPUTS[codec]
    source = clip("a.ts", "-c:v", *encoder, "-pix_fmt", "yuv420p", frames=2)
    # MPEG-2 forbids 0.
    known, unknown = (
        [codes for codes in listed if codec != "mpeg2" or 0 not in codes] for listed in (KNOWN, UNKNOWN)
    )
    options: list[str] = []
    for number, (primaries, transfer, matrix) in enumerate([*known, *unknown]):
        codes = f"colour_primaries={primaries}:transfer_characteristics={transfer}"
        options += ["-map", "0:v", f"-bsf:v:{number}", f"{metadata}={codes}:matrix_coefficients={matrix}"]
    tagged = tmp_path / "tagged.ts"
    ffmpeg("-i", source, "-c", "copy", *options, tagged)
    fields = "color_primaries,color_transfer,color_space,color_range,chroma_location"
    streams = runner.probe(tagged, "-show_entries", f"stream={fields}")["streams"]
    read = [colour_tags(stream) for stream in streams]
    seen = [(tags.primaries, tags.transfer, tags.matrix) for tags in read]
    assert seen[: len(known)] == known
    assert set(seen[len(known) :]) == {(None, None, None)}
    # What is reserved is like what is missing, and always comes out tagged.
    filled = [
        fill_tags(tags, width=64, height=48, is_rgb=False, full_range_format=False)
        for tags in read[len(known) :]
    ]
    assert {(tags.primaries, tags.transfer, tags.matrix) for tags in filled} == {(6, 6, 6)}


def bitstream_codes(*paths: Path) -> list[Codes]:
    """The code points in the parameter sets of each file's video."""
    inputs = [word for path in paths for word in ("-i", str(path))]
    maps = [word for number in range(len(paths)) for word in ("-map", f"{number}:v")]
    done = subprocess.run(
        [
            "ffmpeg",
            "-v",
            "trace",
            *inputs,
            *maps,
            *("-c", "copy", "-bsf:v", "trace_headers", "-f", "null", "-"),
        ],
        capture_output=True,
        check=True,
    )
    said = done.stderr.decode()
    found = [
        [int(code) for code in re.findall(rf"\b(?:{field}) +[01]+ = (\d+)", said)]
        for field in BITSTREAM_FIELDS
    ]
    return list(zip(*found, strict=True))


def container_codes(path: Path) -> Codes:
    """Those in an MP4 file's `colr` box."""
    data = path.read_bytes()
    at = data.index(b"colrnclx") + 8
    primaries, transfer, matrix = np.frombuffer(data, ">u2", 3, at)
    return int(primaries), int(transfer), int(matrix)


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_every_code_point_is_written(
    codec: str,
    clip: Callable[..., Path],
    planned: Callable[..., Any],
    runner: FfmpegRunner,
    tmp_path: Path,
) -> None:
    _, render, (segment,) = planned(clip("a.mp4", frames=1, size="16x16"))
    frame = bytes(render.target.frame_bytes)
    outputs: dict[Path, Codes] = {}
    streams: list[Any] = []
    for primaries, transfer, matrix in KNOWN:
        if matrix == MatrixCoefficients.GBR:
            continue
        tags = replace(
            render.tags,
            primaries=ColourPrimaries(primaries),
            transfer=TransferCharacteristics(transfer),
            matrix=MatrixCoefficients(matrix),
        )
        outputs[tmp_path / f"{primaries}-{transfer}-{matrix}.mp4"] = primaries, transfer, matrix
        streams.append(
            encoding_stream(
                runner,
                list(outputs)[-1],
                render=replace(render, tags=tags, codec=codec),
                segment=segment,
                quality="high",
            )
        )
    with runner.start(merge_outputs(*streams), purpose="encoding", stdin=True, stdout=False) as process:
        process.write_all(frame)
        process.close_stdin()
        process.wait()
    assert bitstream_codes(*outputs) == list(outputs.values())


def test_unusual_colours_are_rendered(
    clip: Callable[..., Path],
    rendered: Callable[..., Any],
    decoded: Callable[..., Any],
    ffmpeg: Callable[..., bytes],
    tmp_path: Path,
) -> None:
    """Gamma 2.2 as recorders have it, and a matrix that newer versions of ffmpeg do not scale."""
    primaries, transfer, matrix = 22, 4, 8
    source = tmp_path / "tagged.h264"
    codes = f"colour_primaries={primaries}:transfer_characteristics={transfer}"
    plain = clip("a.mp4", frames=3)
    ffmpeg(
        *("-i", plain, "-c", "copy", "-bsf:v"),
        f"h264_metadata={codes}:matrix_coefficients={matrix}",
        source.with_suffix(".ts"),
    )
    result = rendered(source.with_suffix(".ts"))
    codes_written = (primaries, transfer, matrix)
    assert bitstream_codes(result.output) == [codes_written]
    assert container_codes(result.output) == codes_written
    assert result.finished.warnings == ()
    before, after = decoded(plain), decoded(result.output)
    for shown, original in zip(after.planes, before.planes, strict=True):
        for plane, reference in zip(shown, original, strict=True):
            np.testing.assert_array_equal(plane[::4, ::4], reference)
