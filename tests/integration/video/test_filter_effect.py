"""What `stabilise` did to the pictures: the same figures in segments as in one pass, and those that numpy finds."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from math import log10
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits
from app.platform.media.probe import probe_video
from app.platform.media.rates import Retime
from app.platform.media.work_options import WorkOptions
from app.platform.settings import Settings
from models.catalog import DEFAULT_ENGINE
from worker.inference.mixing import PictureOptions
from worker.loaded_upscaler import Networks, UpscalerKey
from worker.local import upscale_file
from worker.video.filter_effect import FilterEffect

OPTIONS = WorkOptions(engine=DEFAULT_ENGINE, output_quality="lossless", stabilise=2, measures_quality=True)
SIZE = (96, 64)

Planes = NDArray[np.float64]


@pytest.fixture
def measured(runner: FfmpegRunner, tmp_path: Path) -> Callable[..., Any]:
    """Renders a file with exact enlargement in place of the network."""
    networks = Networks(Settings(device="cpu", stand_in_network=True))
    number = iter(range(100))

    def render(source: Path, options: WorkOptions, *, segment_seconds: Fraction = Fraction(10)) -> Any:
        path = tmp_path / f"out-{next(number)}.mp4"
        result = upscale_file(
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
                    picture=PictureOptions(is_stabilised=plan.stabilise > 0),
                )
            ),
            work_directory=tmp_path,
            on_progress=lambda _progress: None,
        )
        assert result.quality is not None
        return path, result.quality

    return render


def panned(frames: int, *, sigma: float) -> list[Planes]:
    """A smooth picture that moves by two pixels a frame, with independent noise."""
    random = np.random.default_rng(1)
    columns, rows = SIZE
    spectrum = np.fft.rfft2(random.normal(0, 1, (96, 256)))
    down, across = np.fft.fftfreq(96)[:, None], np.fft.rfftfreq(256)[None]
    smooth = np.fft.irfft2(spectrum * np.exp(-(down**2 + across**2) * 150), (96, 256))
    picture = 120 + 40 * smooth / smooth.std()
    return [
        picture[8 : 8 + rows, 2 * index : 2 * index + columns] + random.normal(0, sigma, (rows, columns))
        for index in range(frames)
    ]


@pytest.mark.parametrize(
    ("options", "seconds", "pairs"),
    [
        # A segment begins with the frame at 1/8 s, and one of interpolated frames; some have a single frame.
        ({}, Fraction(3, 25), 2),
        ({"target_fps": Fraction(40), "retime": Retime.MOTION}, Fraction(1, 8), 2),
        ({"start_seconds": Fraction(2, 5), "scale": 2}, Fraction(1, 25), 1),
    ],
)
def test_figures_do_not_depend_on_segments(
    clip: Callable[..., Path],
    measured: Callable[..., Any],
    options: dict[str, Any],
    seconds: Fraction,
    pairs: int,
) -> None:
    source = clip("a.mkv", "-g", "5", frames=18)
    asked = replace(OPTIONS, **options)
    whole = measured(source, asked)[1]
    pieces = measured(source, asked, segment_seconds=seconds)[1]
    assert whole.filter_effect is not None
    assert pieces.filter_effect == whole.filter_effect
    assert whole.filter_effect.pairs == pairs
    # Nor do those of the finished file.
    assert pieces.as_json() == whole.as_json()


def test_figures_are_those_of_the_pictures(
    gray_film: Any, measured: Callable[..., Any], decoded: Callable[..., Any]
) -> None:
    """Against whole renders with and without the filter. At 1/8 s and 5/8 s the frames 3 and 15 are on show."""
    source = gray_film(panned(18, sigma=4.0))
    steady_file, quality = measured(source, OPTIONS)
    plain_file, plain_quality = measured(source, replace(OPTIONS, stabilise=0))
    assert plain_quality.filter_effect is None
    assert "stabiliseEffect" not in plain_quality.as_json()

    def lumas(path: Path) -> list[Planes]:
        # What was read is limited, the pictures are not.
        planes = [
            planes[0].astype(np.float64) for planes in decoded(path, filters="scale=out_range=tv").planes
        ]
        return [(plane - 16) * 255 / 219 for plane in planes]

    after, before = lumas(steady_file), lumas(plain_file)
    found = quality.filter_effect
    distance = np.mean([np.square(after[at] - before[at]).mean() for at in (3, 15)])
    assert found.psnr_db == pytest.approx(10 * log10(255**2 / distance), abs=0.25)

    def sharpness(frames: list[Planes]) -> float:
        around = [np.pad(frames[at], 1, mode="reflect") for at in (3, 15)]
        laplacians = [
            one[:-2, 1:-1] + one[2:, 1:-1] + one[1:-1, :-2] + one[1:-1, 2:] - 4 * one[1:-1, 1:-1]
            for one in around
        ]
        return float(np.mean(np.abs(laplacians)))

    assert found.sharpness_lost == pytest.approx(1 - sharpness(after) / sharpness(before), abs=0.02)
    assert 0.05 < found.sharpness_lost < 0.8

    def error(frames: list[Planes]) -> float:
        """Along the true motion: two pixels to the left, eight in the output."""
        pairs = [(frames[at - 1][:, 8:], frames[at][:, :-8]) for at in (3, 15)]
        return float(np.mean([np.square(two - one)[20:-20, 20:-20].mean() for one, two in pairs])) / 255**2

    # The motion is found in noisy frames: what it misses counts in both.
    missed = found.errors[0] - error(before)
    assert 0 < missed < error(before) / 3
    assert found.errors[1] - error(after) == pytest.approx(missed, abs=error(before) / 20)
    # Of the noise a fifth is left.
    assert found.errors[1] < found.errors[0] / 3


def test_half_the_flicker_halves_what_is_before_and_shows_what_is_left(
    gray_film: Any, measured: Callable[..., Any]
) -> None:
    """Brightness that goes up and down by so many codes, of a still picture."""
    still = panned(1, sigma=0)[0]

    def effect(codes: float) -> FilterEffect:
        frames = [still + codes * (at % 2) for at in range(18)]
        found = measured(gray_film(frames), OPTIONS)[1]
        assert found.filter_effect is not None
        assert found.warping_errors.output == pytest.approx(found.filter_effect.errors[1], rel=0.4)
        return found.filter_effect

    all_of_it, half = effect(8), effect(4)
    assert all_of_it.errors is not None and half.errors is not None
    assert all_of_it.errors[0] == pytest.approx((8 / 255) ** 2, rel=0.02)
    assert half.errors[0] == pytest.approx(all_of_it.errors[0] / 4, rel=0.02)
    for one in (all_of_it, half):
        assert one.errors is not None and one.errors[1] < one.errors[0] / 2


def test_a_still_film_loses_nothing(gray_film: Any, measured: Callable[..., Any]) -> None:
    found = measured(gray_film(panned(1, sigma=0) * 6), OPTIONS)[1].filter_effect
    assert found is None or (found.psnr_db, found.sharpness_lost) == (100.0, 0.0)
