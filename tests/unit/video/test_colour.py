"""Colour decisions: what untagged samples mean, which layout holds them, and what the output says."""

import ctypes
import ctypes.util
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from pydantic import TypeAdapter

from app.platform.errors import PermanentError
from app.platform.media.ffprobe_output import UNTAGGED
from app.platform.media.h273 import CodePoint, ColourPrimaries, MatrixCoefficients, TransferCharacteristics
from app.platform.media.pixel_formats import read_pix_fmt
from app.platform.media.probe import ColourTags, VideoStream
from tests.unit.inference.h273 import PLACES
from worker.video.colour import UNKNOWN_COLOURS_WARNING, OutputTags, plan_colour
from worker.video.encoder import CHROMA_LOCATIONS

KINDS: dict[str, type[CodePoint]] = {
    "primaries": ColourPrimaries,
    "transfer": TransferCharacteristics,
    "matrix": MatrixCoefficients,
}


def make_video(**changes: Any) -> VideoStream:
    tags = {name: changes.pop(name, None) for name in ("range", "chroma_location")}
    for name, kind in KINDS.items():
        tags[name] = kind.of_name(changes.pop(name, ""))
    values: dict[str, Any] = {
        "index": 0,
        "codec": "h264",
        "width": 640,
        "height": 360,
        "coded_width": 640,
        "coded_height": 360,
        "rotation": 0,
        "pix_fmt": "yuv420p",
        "sample_aspect_ratio": Fraction(1),
        "time_base": Fraction(1, 25),
        "frame_rate": Fraction(25),
        "start_pts": 0,
        "duration_seconds": Fraction(1),
        "frames": 25,
        "declared_frames": None,
        "colour": ColourTags(**tags),
        "field_order": None,
    }
    return VideoStream(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("smpte170m", "smpte170m", "smpte170m", "tv")),
        ({"height": 576, "width": 720}, ("bt470bg", "smpte170m", "smpte170m", "tv")),
        ({"width": 1280}, ("bt709", "bt709", "bt709", "tv")),
        ({"height": 720}, ("bt709", "bt709", "bt709", "tv")),
        ({"matrix": "bt709"}, ("bt709", "bt709", "bt709", "tv")),
        ({"matrix": "bt470bg", "range": "pc"}, ("bt470bg", "smpte170m", "bt470bg", "pc")),
        ({"primaries": "bt2020"}, ("bt2020", "bt2020-10", "bt2020nc", "tv")),
        ({"transfer": "smpte2084"}, ("bt2020", "smpte2084", "bt2020nc", "tv")),
        ({"transfer": "arib-std-b67", "matrix": "bt2020nc"}, ("bt2020", "arib-std-b67", "bt2020nc", "tv")),
        ({"pix_fmt": "yuvj420p"}, ("smpte170m", "smpte170m", "smpte170m", "pc")),
        ({"pix_fmt": "gbrp", "range": "pc", "matrix": "gbr"}, ("bt709", "bt709", "bt709", "tv")),
        ({"pix_fmt": "rgb24", "transfer": "iec61966-2-1"}, ("bt709", "iec61966-2-1", "bt709", "tv")),
        ({"matrix": "gbr"}, ("smpte170m", "smpte170m", "smpte170m", "tv")),
        ({"matrix": "ycgco"}, ("bt709", "bt709", "ycgco", "tv")),
        ({"matrix": "fcc"}, ("bt470m", "smpte170m", "fcc", "tv")),
    ],
)
def test_tags(changes: dict[str, Any], expected: tuple[str, ...]) -> None:
    tags = plan_colour(make_video(**changes), scale=4).tags
    assert (*(tag.label for tag in (tags.primaries, tags.transfer, tags.matrix)), tags.range) == expected


def test_eight_bits_stay_eight_and_more_become_ten() -> None:
    assert plan_colour(make_video(), scale=4).target.pix_fmt == "yuv420p"
    assert plan_colour(make_video(pix_fmt="yuv422p10le"), scale=4).target.pix_fmt == "yuv420p10le"
    assert plan_colour(make_video(pix_fmt="gbrp12le"), scale=4).target.pix_fmt == "yuv420p10le"


def test_frames_keep_their_meaning() -> None:
    colour = plan_colour(make_video(pix_fmt="yuvj422p", matrix="bt470bg", codec="mjpeg"), scale=4)
    assert (colour.source.layout, colour.source.matrix, colour.source.full_range) == ("yuv422", "bt601", True)
    assert colour.source.chroma_location == "center"
    assert colour.decoded_pix_fmts == ("yuvj422p", "yuv422p")
    assert (colour.target.width, colour.target.height) == (2560, 1440)
    assert (colour.target.matrix, colour.target.full_range, colour.target.chroma_location) == (
        "bt601",
        True,
        "left",
    )


