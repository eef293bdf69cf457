"""What ffprobe says of the first frames, for files that ffmpeg cannot make."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from app.platform.errors import FfmpegError, FfmpegTimeout
from app.platform.media.first_frames import ContentLight, FirstFrames, probe_first_frames
from worker.video.side_data import (
    DOLBY_VISION_WARNING,
    DYNAMIC_HDR_WARNING,
    STEREO_WARNING,
    lost_side_data,
)

SCREEN = {
    "side_data_type": "Mastering display metadata",
    "red_x": "35400/50000",
    "red_y": "14600/50000",
    "green_x": "8500/50000",
    "green_y": "39850/50000",
    "blue_x": "6550/50000",
    "blue_y": "2300/50000",
    "white_point_x": "15635/50000",
    "white_point_y": "16450/50000",
    "min_luminance": "0/10000",
    "max_luminance": "40000000/10000",
}


class Probe:
    """Answers with what it was given; of frames, only if they can be decoded."""

    def __init__(self, *, frames: Any = (), stream: Any = None, error: FfmpegError | None = None) -> None:
        self.answer = {"frames": list(frames), "streams": [stream or {}]}
        self.error = error

    def probe(self, path: Path, *arguments: str) -> dict[str, Any]:
        if not any("frame=" in argument for argument in arguments):
            return {"streams": self.answer["streams"]}
        if self.error is not None:
            raise self.error
        return self.answer


def look(**answer: Any) -> FirstFrames:
    return probe_first_frames(Probe(**answer), Path("/a.mkv"), stream_index=0)  # type: ignore[arg-type]


def frame(*side_data: dict[str, Any], interlaced: int = 0) -> dict[str, Any]:
    return {"interlaced_frame": interlaced, "side_data_list": list(side_data)}


def test_nothing_special() -> None:
    assert look(frames=[frame(), {}]) == FirstFrames()


def test_a_later_frame_counts() -> None:
    assert look(frames=[frame(), frame(SCREEN, interlaced=1)]).has_interlaced
    screen = look(frames=[frame(), frame(SCREEN)]).mastering_display
    assert screen is not None
    assert (screen.green, screen.min_luminance, screen.max_luminance) == (
        (Fraction(17, 100), Fraction(797, 1000)),
        0,
        4000,
    )


@pytest.mark.parametrize("missing", ["red_x", "white_point_y", "min_luminance"])
def test_half_a_screen_is_none(missing: str) -> None:
    part = {name: value for name, value in SCREEN.items() if name != missing}
    assert look(frames=[frame(part)]).mastering_display is None


@pytest.mark.parametrize("name", ["blue_x", "max_luminance"])
def test_numbers_without_measure_are_none(name: str) -> None:
    assert look(frames=[frame({**SCREEN, name: "9999999999/1"})]).mastering_display is None


def test_light_that_is_not_known_is_none() -> None:
    light = {"side_data_type": "Content light level metadata", "max_content": 0, "max_average": 0}
    assert look(frames=[frame(light)]).content_light is None
    known = look(frames=[frame({**light, "max_content": 993})]).content_light
    assert known == ContentLight(max_content=993, max_frame_average=0)


@pytest.mark.parametrize(("profile", "compatible", "alone"), [(5, 0, True), (8, 1, False), (8, 4, False)])
def test_dolby_vision(profile: int, compatible: int, alone: bool) -> None:
    record = {
        "side_data_type": "DOVI configuration record",
        "dv_profile": profile,
        "dv_bl_signal_compatibility_id": compatible,
    }
    first = look(stream={"side_data_list": [record]})
    assert first.is_dolby_vision_only == alone
    assert lost_side_data(first.side_data) == [DOLBY_VISION_WARNING]


def test_metadata_of_scenes() -> None:
    plus = {"side_data_type": "HDR Dynamic Metadata SMPTE2094-40 (HDR10+)"}
    rpu = {"side_data_type": "Dolby Vision RPU Data"}
    first = look(frames=[frame(plus, rpu)])
    assert lost_side_data(first.side_data) == [DOLBY_VISION_WARNING, DYNAMIC_HDR_WARNING]
    assert not first.is_dolby_vision_only


@pytest.mark.parametrize("views", ["anaglyph_cyan_red", "checkerboard_lr"])
def test_views_that_ffmpeg_has_no_kind_for_are_named(views: str) -> None:
    """Matroska's arrangements; of others, the stream has side data too."""
    assert lost_side_data(look(frames=[frame()], stream={"tags": {"stereo_mode": views}}).side_data) == [
        STEREO_WARNING
    ]
    told = {"side_data_type": "Stereo 3D", "type": "side by side", "inverted": 0}
    known = look(stream={"tags": {"stereo_mode": "left_right"}, "side_data_list": [told]})
    assert known.side_data == frozenset()


def test_without_a_frame_the_container_counts() -> None:
    failed = FfmpegError("The video program failed.", detail="no such decoder")
    first = look(stream={"side_data_list": [SCREEN], "tags": {"alpha_mode": "1"}}, error=failed)
    assert first.mastering_display is not None
    assert first.has_alpha_layer
    with pytest.raises(FfmpegTimeout):
        look(error=FfmpegTimeout("It took too long."))
