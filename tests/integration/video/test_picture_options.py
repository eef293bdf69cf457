"""Options of the picture: the same in one pass as in segments, and what they make of a film."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits
from app.platform.media.probe import probe_video
from app.platform.media.work_options import WorkOptions
from app.platform.settings import Settings
from models.catalog import DEFAULT_ENGINE
from worker.inference.frames import FrameFormat
from worker.inference.mixing import PictureOptions
from worker.inference.upscaler import make_upscaler
from worker.loaded_upscaler import Networks, UpscalerKey
from worker.local import upscale_file

BUNNY = Path(__file__).parents[2] / "media" / "bunny-240x136-25fps.mp4"
OPTIONS = WorkOptions(engine=DEFAULT_ENGINE, output_quality="lossless")


@pytest.mark.parametrize("picture", [PictureOptions(strength=0.3), PictureOptions(grain=1)])
def test_segments_equal_one_pass(
    clip: Callable[..., Path],
    decoded: Callable[..., Any],
    runner: FfmpegRunner,
    tmp_path: Path,
    picture: PictureOptions,
) -> None:
    source = clip("a.mp4", "-g", "5", frames=12)
    networks = Networks(Settings(device="cpu", stand_in_network=True))
    made = []
    for seconds in (Fraction(10), Fraction(1, 5)):
        path = tmp_path / f"{float(seconds)}.mp4"
        upscale_file(
            runner=runner,
            source=source,
            info=probe_video(runner, source, limits=MediaLimits.from_settings(Settings())),
            destination=path,
            options=OPTIONS,
            settings=Settings(segment_seconds=seconds),
            make_upscaler=lambda plan: networks.upscaler(
                UpscalerKey(engine_id=DEFAULT_ENGINE, source=plan.source, target=plan.target, picture=picture)
            ),
            work_directory=tmp_path,
            on_progress=lambda _progress: None,
        )
        made.append(decoded(path))
    assert len(made[0].planes) == 12
    assert made[0].seconds == made[1].seconds
    for one, other in zip(made[0].planes, made[1].planes, strict=True):
        assert all(np.array_equal(*planes) for planes in zip(one, other, strict=True))


def test_strength_lies_between_the_network_and_a_plain_enlargement(
    ffmpeg: Callable[..., bytes], weights_directory: Path
) -> None:
    source = FrameFormat(width=120, height=80)
    target = source.enlarged(4)
    cut = ("-ss", "1", "-i", BUNNY, "-frames:v", "1")
    raw, plain = (
        ffmpeg(*cut, "-vf", filters, "-f", "rawvideo", "pipe:1")
        for filters in (
            "crop=120:80",
            "crop=120:80,scale=480:320:flags=bicubic+accurate_rnd",
        )
    )

    def luma(strength: float) -> NDArray[np.float64]:
        upscaler = make_upscaler(
            engine_id=DEFAULT_ENGINE,
            source=source,
            target=target,
            weights_directory=weights_directory,
            device="cpu",
            precision="fp32",
            picture=PictureOptions(strength=strength),
        )
        (frame,) = upscaler.upscale([np.frombuffer(raw, np.uint8)])
        return target.split(frame)[0].astype(np.float64)

    network, half, none = luma(1.0), luma(0.5), luma(0.0)
    by_ffmpeg = target.split(np.frombuffer(plain, np.uint8))[0].astype(np.float64)
    # ffmpeg's parameter is a little softer, and it enlarges chroma by itself.
    assert 10 * np.log10(255**2 / np.square(none - by_ffmpeg).mean()) > 38
    assert np.abs(network - none).mean() > 2
    # Where a colour is beyond RGB, clipping makes the mean another.
    assert np.abs(half - (network + none) / 2).mean() < 0.5
