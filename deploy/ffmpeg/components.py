"""Prints the options of ffmpeg's `configure` for a build that has what the server uses: one a line.

    python components.py DIRECTORY     with the server's components.py and whitelists.py

All demuxers, parsers and bitstream filters are there: what a file is recognised as, and what is read of its packets,
depends on all of them.
"""

import runpy
import sys
from pathlib import Path
from typing import Any

# By configure's names, where they are others than those of the program's lists.
CONFIGURED = {
    "msmpeg4": "msmpeg4v3",
    "cc_dec": "ccaption",
    "mov_text": "movtext",
    "libvpx": "libvpx_vp8",
    "libvpx-vp9": "libvpx_vp9",
}
# Decoders of libraries that ffmpeg's own, or dav1d, make superfluous. Those of libvpx alone read transparency.
LEFT_OUT = frozenset({"libaom-av1", "libopus", "libvorbis"})
LIBRARIES = (
    "libx264",
    "libx265",
    "libsvtav1",
    "libvpx",
    "libopus",
    "libdav1d",
    "libzimg",
    "zlib",
    "bzlib",
    "iconv",
)
# What other components are made of, or take for granted.
IMPLIED = {
    "decoder": ("wrapped_avframe",),
    "encoder": ("wrapped_avframe",),
    "muxer": ("null",),
    "filter": ("lut",),
}


def options(server: dict[str, Any]) -> list[str]:
    """`server`: the names of both modules."""
    used = {
        "decoder": [name for name in server["DECODERS"] if name not in LEFT_OUT],
        "encoder": server["ENCODERS"],
        "muxer": server["MUXERS"],
        "filter": (*server["FILTERS"], *server["TONE_MAPPING_FILTERS"]),
        "protocol": server["PROTOCOLS"],
        "indev": ("lavfi",),
    }
    return [
        "--disable-everything",
        "--disable-autodetect",
        "--disable-network",
        "--disable-doc",
        "--disable-ffplay",
        "--enable-gpl",
        *(f"--enable-{kind}" for kind in ("demuxers", "parsers", "bsfs", *LIBRARIES)),
        *(
            f"--enable-{kind}={','.join(CONFIGURED.get(name, name) for name in (*names, *IMPLIED.get(kind, ())))}"
            for kind, names in used.items()
        ),
    ]


if __name__ == "__main__":
    modules = [runpy.run_path(str(Path(sys.argv[1], name))) for name in ("components.py", "whitelists.py")]
    print(*options(modules[0] | modules[1]), sep="\n")
