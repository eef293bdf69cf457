"""Streams in codecs that are not listed: by their codecs alone it is decided which decoders are opened."""

import pytest

from app.platform.errors import CodecRefused, FfmpegError
from app.platform.media.unlisted_codecs import decoders_by_codec, decoders_to_open, may_be_unlisted

REFUSED = FfmpegError("failed", detail="[tta @ 0x55a9] [error] Codec (tta) not on whitelist 'h264,aac'")
CODECS = """Codecs:
 D..... = Decoding supported
 -------
 D.VI.S 012v                 Uncompressed 4:2:2 10-bit
 DEV.LS h264                 H.264 / AVC (decoders: h264 h264_qsv ) (encoders: libx264 )
 D.VI.S magicyuv             MagicYUV video
 DEAILS tta                  TTA (True Audio)
 DEAIL. speex                Speex (decoders: speex libspeex ) (encoders: libspeex )
 ..D... ttf                  TrueType font
 DEVILS webp                 WebP (encoders: libwebp_anim libwebp )
"""


def copied(*streams: tuple[str, str]) -> str:
    lines = ["#extradata 0:       46, 0x33e80f8e", "#software: Lavf59"]
    for index, (kind, codec) in enumerate(streams):
        lines += [f"#tb {index}: 1/1000", f"#media_type {index}: {kind}", f"#codec_id {index}: {codec}"]
    return "\n".join([*lines, "0,       -400,          0,      200,     1516, 0xa93d78bd"])


def test_the_decoders_of_a_build_are_told_by_codec() -> None:
    assert decoders_by_codec(CODECS) == {
        "012v": ("012v",),
        "h264": ["h264", "h264_qsv"],
        "magicyuv": ("magicyuv",),
        "tta": ("tta",),
        "speex": ["speex", "libspeex"],
        "webp": ("webp",),
    }


def test_sound_and_covers_are_opened_and_what_has_no_decoder_is_not() -> None:
    streams = (("video", "h264"), ("audio", "tta"), ("audio", "aac"), ("audio", "speex"))
    more = (("attachment", "ttf"), ("video", "webp"), ("data", "none"), ("video", "none"))
    found = decoders_to_open(copied(*streams, *more), decoders_by_codec(CODECS))
    assert found == {1: ("tta",), 3: ["speex", "libspeex"], 5: ("webp",)}


@pytest.mark.parametrize(
    ("streams", "sentence"),
    [
        (
            [("audio", "tta"), ("video", "magicyuv")],
            r"does not decode \(magicyuv\)\. Convert it to another one first",
        ),
        (
            [("video", "h264"), ("video", "012v")],
            r"Stream 1 .* \(012v\)\. `.* -map -0:1 .*` removes it",
        ),
    ],
)
def test_a_video_is_refused_by_its_name(streams, sentence) -> None:
    with pytest.raises(CodecRefused, match=sentence):
        decoders_to_open(copied(*streams), decoders_by_codec(CODECS))


@pytest.mark.parametrize(
    "argument",
    ["-show_frames", "-count_frames", "frame=pts", "stream=index:frame=pts", "frame_tags=x", "frames"],
)
def test_no_unlisted_decoder_is_opened_where_it_would_decode(argument: str) -> None:
    assert not may_be_unlisted(REFUSED, ["-show_entries", argument])
    assert may_be_unlisted(REFUSED, ["-show_entries", "stream=nb_frames,avg_frame_rate:packet=pts"])
    assert not may_be_unlisted(FfmpegError("failed", detail="Invalid data"), [])
