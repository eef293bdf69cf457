"""The kinds of file that people have; what is expected of each is what a viewer may ask for."""

from collections.abc import Mapping
from fractions import Fraction
from functools import partial
from typing import Any

from tests.media import irregular
from tests.media.encoding import (
    BT709_FULL,
    HLG,
    PQ,
    SD_525,
    SD_625,
    X264,
    X265,
    X265_PARAMETERS,
    Sound,
    Tags,
    encode,
)
from tests.media.kind import Kind

# ST 2086: red, green, blue and white as x and y, then the darkest and brightest luminance; and the content's light.
MASTERING = tuple(
    Fraction(value, 50_000) for value in (34_000, 16_000, 13_250, 34_500, 7_500, 3_000, 15_635, 16_450)
)
LUMINANCE = (Fraction(1, 10_000), Fraction(1000))
CONTENT_LIGHT = (1000, 400)
HDR10 = (
    f"{X265_PARAMETERS}:hdr10=1:repeat-headers=1:max-cll=1000,400:"
    "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
)
TRANSPARENT = r"transparen"
CUT_OFF = r"is cut off"
DEINTERLACED = r"was deinterlaced"
CONVERTED = r"[Ss]ound was converted"


def _plain(
    name: str, about: str, *, suffix: str = ".mp4", make: Mapping[str, Any] | None = None, **expected: Any
) -> Kind:
    """One pass of an encoder. `make`: for `encode`; `expected`: fields of Kind."""
    return Kind(name=name, suffix=suffix, about=about, make=partial(encode, **(make or {})), **expected)


def _silent(name: str, about: str, *, make: Mapping[str, Any], **expected: Any) -> Kind:
    return _plain(name, about, make={"sounds": (), **make}, sounds=(), channels=(), **expected)


def _short(name: str, about: str, *, make: Mapping[str, Any], **expected: Any) -> Kind:
    """Silent, and of one segment."""
    return _silent(name, about, make={"count": 8, **make}, frames=8, **expected)


# Steps between frames as a phone makes them, in ticks of 1/90000 s and in milliseconds.
UNEVEN_TICKS = {"after": "settb=1/90000,setpts='N*3600+mod(N*N,7)*311'"}
UNEVEN_MILLISECONDS = {"after": "settb=1/1000,setpts='N*40+mod(N*N,7)*5'"}
AT_90000 = ("-enc_time_base", "1/90000", "-video_track_timescale", "90000")
AT_1000 = ("-enc_time_base", "1/1000")
TEN_BIT = {"pix_fmt": "yuv420p10le"}
VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-crf", "10", "-b:v", "0", "-g", "10")
# What the decoder says of every JPEG.
JPEG = Tags(primaries="smpte170m", transfer="smpte170m", matrix="bt470bg", range="pc")
PRORES = ("-c:v", "prores_ks", "-vendor", "apl0")

RATES = (
    _plain("h264", "H.264, constant rate, B-frames, AAC"),
    _plain("film", "24000/1001", make={"rate": "24000/1001"}, rate=Fraction(24000, 1001)),
    _plain("ntsc", "30000/1001", make={"rate": "30000/1001"}, rate=Fraction(30000, 1001)),
    _plain("60-fps", "60 frames a second", make={"rate": "60", "count": 30}, rate=Fraction(60), frames=30),
    _plain(
        "120-fps", "120 frames a second", make={"rate": "120", "count": 40}, rate=Fraction(120), frames=40
    ),
    _plain("variable-mp4", "variable rate", make={**UNEVEN_TICKS, "options": AT_90000}, rate=None),
    _plain(
        "variable-mkv",
        "variable rate, in milliseconds",
        suffix=".mkv",
        make={**UNEVEN_MILLISECONDS, "options": AT_1000},
        rate=None,
    ),
    _plain("to-film", "25 to 23.976", fields={"target_fps": "23.976"}),
    _plain("to-60", "25 to 60", fields={"target_fps": "60"}),
    _plain("to-12.5", "25 to 12.5", fields={"target_fps": "12.5"}),
    _plain(
        "variable-to-25",
        "variable to 25",
        make={**UNEVEN_TICKS, "options": AT_90000},
        rate=None,
        fields={"target_fps": "25"},
    ),
)

