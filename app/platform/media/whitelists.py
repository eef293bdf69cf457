"""The formats, protocols and decoders that ffmpeg may open: those that users' videos need.

ffmpeg has some 350 demuxers and 500 decoders. Playlist and script formats (hls, dash, concat, ...) read other files,
and most memory errors are in little-used decoders. The names are ffmpeg's: a format's is its demuxer's, a codec's is
its descriptor's (ffprobe's `codec_name`), a decoder's is the one that `-decoders` lists.
"""

# Demuxers of self-contained video files. None of them opens a second file: mov's external references are off unless
# `enable_drefs` is set, which FfmpegRunner refuses.
FORMATS: tuple[str, ...] = (
    "mov",
    "mp4",
    "m4a",
    "3gp",
    "3g2",
    "mj2",
    "matroska",
    "webm",
    "avi",
    "mpegts",
    "mpeg",
)
FORMATS += ("flv", "asf", "ogg", "mxf", "dv")
# Bare video: animations, and streams without a container.
FORMATS += ("gif", "apng", "h264", "hevc", "yuv4mpegpipe")

PROTOCOLS: tuple[str, ...] = ("file", "pipe")

# Decoders by codec: maintained ones of commonly used codecs. A decoder may be missing from a build.
VIDEO_DECODERS: dict[str, tuple[str, ...]] = {
    "h264": ("h264",),
    "hevc": ("hevc",),
    "av1": ("libdav1d", "libaom-av1", "av1"),
    "vp8": ("vp8", "libvpx"),
    "vp9": ("vp9", "libvpx-vp9"),
    "mpeg4": ("mpeg4",),
    "mpeg2video": ("mpeg2video",),
    "mpeg1video": ("mpeg1video",),
    "mjpeg": ("mjpeg",),
    "png": ("png",),
    "apng": ("apng",),
    "gif": ("gif",),
    "prores": ("prores",),
    "dnxhd": ("dnxhd",),
    "ffv1": ("ffv1",),
    "huffyuv": ("huffyuv",),
    "ffvhuff": ("ffvhuff",),
    "utvideo": ("utvideo",),
    "cfhd": ("cfhd",),
    "rawvideo": ("rawvideo",),
    "v210": ("v210",),
    "qtrle": ("qtrle",),
    "dvvideo": ("dvvideo",),
    "theora": ("theora",),
    "h263": ("h263",),
    "flv1": ("flv",),
    "vp6": ("vp6",),
    "vp6f": ("vp6f",),
    "msmpeg4v1": ("msmpeg4v1",),
    "msmpeg4v2": ("msmpeg4v2",),
    "msmpeg4v3": ("msmpeg4",),
    "wmv1": ("wmv1",),
    "wmv2": ("wmv2",),
    "wmv3": ("wmv3",),
    "vc1": ("vc1",),
}

_PCM: tuple[str, ...] = ("s8", "u8", "s16le", "s16be", "u16le", "u16be", "s24le", "s24be", "s32le", "s32be")
_PCM += ("f32le", "f32be", "f64le", "f64be", "alaw", "mulaw", "bluray", "dvd")

AUDIO_DECODERS: dict[str, tuple[str, ...]] = {
    "aac": ("aac",),
    "aac_latm": ("aac_latm",),
    "mp1": ("mp1float", "mp1"),
    "mp2": ("mp2float", "mp2"),
    "mp3": ("mp3float", "mp3"),
    "ac3": ("ac3",),
    "eac3": ("eac3",),
    "dts": ("dca",),
    "truehd": ("truehd",),
    "mlp": ("mlp",),
    "opus": ("opus", "libopus"),
    "vorbis": ("vorbis", "libvorbis"),
    "flac": ("flac",),
    "alac": ("alac",),
    "wmav1": ("wmav1",),
    "wmav2": ("wmav2",),
    "wmapro": ("wmapro",),
    "wmavoice": ("wmavoice",),
    "wmalossless": ("wmalossless",),
    "adpcm_ms": ("adpcm_ms",),
    "adpcm_ima_wav": ("adpcm_ima_wav",),
    "adpcm_ima_qt": ("adpcm_ima_qt",),
    "adpcm_swf": ("adpcm_swf",),
    "amr_nb": ("amrnb",),
    "amr_wb": ("amrwb",),
    **{f"pcm_{kind}": (f"pcm_{kind}",) for kind in _PCM},
}

SUBTITLE_DECODERS: dict[str, tuple[str, ...]] = {
    "subrip": ("subrip", "srt"),
    "ass": ("ass", "ssa"),
    "mov_text": ("mov_text",),
    "webvtt": ("webvtt",),
    "text": ("text",),
    "dvd_subtitle": ("dvdsub",),
    "hdmv_pgs_subtitle": ("pgssub",),
    "dvb_subtitle": ("dvbsub",),
    "eia_608": ("cc_dec",),
}

# Subtitles that are texts, and are converted for an output.
TEXT_SUBTITLES = frozenset({"subrip", "ass", "ssa", "webvtt", "text"})

DECODERS: tuple[str, ...] = tuple(
    decoder
    for table in (VIDEO_DECODERS, AUDIO_DECODERS, SUBTITLE_DECODERS)
    for decoders in table.values()
    for decoder in decoders
)


def is_decodable(codec: str | None) -> bool:
    """Whether FfmpegRunner lets ffmpeg decode `codec` (ffprobe's `codec_name`)."""
    return codec in VIDEO_DECODERS or codec in AUDIO_DECODERS or codec in SUBTITLE_DECODERS
