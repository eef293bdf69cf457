"""Less flicker over time: the same in segments as in one pass, cuts and still pictures kept, noise averaged away."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.platform.media import picture_options
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits
from app.platform.media.picture_options import Deinterlace
from app.platform.media.probe import probe_video
from app.platform.media.rates import Retime
from app.platform.media.work_options import WorkOptions
from app.platform.settings import Settings
from models.catalog import DEFAULT_ENGINE
from worker.inference import aligned_frames
from worker.inference.mixing import PictureOptions
from worker.loaded_upscaler import Networks, UpscalerKey
from worker.local import upscale_file

OPTIONS = WorkOptions(engine=DEFAULT_ENGINE, output_quality="lossless", stabilise=2)
SIZE = (64, 48)
SIGMA = 4.0

Upscale = Callable[..., Any]
Planes = NDArray[np.float64]


@pytest.fixture
def upscaled(runner: FfmpegRunner, tmp_path: Path, decoded: Callable[..., Any]) -> Upscale:
    """Renders a file with exact enlargement in place of the network; returns what `decoded` reads of the result."""
    networks = Networks(Settings(device="cpu", stand_in_network=True))
    number = iter(range(100))

    def upscale(source: Path, options: WorkOptions, *, segment_seconds: Fraction = Fraction(10)) -> Any:
        path = tmp_path / f"out-{next(number)}.mp4"
        upscale_file(
            runner=runner,
            source=source,
            info=probe_video(runner, source, limits=MediaLimits.from_settings(Settings())),
            destination=path,
            options=options,
            settings=Settings(segment_seconds=segment_seconds),
            make_upscaler=lambda plan: networks.upscaler(
                UpscalerKey(
                    engine_id=DEFAULT_ENGINE,
                    source=plan.source,
                    target=plan.target,
                    picture=PictureOptions(grain=options.grain, is_stabilised=plan.stabilise > 0),
                )
            ),
            work_directory=tmp_path,
            on_progress=lambda _progress: None,
        )
        # What is full range is read as limited, which `format=yuv420p` alone does in some versions of ffmpeg only.
        return decoded(path, filters="scale=out_range=tv")

    return upscale


def lumas(result: Any) -> list[Planes]:
    return [planes[0].astype(np.float64) for planes in result.planes]


def texture(seed: int) -> Planes:
    """A smooth random picture, larger than a frame."""
    noise = np.random.default_rng(seed).normal(0, 1, (96, 128))
    spectrum = np.fft.rfft2(noise)
    down, across = np.fft.fftfreq(96)[:, None], np.fft.rfftfreq(128)[None]
    smooth = np.fft.irfft2(spectrum * np.exp(-(down**2 + across**2) * 150), (96, 128))
    return np.asarray(120 + 40 * smooth / smooth.std())


def panned(picture: Planes, frames: int, *, sigma: float = 0.0) -> list[Planes]:
    """The picture moves by two pixels a frame, with independent noise."""
    random = np.random.default_rng(1)
    columns, rows = SIZE
    return [
        picture[8 : 8 + rows, 4 + 2 * index : 4 + 2 * index + columns]
        + random.normal(0, sigma, (rows, columns))
        for index in range(frames)
    ]


@pytest.mark.parametrize(
    ("options", "form"),
    [
        ({"grain": 0.5, "scale": 2}, ("-pix_fmt", "yuv420p10le", "-c:v", "ffv1")),
        ({"target_fps": Fraction(40), "retime": Retime.MOTION}, ()),
        ({"target_fps": Fraction(20), "start_seconds": Fraction(1, 5), "end_seconds": Fraction(3, 5)}, ()),
        ({"deinterlace": Deinterlace.FIELD}, ("-pix_fmt", "yuv420p")),
    ],
)
def test_segments_equal_one_pass(
    clip: Callable[..., Path], upscaled: Upscale, options: dict[str, Any], form: tuple[str, ...]
) -> None:
    source = clip("a.mkv", "-g", "5", *form, frames=15)
    whole = upscaled(source, replace(OPTIONS, **options))
    pieces = upscaled(source, replace(OPTIONS, **options), segment_seconds=Fraction(1, 6))
    assert len(whole.planes) == len(pieces.planes) > 7
    for one, other in zip(whole.planes, pieces.planes, strict=True):
        assert all(np.array_equal(*planes) for planes in zip(one, other, strict=True))


def test_noise_of_a_moving_picture_falls_as_that_of_a_mean_of_five(gray_film: Any, upscaled: Upscale) -> None:
    clean = panned(texture(1), 11)
    noisy = gray_film(panned(texture(1), 11, sigma=SIGMA))

    def level(strength: int) -> float:
        """Of the noise inside the middle frames."""
        frames = lumas(upscaled(noisy, replace(OPTIONS, stabilise=strength, scale=1)))
        # Grey is full range; what was read is limited.
        errors = [
            (frame - 16) * 255 / 219 - wanted for frame, wanted in zip(frames[3:-3], clean[3:-3], strict=True)
        ]
        return float(np.std([error[10:-10, 14:-14] for error in errors]))

    levels = [level(strength) for strength in range(4)]
    assert levels[0] == pytest.approx(SIGMA, rel=0.1)
    assert levels[0] > levels[1] > levels[2] > levels[3]
    # The mean of five independent samples has a noise of 1/sqrt(5); motion is estimated from the noisy frames.
    assert SIGMA / 5**0.5 * 0.8 < levels[3] < SIGMA / 5**0.5 * 1.35


def test_estimates_count_the_frames_that_segments_have_around_them() -> None:
    assert picture_options.STABILISED_RADIUS == aligned_frames.STABILISED_RADIUS


def test_a_cut_is_kept(gray_film: Any, upscaled: Upscale) -> None:
    scenes = [*panned(texture(2), 6, sigma=2.0), *panned(texture(3), 6, sigma=2.0)]
    one = gray_film(scenes[:6])
    first = upscaled(one, OPTIONS)
    second = upscaled(gray_film(scenes[6:]), OPTIONS)
    both = upscaled(gray_film(scenes), OPTIONS)
    apart = [*first.planes, *second.planes]
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(both.planes, apart, strict=True))


def test_a_still_film_stays_as_it_is(gray_film: Any, upscaled: Upscale) -> None:
    still = [texture(4)[: SIZE[1], : SIZE[0]]] * 6
    source = gray_film(still)
    steady, plain = upscaled(source, OPTIONS), upscaled(source, replace(OPTIONS, stabilise=0))
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(steady.planes, plain.planes, strict=True))


def test_what_is_still_beside_motion_stays_as_it_is(gray_film: Any, upscaled: Upscale) -> None:
    moving = panned(texture(5), 8)
    for frame in moving:
        frame[:16] = 16
        frame[36:] = texture(6)[:12, : SIZE[0]]
    source = gray_film(moving)
    steady, plain = upscaled(source, OPTIONS), upscaled(source, replace(OPTIONS, stabilise=0))
    for one, other in zip(lumas(steady), lumas(plain), strict=True):
        assert np.array_equal(one[: 4 * 12], other[: 4 * 12])
        assert np.abs(one[4 * 40 :] - other[4 * 40 :]).max() <= 1