SHAPES = (
    *(
        Kind(
            name=f"rotated-{degrees}",
            suffix=".mp4",
            about=f"turned by {degrees} degrees, as phones tag it",
            make=partial(irregular.turned, clockwise=degrees),
            clockwise=degrees,
        )
        for degrees in (90, 180, 270)
    ),
    Kind(
        name="rotated-anamorphic",
        suffix=".mp4",
        about="turned, pixels not square",
        make=partial(irregular.turned, clockwise=90, sar="3/4"),
        clockwise=90,
        sar=Fraction(4, 3),
    ),
    _plain("anamorphic", "pixels not square (16:11)", make={"after": "setsar=16/11"}, sar=Fraction(16, 11)),
    _plain(
        "odd-size",
        "odd width and height, 4:2:0",
        make={"size": (97, 63), "encoder": VP9},
        size=(97, 63),
        encoders=("libvpx-vp9",),
    ),
    _silent("single-frame", "a single frame, no sound", make={"count": 1}, frames=1),
    _plain("still", "a still picture with sound", make={"count": 1, "rate": "1"}, rate=Fraction(1), frames=1),
    Kind(
        name="interlaced-tff",
        suffix=".mp4",
        about="interlaced, top field first, H.264",
        make=partial(irregular.interlaced, top_first=True, encoder=X264),
        is_interlaced=True,
        warnings=(DEINTERLACED,),
    ),
    Kind(
        name="interlaced-bff",
        suffix=".ts",
        about="interlaced, bottom field first, MPEG-2",
        make=partial(
            irregular.interlaced,
            top_first=False,
            encoder=("-c:v", "mpeg2video", "-q:v", "2", "-g", "10", "-bf", "2"),
        ),
        is_interlaced=True,
        warnings=(DEINTERLACED,),
        encoders=("mpeg2video",),
    ),
)

COLOURS = (
    _short("full-range", "full range", make={"colours": BT709_FULL, "pix_fmt": "yuvj420p"}, tags=BT709_FULL),
    _short("bt601-525", "BT.601, 525 lines", make={"colours": SD_525}, tags=SD_525),
    _short("bt601-625", "BT.601, 625 lines", make={"colours": SD_625}, tags=SD_625),
    _short("sd-untagged", "small, untagged", make={"colours": SD_525, "tagged": False}, tags=SD_525),
    _short(
        "hd-untagged",
        "HD, untagged",
        make={"tagged": False, "size": (1280, 64)},
        size=(1280, 64),
    ),
    _short(
        "sd-to-hd",
        "BT.601, untagged, HD after the upscale",
        make={"colours": SD_525, "tagged": False, "size": (320, 180)},
        size=(320, 180),
        tags=SD_525,
    ),
    _short(
        "small-bt709",
        "BT.709, tagged, HD after the upscale",
        make={"size": (320, 180)},
        size=(320, 180),
    ),
    _short("ten-bit-h264", "H.264, 10 bits", make={**TEN_BIT}, depth=10),
    _short(
        "ten-bit-hevc",
        "HEVC, 10 bits",
        make={**TEN_BIT, "encoder": (*X265, "-x265-params", X265_PARAMETERS)},
        depth=10,
        encoders=("libx265",),
    ),
    _short(
        "hdr10",
        "HDR10: PQ with mastering metadata",
        make={**TEN_BIT, "encoder": (*X265, "-x265-params", HDR10), "colours": PQ},
        tags=PQ,
        depth=10,
        is_hdr10=True,
        encoders=("libx265",),
    ),
    _short(
        "hlg",
        "HLG",
        make={**TEN_BIT, "encoder": (*X265, "-x265-params", X265_PARAMETERS), "colours": HLG},
        tags=HLG,
        depth=10,
        encoders=("libx265",),
    ),
    _short("chroma-422", "H.264, 4:2:2", make={"pix_fmt": "yuv422p"}),
    _short("chroma-444", "H.264, 4:4:4", make={"pix_fmt": "yuv444p"}),
    _short(
        "rgb",
        "H.264 in RGB, as screen recorders write it",
        make={
            "pix_fmt": "gbrp",
            "encoder": ("-c:v", "libx264rgb", "-preset", "veryfast", "-crf", "8"),
            "tagged": False,
        },
        encoders=("libx264rgb",),
    ),
    _short(
        "prores-422",
        "ProRes 422, 10 bits",
        suffix=".mov",
        make={"pix_fmt": "yuv422p10le", "encoder": PRORES},
        depth=10,
        encoders=("prores_ks",),
    ),
    Kind(
        name="prores-4444",
        suffix=".mov",
        about="ProRes 4444 with transparency",
        frames=8,
        make=partial(irregular.see_through, encoder=(*PRORES, "-profile:v", "4444"), pix_fmt="yuva444p10le"),
        sounds=(),
        channels=(),
        depth=10,
        warnings=(TRANSPARENT,),
        encoders=("prores_ks",),
    ),
    Kind(
        name="alpha-webm",
        suffix=".webm",
        about="VP9 in WebM with transparency",
        frames=8,
        make=partial(
            irregular.see_through,
            encoder=(*VP9, "-auto-alt-ref", "0"),
            pix_fmt="yuva420p",
        ),
        sounds=(),
        channels=(),
        warnings=(TRANSPARENT,),
        encoders=("libvpx-vp9",),
    ),
)

