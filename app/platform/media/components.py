"""The components of ffmpeg that the server's commands use in addition to the decoders and formats of
`whitelists.py`, by ffmpeg's own names. The images' ffmpeg is built with only these (deploy/ffmpeg).
"""

ENCODERS: tuple[str, ...] = (
    "libx264",
    "libx265",
    "libsvtav1",
    "libvpx-vp9",
    "prores_ks",
    "ffv1",
    "aac",
    "flac",
    "libopus",
    "subrip",
    "webvtt",
    "ass",
    "mov_text",
    "mjpeg",
    "png",
    "rawvideo",
    "pcm_s16le",
)

MUXERS: tuple[str, ...] = (
    "mp4",
    "mov",
    "matroska",
    "webm",
    "ipod",
    "mpegts",
    "nut",
    "flv",
    "rawvideo",
    "image2pipe",
    "mjpeg",
    "ass",
)
MUXERS += ("framecrc", "data")

# Without them the server works, except for previews of HDR.
TONE_MAPPING_FILTERS: tuple[str, ...] = ("tonemap", "zscale")
# Filters in commands, and those that ffmpeg inserts by itself: conversions, rotations, cuts.
FILTERS: tuple[str, ...] = (
    "aformat",
    "alphaextract",
    "anull",
    "apad",
    "aresample",
    "aselect",
    "asetpts",
    "asettb",
    "asplit",
)
FILTERS += ("atrim", "blackframe", "bwdif", "concat", "crop", "extractplanes", "format", "fps", "geq")
FILTERS += ("hflip", "lutrgb", "mergeplanes", "metadata", "movie", "negate", "null", "pad", "rotate", "scale")
FILTERS += ("pan", "premultiply", "select", "setparams", "setpts", "setsar", "settb", "sine", "split")
FILTERS += ("testsrc2", "tpad", "transpose", "trim", "vflip", "dilation", "fieldmatch", "tblend", "yadif")
