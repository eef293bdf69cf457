"""Whole renders with the real networks, held sample by sample against a reference that shares no code with them.

The reference: plain ffmpeg's decoded samples, to RGB by the input's tags and back by the output's in float64
(`tests/unit/inference/h273.py`), and in between the network in fp32 as the loader gives it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits
from app.platform.media.probe import probe_video
from app.platform.media.work_options import WorkOptions
from app.platform.settings import Settings
from models.catalog import ENGINES, get_engine
from models.loader import load_network
from tests.unit.inference.h273 import Coding, codes_of, rgb_of
from worker.inference.devices import CpuDevice
from worker.inference.frames import FrameFormat
from worker.inference.upscaler import Upscaler
from worker.local import upscale_file
from worker.video.plan import RenderPlan

MEDIA = Path(__file__).parents[2] / "media"
BUNNY, WEBB = MEDIA / "bunny-240x136-25fps.mp4", MEDIA / "webb-320x180-25fps.mp4"
# Smaller pictures with samples between those of 8 bits.
SMALL = "format=yuv444p16le,crop=192:128,scale=96:64:flags=area"
SMALLEST = "format=yuv444p16le,crop=160:120,scale=32:24:flags=area"
BT709 = ("bt709", "bt709", "bt709", "tv")
BT601_FULL = ("bt470bg", "smpte170m", "smpte170m", "pc")
PQ = ("bt2020", "smpte2084", "bt2020nc", "tv")
X264 = ("-c:v", "libx264", "-crf", "4", "-preset", "ultrafast", "-bf", "2")
X265 = ("-c:v", "libx265", "-crf", "4", "-preset", "ultrafast", "-x265-params", "log-level=error:pools=1")
# As of HDR10: chroma in the corner.
HDR10 = (*X265[:-1], f"{X265[-1]}:chromaloc=2")
PRORES = ("-c:v", "prores_ks", "-profile:v", "3")


class Recorder:
    """A real upscaler, of which every frame that it hands to the encoder is kept."""

    longest_batch_seconds = 600.0
    processor_threads = None

    def __init__(self, upscaler: Upscaler) -> None:
        self._upscaler = upscaler
        self.frames: list[Any] = []

    @property
    def batch_size(self) -> int:
        return self._upscaler.batch_size

    def upscale(self, frames: Sequence[Any]) -> list[Any]:
        results = self._upscaler.upscale(frames)
        self.frames += [frame.copy() for frame in results]
        return results


@dataclass(frozen=True)
class Exact:
    """One render: where it lies, what went to the encoder, and the plan."""

    output: Path
    frames: list[Any]
    plan: RenderPlan


@pytest.fixture(scope="module")
def networks(weights_directory: Path) -> dict[str, torch.nn.Module]:
    return {engine_id: load_network(engine_id, weights_directory=weights_directory) for engine_id in ENGINES}


@pytest.fixture
def cut(tmp_path: Path, ffmpeg: Callable[..., bytes]) -> Callable[..., Path]:
    """A few frames of a real clip as another kind of file."""

    def make(
        name: str, source: Path, tags: tuple[str, ...], *codec: str, frames: int, filters: str, pix_fmt: str
    ) -> Path:
        primaries, transfer, matrix, colour_range = tags
        meant = f"setparams=color_primaries={primaries}:color_trc={transfer}:colorspace={matrix}:range={colour_range}"
        path = tmp_path / name
        ffmpeg(
            *("-ss", "1", "-i", source, "-an", "-sn", "-frames:v", str(frames)),
            *("-vf", f"{filters},format={pix_fmt},{meant}", *codec),
            *("-color_primaries", primaries, "-color_trc", transfer, "-colorspace", matrix),
            *("-color_range", colour_range, path),
        )
        return path

    return make


@pytest.fixture
def upscaled(
    runner: FfmpegRunner, tmp_path: Path, networks: dict[str, torch.nn.Module]
) -> Callable[..., Exact]:
    def run(
        source: Path,
        *,
        engine_id: str = "regen-4x-lite",
        quality: Any = "lossless",
        segment_seconds: Fraction = Fraction(10),
        name: str = "out.mp4",
        **options: Any,
    ) -> Exact:
        made: list[tuple[Recorder, RenderPlan]] = []

        def make_upscaler(render: RenderPlan) -> Recorder:
            upscaler = Upscaler(
                networks[engine_id],
                engine=get_engine(engine_id),
                source=render.source,
                target=render.target,
                device=CpuDevice(),
                precision="fp32",
                **options,
            )
            made.append((Recorder(upscaler), render))
            return made[0][0]

        upscale_file(
            runner=runner,
            source=source,
            info=probe_video(runner, source, limits=MediaLimits.from_settings(Settings())),
            destination=tmp_path / name,
            options=WorkOptions(engine=engine_id, output_quality=quality),
            settings=Settings(segment_seconds=segment_seconds),
            make_upscaler=make_upscaler,
            work_directory=tmp_path,
            on_progress=lambda progress: None,
        )
        ((recorder, plan),) = made
        return Exact(tmp_path / name, recorder.frames, plan)

    return run


@pytest.fixture
def read(ffmpeg: Callable[..., bytes], probed: Callable[..., Any]) -> Callable[[Path], tuple[Coding, Any]]:
    """What a file says of its colours, and its decoded samples, frame by frame."""

    def decode(path: Path) -> tuple[Coding, Any]:
        (stream,) = probed(path, "-show_streams", "-select_streams", "v:0")["streams"]
        pix_fmt = stream["pix_fmt"]
        ten = "10" in pix_fmt
        place = stream.get("chroma_location", "left")
        coding = Coding(
            matrix=stream["color_space"],
            full_range=stream.get("color_range") == "pc",
            bits=10 if ten else 8,
            chroma="422" if "422" in pix_fmt else "420",
            place="left" if place in ("unspecified", "unknown") else place,
        )
        shape = FrameFormat(
            width=stream["width"],
            height=stream["height"],
            layout="yuv422" if coding.chroma == "422" else "yuv420",
            bit_depth=coding.bits,
        )
        raw = np.frombuffer(
            ffmpeg("-i", path, "-map", "0:v:0", "-fps_mode", "passthrough", "-f", "rawvideo", "pipe:1"),
            np.uint8,
        )
        return coding, [shape.split(frame) for frame in raw.reshape(-1, shape.frame_bytes)]

    return decode


def reference(
    network: torch.nn.Module, planes: Any, before: Coding, after: Coding
) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    """The output's codes, not yet rounded."""
    rgb = torch.from_numpy(rgb_of(planes, before)).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        enlarged = network(rgb)[0].permute(1, 2, 0).double().numpy()
    return codes_of(enlarged, after)