@pytest.mark.parametrize(
    ("pix_fmt", "layout", "depth", "alpha"),
    [
        ("nv12", "yuv420", 8, False),
        ("p010le", "yuv420", 10, False),
        ("yuva444p12le", "yuv444", 12, True),
        ("yuv411p", "yuv444", 8, False),
        ("bgra", "gbr", 8, True),
        ("pal8", "gbr", 8, True),
        ("gbrap16le", "gbr", 16, True),
        ("rgb48be", "gbr", 16, False),
        ("gray10le", "gray", 10, False),
        ("ya8", "gray", 8, True),
        ("yuv420p9le", "yuv420", 9, False),
        ("y210le", "yuv422", 10, False),
        # Of v308, v408 and v410, which newer versions of ffmpeg read as raw video.
        ("vyu444", "yuv444", 8, False),
        ("uyva", "yuv444", 8, True),
        ("v30xle", "yuv444", 10, False),
    ],
)
def test_layouts_hold_all_of_a_format(pix_fmt: str, layout: str, depth: int, alpha: bool) -> None:
    assert read_pix_fmt(pix_fmt)[:3] == (layout, depth, alpha)


@pytest.mark.parametrize("changes", [{"pix_fmt": "bayer_bggr8"}, {"pix_fmt": "gbrpf32le"}])
def test_what_cannot_be_read_is_refused_in_a_sentence(changes: dict[str, Any]) -> None:
    with pytest.raises(PermanentError, match=r"cannot read\."):
        plan_colour(make_video(**changes), scale=4)


@pytest.mark.parametrize("tagged", ["left", "center", "topleft", "top", "bottomleft", "bottom"])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_chroma_is_turned_with_the_picture(tagged: str, degrees: int, mirrored: bool) -> None:
    """On a picture of 6x4: where its chroma samples are after they were turned like anything else in it."""
    video = make_video(rotation=degrees, is_mirrored=mirrored, chroma_location=tagged)
    place = plan_colour(video, scale=4).source.chroma_location
    right, down = PLACES[tagged]
    samples = {(2 * x + right, 2 * y + down) for x in range(3) for y in range(2)}
    width, height = 6, 4
    if mirrored:
        samples = {(width - 1 - x, y) for x, y in samples}
    for _quarter in range(degrees // 90):
        samples = {(height - 1 - y, x) for x, y in samples}
        width, height = height, width
    right, down = PLACES[place]
    assert samples == {(2 * x + right, 2 * y + down) for x in range(width // 2) for y in range(height // 2)}


def names_of_ffmpeg(function: str) -> dict[int, str]:
    """By the library that ffprobe asks, where it can be loaded."""
    library = ctypes.util.find_library("avutil")
    if library is None:
        pytest.skip("ffmpeg has no shared library here")
    ask = getattr(ctypes.CDLL(library), function)
    ask.restype = ctypes.c_char_p
    named = {code: ask(code).decode() for code in range(256) if ask(code)}
    return {code: name for code, name in named.items() if name not in UNTAGGED}


@pytest.mark.parametrize("kind", KINDS.values())
def test_code_points_have_the_names_that_ffprobe_prints(kind: type[CodePoint]) -> None:
    function = {
        ColourPrimaries: "av_color_primaries_name",
        TransferCharacteristics: "av_color_transfer_name",
        MatrixCoefficients: "av_color_space_name",
    }[kind]
    # Later versions of the standard add matrices from 15 on, which are read as untagged.
    assert {code.value: code.label for code in kind} == {
        code: label
        for code, label in names_of_ffmpeg(function).items()
        if kind is not MatrixCoefficients or code < 15
    }


def test_ranges_and_chroma_locations_have_the_names_that_ffprobe_prints() -> None:
    """ffmpeg counts locations from 1, the standard from 0."""
    located = names_of_ffmpeg("av_chroma_location_name")
    assert [located[code + 1] for code in range(len(CHROMA_LOCATIONS))] == list(CHROMA_LOCATIONS)
    assert list(names_of_ffmpeg("av_color_range_name").values()) == ["tv", "pc"]


def test_a_plan_holds_names_that_earlier_versions_read() -> None:
    tags = plan_colour(make_video(transfer="bt470m"), scale=4).tags
    adapter = TypeAdapter(OutputTags)
    text = adapter.dump_json(tags)
    assert b'"transfer":"bt470m"' in text
    assert adapter.validate_json(text) == tags


def test_a_tag_with_an_unknown_value_is_told() -> None:
    video = make_video()
    unknown = replace(video, colour=replace(video.colour, has_unknown=True))
    assert plan_colour(unknown, scale=4).warnings == (UNKNOWN_COLOURS_WARNING,)
    assert plan_colour(video, scale=4).warnings == ()
