"""The lists that the images' ffmpeg is built from name all that the commands in the code use."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.platform.media.components import ENCODERS, FILTERS, MUXERS, TONE_MAPPING_FILTERS
from app.platform.media.programs import find_programs
from app.platform.media.whitelists import DECODERS

ROOT = Path(__file__).parents[4]
ROOMS = ("app/platform/media", "app/mock", "app/cli/doctor", "worker")
# Filters' names that are words of something else in the code.
WORDS = frozenset(
    {
        "blend",
        "buffer",
        "colorspace",
        "convolution",
        "convolve",
        "copy",
        "detelecine",
        "eq",
        "field",
        "framerate",
    }
)
WORDS |= {
    "gradients",
    "join",
    "loop",
    "median",
    "mix",
    "noise",
    "phase",
    "psnr",
    "qp",
    "random",
    "replaygain",
}
WORDS |= {
    "ass",
    "realtime",
    "segment",
    "signature",
    "ssim",
    "subtitles",
    "threshold",
    "thumbnail",
    "tile",
    "yadif",
}
# VMAF is measured where an ffmpeg has it; the images' has not.
MEASURING = frozenset({"libvmaf"})


def listed(kind: str) -> set[str]:
    """What this machine's ffmpeg has of that kind."""
    command = [find_programs().ffmpeg, "-hide_banner", f"-{kind}"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {name for line in lines if len(words := line.split()) > 1 for name in words[1].split(",")}


def words_in_literals() -> Iterator[str]:
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                # Long ones are prose.
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 200:
                    yield from re.findall(r"\w+", node.value)


def test_every_filter_that_the_code_names_is_listed() -> None:
    named = listed("filters").intersection(words_in_literals())
    assert named - WORDS - MEASURING <= {*FILTERS, *TONE_MAPPING_FILTERS}


def test_every_encoder_that_the_code_names_is_listed() -> None:
    """Those of libraries; the others have the names of codecs and decoders."""
    named = {word for word in words_in_literals() if word.startswith("lib")}
    assert named & listed("encoders") <= {*ENCODERS, *DECODERS}


@pytest.mark.parametrize(
    ("kind", "names"),
    [("filters", (*FILTERS, *TONE_MAPPING_FILTERS)), ("encoders", ENCODERS), ("muxers", MUXERS)],
)
def test_the_lists_have_ffmpegs_own_names(kind: str, names: tuple[str, ...]) -> None:
    assert set(names) <= listed(kind)
    assert len(set(names)) == len(names)


def test_options_of_the_build() -> None:
    command = [sys.executable, "deploy/ffmpeg/components.py", "app/platform/media"]
    options = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    (decoders,) = (option for option in options if option.startswith("--enable-decoder="))
    named = set(decoders.partition("=")[2].split(","))
    assert {"h264", "hevc", "libdav1d", "msmpeg4v3", "movtext", "ccaption", "pcm_s16le"} <= named
    assert not [option for option in options if " " in option or "nonfree" in option]
    assert "--disable-network" in options
