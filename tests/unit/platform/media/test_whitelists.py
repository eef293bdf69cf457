"""What ffmpeg may open, and what it must never."""

import pytest

from app.platform.media import whitelists


@pytest.mark.parametrize(
    "format_name",
    [
        *(
            "hls",
            "applehttp",
            "concat",
            "dash",
            "image2",
            "image2pipe",
            "png_pipe",
            "lavfi",
            "tty",
            "sdp",
            "rtsp",
        ),
        *("ffmetadata", "imf", "webm_dash_manifest", "avisynth", "vapoursynth", "sap", "rtp", "tedcaptions"),
    ],
)
def test_formats_that_read_other_files_or_are_none_are_out(format_name: str) -> None:
    assert format_name not in whitelists.FORMATS


def test_only_files_and_pipes_are_opened() -> None:
    assert set(whitelists.PROTOCOLS) == {"file", "pipe"}


def test_decoders_of_common_codecs_are_in_and_exotic_ones_are_out() -> None:
    assert {"h264", "hevc", "libdav1d", "vp9", "prores", "mp3float", "pgssub"} <= set(whitelists.DECODERS)
    assert not {"magicyuv", "cinepak", "exr", "vmnc", "tscc", "ansi", "lagarith"} & set(whitelists.DECODERS)
    assert whitelists.is_decodable("h264")
    assert not whitelists.is_decodable("magicyuv")
    assert not whitelists.is_decodable(None)


def test_names_can_stand_in_a_list() -> None:
    for name in (*whitelists.FORMATS, *whitelists.PROTOCOLS, *whitelists.DECODERS):
        assert name.replace("-", "").replace("_", "").isalnum()