@pytest.mark.parametrize(
    ("name", "source", "tags", "codec", "pix_fmt", "engine_id", "frames"),
    [
        ("bt709.mp4", BUNNY, BT709, X264, "yuv420p", "regen-4x-lite", 3),
        ("full-bt601.mp4", WEBB, BT601_FULL, X264, "yuvj420p", "regen-4x-lite", 3),
        ("pq.mp4", WEBB, PQ, HDR10, "yuv420p10le", "regen-4x-lite", 3),
        ("422.mov", BUNNY, BT709, PRORES, "yuv422p10le", "regen-4x-lite", 3),
        ("bt709.mp4", WEBB, BT709, X264, "yuv420p", "regen-4x", 1),
        ("pq.mp4", BUNNY, PQ, X265, "yuv420p10le", "regen-4x", 1),
    ],
)
def test_every_sample_is_the_references(
    name: str,
    source: Path,
    tags: tuple[str, ...],
    codec: tuple[str, ...],
    pix_fmt: str,
    engine_id: str,
    frames: int,
    cut: Callable[..., Path],
    upscaled: Callable[..., Exact],
    read: Callable[[Path], tuple[Coding, Any]],
    networks: dict[str, torch.nn.Module],
) -> None:
    filters = SMALL if engine_id == "regen-4x-lite" else SMALLEST
    clip = cut(name, source, tags, *codec, frames=frames, filters=filters, pix_fmt=pix_fmt)
    before, originals = read(clip)
    assert (before.matrix, before.full_range) == (tags[2], tags[3] == "pc")
    assert before.place == ("topleft" if codec == HDR10 else "left")
    after, results = read(upscaled(clip, engine_id=engine_id).output)
    assert (after.matrix, after.full_range) == (before.matrix, before.full_range)
    assert after.bits == before.bits
    assert len(results) == len(originals) == frames
    worst, differing, samples = 0.0, 0, 0
    for original, result in zip(originals, results, strict=True):
        expected = reference(networks[engine_id], original, before, after)
        for plane, exact in zip(result, expected, strict=True):
            assert plane.std() > 1  # there is a picture
            worst = max(worst, float(np.abs(plane - exact).max()))
            differing += int((plane != np.rint(exact)).sum())
            samples += plane.size
    # Half a code is the rounding; the rest is what float32 leaves.
    assert worst < 0.55
    assert differing < samples / 100


