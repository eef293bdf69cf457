"""Transparent videos: alpha and colours of the output, decoded by ffmpeg, against a computation of their own."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.platform.errors import TransientError
from app.platform.media.codecs import OutputFormat
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits
from app.platform.media.probe import probe_video
from app.platform.media.rates import Retime
from app.platform.media.work_options import WorkOptions
from app.platform.settings import Settings
from models.catalog import DEFAULT_ENGINE
from worker.inference.mixing import PictureOptions
from worker.loaded_upscaler import Networks, UpscalerKey
from worker.local import LocalRender, upscale_file
from worker.video.timestamp_check import check_output, read_back
from worker.video.transparency import ALPHA_WARNING

Array = NDArray[Any]

WIDTH, HEIGHT, FRAMES = 64, 48, 6
FFV1 = OutputFormat(codec="ffv1", container="mkv")
PRORES = OutputFormat(codec="prores", container="mov")
VP9 = OutputFormat(codec="vp9", container="webm", quality="lossless")
# A ramp, a hole, and a disc with a hard edge that moves.
ALPHA = "if(lt(X,16),X*17,if(lt(X,24),0,if(lt(hypot(X-36-2*N,Y-24),12),255,0)))"
COLOURS = "r='r(X,Y)':g='g(X,Y)':b='b(X,Y)'"
FLAT = "r=230:g=60:b=20"
RAW = ("-fps_mode", "passthrough", "-f", "rawvideo", "pipe:1")


def see_through(clip: Callable[..., Path], name: str, *options: str, colours: str = COLOURS) -> Path:
    return clip(name, *options, frames=FRAMES, after=f",format=rgba,geq={colours}:a='{ALPHA}'")


def qtrle(clip: Callable[..., Path], colours: str = COLOURS) -> Path:
    return see_through(clip, "a.mov", "-c:v", "qtrle", "-pix_fmt", "argb", colours=colours)


def render(
    runner: FfmpegRunner,
    source: Path,
    destination: Path,
    form: OutputFormat,
    *,
    segment_seconds: Fraction = Fraction(10),
    **asked: Any,
) -> LocalRender:
    options = WorkOptions(
        engine=DEFAULT_ENGINE,
        codec=form.codec,
        container=form.container,
        output_quality=form.quality,
        **asked,
    )
    networks = Networks(Settings(device="cpu", stand_in_network=True))
    picture = PictureOptions(strength=options.strength, grain=options.grain)
    return upscale_file(
        runner=runner,
        source=source,
        info=probe_video(runner, source, limits=MediaLimits.from_settings(Settings())),
        destination=destination,
        options=options,
        settings=Settings(segment_seconds=segment_seconds),
        make_upscaler=lambda plan: networks.upscaler(
            UpscalerKey(engine_id=DEFAULT_ENGINE, source=plan.source, target=plan.target, picture=picture)
        ),
        work_directory=destination.parent,
        on_progress=lambda _progress: None,
    )


def rgba(ffmpeg: Callable[..., bytes], path: Path, width: int, height: int) -> Array:
    """Straight R, G, B and alpha from 0 to 1: frames x rows x columns x 4."""
    decoder = ("-c:v", "libvpx-vp9") if path.suffix == ".webm" else ()
    flags = "scale=flags=accurate_rnd+full_chroma_int+full_chroma_inp"
    raw = ffmpeg(*decoder, "-i", path, "-map", "0:v:0", "-vf", f"{flags},format=rgba64le", *RAW)
    pixels = np.frombuffer(raw, "<u2").reshape(-1, height, width, 4) / 65535
    # As it is in the file: ffmpeg's conversions of alpha are not exact. ProRes is decoded with 12 bits.
    alpha = ffmpeg(*decoder, "-i", path, "-map", "0:v:0", "-vf", "extractplanes=a", *RAW)
    is_short = len(alpha) == pixels[..., 3].size
    codes = np.frombuffer(alpha, np.uint8) / 255 if is_short else np.frombuffer(alpha, "<u2") / 4095
    pixels[..., 3] = codes.reshape(pixels.shape[:3])
    return pixels


def cubic_weights(count: int) -> Array:
    """4 * count x count: cubic convolution with a = -0.75 (Keys, 1981), edges repeated."""
    weights = np.zeros((4 * count, count))
    for place in range(4 * count):
        at = (place + 0.5) / 4 - 0.5
        for number in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            x, a = abs(at - number), -0.75
            near, far = ((a + 2) * x - (a + 3)) * x * x + 1, ((x - 5) * x + 8) * a * x - 4 * a
            weights[place, min(max(number, 0), count - 1)] += near if x <= 1 else far
    return weights


def enlarged(planes: Array) -> Array:
    """frames x rows x columns, four times as large."""
    return cubic_weights(planes.shape[1]) @ planes @ cubic_weights(planes.shape[2]).T


def reduced(planes: Array, factor: int) -> Array:
    frames, rows, columns = planes.shape
    return planes.reshape(frames, rows // factor, factor, columns // factor, factor).mean(axis=(2, 4))


@pytest.mark.parametrize(
    ("form", "scale", "most_error"),
    # Of alpha and of colours, from 0 to 1: one or two codes; VP9 has a quarter of the chroma samples.
    [(PRORES, 2, (0.002, 0.02)), (FFV1, 1, (0.004, 0.02)), (VP9, 4, (0.004, 0.06))],
)
def test_alpha_is_kept(
    clip: Callable[..., Path],
    ffmpeg: Callable[..., bytes],
    runner: FfmpegRunner,
    tmp_path: Path,
    form: OutputFormat,
    scale: int,
    most_error: tuple[float, float],
) -> None:
    """Made in segments, it is what one pass makes, bit for bit; and one colour with a hard edge has no fringe."""
    source = qtrle(clip, FLAT)
    made = []
    for seconds in (Fraction(10), Fraction(3, 25)):
        path = tmp_path / f"{float(seconds)}.{form.container}"
        done = render(runner, source, path, form, scale=scale, segment_seconds=seconds)
        assert done.video.warnings == ()
        made.append(rgba(ffmpeg, path, scale * WIDTH, scale * HEIGHT))
    np.testing.assert_array_equal(*made)
    before, after = rgba(ffmpeg, source, WIDTH, HEIGHT), made[0]
    expected = reduced(enlarged(before[..., 3]).clip(0, 1), 4 // scale)
    assert len(after) == FRAMES
    np.testing.assert_allclose(after[..., 3], expected, atol=most_error[0])
    # The middle of the disc and the hole.
    middle = [after[n, 24 * scale, (36 + 2 * n) * scale, 3] for n in range(FRAMES)]
    assert middle == [1] * FRAMES
    assert after[:, :, 19 * scale : 21 * scale, 3].max() == 0
    colour = before[0, 24, 36, :3]
    error = np.abs(after[..., :3] - colour).max(axis=-1)
    assert error[after[..., 3] > 0].max() <= most_error[1]


def test_opaque_parts_are_the_networks(
    clip: Callable[..., Path], ffmpeg: Callable[..., bytes], runner: FfmpegRunner, tmp_path: Path
) -> None:
    source = qtrle(clip)
    render(runner, source, tmp_path / "a.mkv", FFV1)
    before = rgba(ffmpeg, source, WIDTH, HEIGHT)
    after = rgba(ffmpeg, tmp_path / "a.mkv", 4 * WIDTH, 4 * HEIGHT)
    disc = np.hypot(*np.meshgrid(np.arange(WIDTH) - 36, np.arange(HEIGHT) - 24)) < 8
    repeated = before[0, ..., :3].repeat(4, axis=0).repeat(4, axis=1)
    error = np.abs(after[0, ..., :3] - repeated)[disc.repeat(4, axis=0).repeat(4, axis=1)]
    assert error.max() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "options"),
    [
        (PRORES, {"strength": 0.4, "target_fps": Fraction(30000, 1001)}),
        (FFV1, {"grain": 1.0, "start_seconds": Fraction(2, 25)}),
        (VP9, {"target_fps": Fraction(40), "retime": Retime.MOTION, "max_width": 150}),
    ],
)
def test_segments_equal_one_pass_with_options(
    clip: Callable[..., Path],
    ffmpeg: Callable[..., bytes],
    runner: FfmpegRunner,
    tmp_path: Path,
    form: OutputFormat,
    options: dict[str, Any],
) -> None:
    source = see_through(clip, "b.mov", "-c:v", "qtrle", "-pix_fmt", "argb")
    sums = []
    for seconds in (Fraction(10), Fraction(3, 25)):
        path = tmp_path / f"{float(seconds)}.{form.container}"
        render(runner, source, path, form, segment_seconds=seconds, **options)
        decoder = ("-c:v", "libvpx-vp9") if path.suffix == ".webm" else ()
        sums.append(ffmpeg(*decoder, "-i", path, "-fps_mode", "passthrough", "-f", "framemd5", "pipe:1"))
    assert sums[0] == sums[1]
    assert sums[0].count(b"\n0,") >= FRAMES - 2


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.webm", ("-c:v", "libvpx-vp9", "-auto-alt-ref", "0", "-lossless", "1", "-pix_fmt", "yuva420p")),
        (
            "b.webm",
            ("-c:v", "libvpx", "-auto-alt-ref", "0", "-crf", "4", "-b:v", "4M", "-pix_fmt", "yuva420p"),
        ),
        ("a.mov", ("-c:v", "prores_ks", "-profile:v", "4444", "-pix_fmt", "yuva444p10le")),
        ("a.mkv", ("-c:v", "ffv1", "-pix_fmt", "ya8")),
        ("a.png", ("-f", "apng", "-c:v", "apng", "-pix_fmt", "rgba")),
    ],
)
def test_alpha_of_each_kind_of_file(
    clip: Callable[..., Path], planned: Callable[..., Any], name: str, options: tuple[str, ...]
) -> None:
    """As it was drawn: the first frame that the segments decode has it."""
    source = see_through(clip, name, *options)
    _, plan, _ = planned(source, form=FFV1)
    assert plan.source.has_alpha
    assert plan.target.pix_fmt.startswith("yuva444p")
    assert plan.decoder == {"a.webm": "libvpx-vp9", "b.webm": "libvpx"}.get(name)
    assert plan.warnings == ()


def test_where_it_has_no_place_a_warning_says_what_has(
    clip: Callable[..., Path], planned: Callable[..., Any]
) -> None:
    source = qtrle(clip)
    for form in (OutputFormat(), OutputFormat(codec="vp9", container="mp4"), OutputFormat(codec="av1")):
        _, plan, _ = planned(source, form=form)
        assert not plan.target.has_alpha
        assert plan.warnings == (ALPHA_WARNING,)
    assert "ProRes in Matroska or QuickTime, FFV1 in Matroska and VP9 in Matroska or WebM" in ALPHA_WARNING
    gif = clip("a.gif", "-c:v", "gif", frames=3)
    assert not planned(gif, form=VP9)[1].target.has_alpha


def test_lost_alpha_is_found_in_the_written_file(
    clip: Callable[..., Path],
    ffmpeg: Callable[..., bytes],
    runner: FfmpegRunner,
    planned: Callable[..., Any],
    tmp_path: Path,
) -> None:
    source = qtrle(clip)
    for form in (VP9, FFV1):
        path, without = tmp_path / f"a.{form.container}", tmp_path / f"b.{form.container}"
        _, plan, segments = planned(source, form=form)
        render(runner, source, path, form)
        if form is VP9:
            # Its tag is there, what is beside the frames is not.
            copy = ("-c", "copy", "-metadata:s:v:0", "alpha_mode=1")
            ffmpeg("-i", path, *copy, tmp_path / "a.mp4")
            ffmpeg("-i", tmp_path / "a.mp4", *copy, without)
        else:
            ffmpeg("-i", path, "-c:v", "ffv1", "-pix_fmt", "yuv444p", without)
        with pytest.raises(TransientError) as error:
            check_output(read_back(runner, without), render=plan, segments=segments)
        assert "alpha" in (error.value.detail or "")