CODECS = (
    _plain(
        "hevc",
        "HEVC",
        make={"encoder": (*X265, "-x265-params", X265_PARAMETERS, "-tag:v", "hvc1")},
        encoders=("libx265",),
    ),
    _plain(
        "av1-opus",
        "AV1 with Opus in MP4",
        make={
            "encoder": ("-c:v", "libaom-av1", "-cpu-used", "8", "-usage", "realtime", "-crf", "20"),
            "sounds": [Sound(codec=("-c:a", "libopus"))],
        },
        sounds=("opus",),
        encoders=("libaom-av1", "libopus"),
    ),
    _plain(
        "vp9-opus",
        "VP9 with Opus in WebM",
        suffix=".webm",
        make={
            "encoder": VP9,
            "sounds": [Sound(codec=("-c:a", "libopus"))],
        },
        sounds=("opus",),
        # Matroska rounds the samples that Opus starts with to milliseconds.
        most_samples=24,
        encoders=("libvpx-vp9", "libopus"),
    ),
    _plain(
        "vp8-vorbis",
        "VP8 with Vorbis in WebM",
        suffix=".webm",
        make={
            "encoder": ("-c:v", "libvpx", "-deadline", "realtime", "-b:v", "2M"),
            # VP8 has no tags but that of BT.601.
            "colours": SD_525,
            "tagged": False,
            "sounds": [Sound(codec=("-c:a", "libvorbis"))],
        },
        tags=SD_525,
        warnings=(CONVERTED,),
        most_samples=24,
        encoders=("libvpx", "libvorbis"),
    ),
    _plain(
        "mpeg4-avi",
        "MPEG-4 with MP3 in AVI",
        suffix=".avi",
        make={
            "encoder": ("-c:v", "mpeg4", "-bf", "0", "-q:v", "2", "-g", "10"),
            "colours": SD_525,
            "tagged": False,
            "rate": "30000/1001",
            "sounds": [Sound(codec=("-c:a", "libmp3lame"))],
            "options": ("-fps_mode", "cfr"),
        },
        rate=Fraction(30000, 1001),
        tags=SD_525,
        sounds=("mp3",),
        encoders=("mpeg4", "libmp3lame"),
    ),
    _plain(
        "mjpeg-pcm",
        "Motion JPEG with PCM in QuickTime",
        suffix=".mov",
        make={
            "encoder": ("-c:v", "mjpeg", "-q:v", "2"),
            "pix_fmt": "yuvj420p",
            "colours": JPEG,
            "sounds": [Sound(codec=("-c:a", "pcm_s16le"))],
        },
        tags=JPEG,
        warnings=(CONVERTED,),
        encoders=("mjpeg",),
    ),
)

TRACKS = (
    _plain(
        "many-sounds",
        "two sound tracks, one of them 5.1",
        make={"sounds": [Sound(channels=2), Sound(channels=6, codec=("-c:a", "ac3"), language="fra")]},
        sounds=("aac", "ac3"),
        channels=(2, 6),
    ),
    Kind(
        name="extras",
        suffix=".mkv",
        about="subtitles, chapters, title, languages",
        make=irregular.with_extras,
        has_extras=True,
    ),
    _plain(
        "video-late", "the picture starts after the sound", make={"before_picture": ("-itsoffset", "0.36")}
    ),
    Kind(
        name="edit-list",
        suffix=".mp4",
        about="cut into a group of pictures, without encoding",
        make=irregular.cut_into_group,
        first_number=irregular.CUT_AT_FRAME,
    ),
    Kind(
        name="ts-late-start",
        suffix=".ts",
        about="transport stream, from 10 hours on",
        make=partial(irregular.shifted, seconds="36000"),
    ),
    Kind(
        name="negative-start",
        suffix=".ts",
        about="transport stream whose clock starts anew: from below 0",
        # The clock has 33 bits and 90,000 ticks a second; the muxer starts 1.4 s late.
        make=partial(irregular.shifted, seconds="95441.9"),
    ),
    _plain(
        "no-edit-list",
        "B-frames without an edit list: from above 0",
        make={"options": ("-use_editlist", "0")},
    ),
    Kind(
        name="cut-off",
        suffix=".mp4",
        about="a download that broke off",
        make=irregular.cut_off,
        frames=None,
        warnings=(CUT_OFF,),
    ),
)

KINDS: dict[str, Kind] = {kind.name: kind for kind in (*RATES, *SHAPES, *COLOURS, *CODECS, *TRACKS)}