def test_what_the_encoder_costs_is_all_that_is_lost(
    cut: Callable[..., Path],
    upscaled: Callable[..., Exact],
    read: Callable[[Path], tuple[Coding, Any]],
    networks: dict[str, torch.nn.Module],
) -> None:
    """As a player shows it: decoded by its tags, in RGB."""
    clip = cut("pq.mp4", WEBB, PQ, *X265, frames=2, filters=SMALL, pix_fmt="yuv420p10le")
    before, originals = read(clip)
    exact = upscaled(clip, quality="high")
    after, results = read(exact.output)
    for original, result, sent in zip(originals, results, exact.frames, strict=True):
        shown = rgb_of(result, after)
        expected = rgb_of(reference(networks["regen-4x-lite"], original, before, after), after)
        encoded = rgb_of(exact.plan.target.split(sent), after)
        assert psnr(shown, expected) > psnr(shown, encoded) - 0.1
        assert psnr(shown, expected) > 38


def psnr(a: Any, b: Any) -> float:
    return -10 * math.log10(np.mean((a - b) ** 2))


def test_nothing_flickers_where_segments_are_joined(
    cut: Callable[..., Path], upscaled: Callable[..., Exact], read: Callable[[Path], tuple[Coding, Any]]
) -> None:
    """With the real network, also where tiles are cut: the frames of many segments are those of a single pass."""
    clip = cut("bt709.mp4", BUNNY, BT709, *X264, "-g", "4", frames=10, filters=SMALLEST, pix_fmt="yuv420p")
    whole = upscaled(clip, name="whole.mp4")
    assert whole.plan.segment_count == 1
    pieces = upscaled(clip, name="pieces.mp4", segment_seconds=Fraction(3, 25))
    assert pieces.plan.segment_count > 2
    assert len(whole.frames) == len(pieces.frames) == 10
    for one, other in zip(whole.frames, pieces.frames, strict=True):
        np.testing.assert_array_equal(one, other)
    # Nor does coding lose anything, or move it.
    _, decoded = read(pieces.output)
    for frame, planes in zip(whole.frames, decoded, strict=True):
        np.testing.assert_array_equal(frame, whole.plan.target.join(planes))


def test_a_segment_made_in_batches_and_tiles_fits_its_neighbours(
    cut: Callable[..., Path], upscaled: Callable[..., Exact]
) -> None:
    """Workers differ in memory, and so in what they take at once."""
    clip = cut("pq.mp4", WEBB, PQ, *X265, frames=3, filters=SMALL, pix_fmt="yuv420p10le")
    plain = upscaled(clip, name="plain.mp4")
    other = upscaled(clip, name="other.mp4", batch_size=2, tile_pixels=4000)
    for one, another in zip(plain.frames, other.frames, strict=True):
        split = (plain.plan.target.split(frame) for frame in (one, another))
        for plane, same in zip(*split, strict=True):
            difference = np.abs(plane.astype(int) - same.astype(int))
            assert difference.max() <= 1
            assert np.count_nonzero(difference) < difference.size / 1000


def test_the_seam_of_two_tiles_of_regen_4x_is_less_than_half_a_code(
    ffmpeg: Callable[..., bytes], networks: dict[str, torch.nn.Module]
) -> None:
    """Its tiles overlap by less than it can see; a network that sees further than that leaves a seam."""
    engine, properties = get_engine("regen-4x"), networks["regen-4x"].properties
    source = FrameFormat(width=200, height=8, layout="gbr", full_range=True)
    target = replace(source.enlarged(4), bit_depth=16)
    raw = ffmpeg(
        *("-ss", "1", "-i", BUNNY, "-frames:v", "1", "-vf", "crop=200:8,format=gbrp"),
        *("-f", "rawvideo", "pipe:1"),
    )

    def enlarged(tile_pixels: int, overlap: int) -> tuple[Any, int]:
        upscaler = Upscaler(
            networks["regen-4x"],
            engine=engine,
            properties=replace(properties, tile_overlap=overlap),
            source=source,
            target=target,
            device=CpuDevice(),
            precision="fp32",
            tile_pixels=tile_pixels,
        )
        (frame,) = upscaler.upscale([np.frombuffer(raw, np.uint8)])
        return np.stack(target.split(frame)) / 257, upscaler.tile_count

    whole, _ = enlarged(source.width * source.height, properties.tile_overlap)
    for overlap, seamless in ((properties.tile_overlap, True), (16, False)):
        cut, tiles = enlarged((100 + overlap) * source.height, overlap)
        assert tiles == 2
        assert (np.abs(cut - whole).max() < 0.5) == seamless
