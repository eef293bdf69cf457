"""Whether a render is what its kind promises: every fault as a sentence."""

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from tests.e2e.film import Film
from tests.e2e.measuring import SCALE, Measured, milliseconds
from tests.media.irregular import ARTIST, CHAPTERS, TITLE
from tests.media.kind import Kind
from tests.media.kinds import CONTENT_LIGHT, LUMINANCE, MASTERING

# What x264 and x265 at CRF 18 cost these clips, which are all edges, and 4:2:0; in 8-bit codes of R'G'B'. The
# matrix of BT.601 in the place of BT.709 shifts a channel by 1.8, the wrong range by 6.
MOST_COLOUR_ERROR = 1.7
MOST_COLOUR_SHIFT = 0.7
# Every other line of a deinterlaced frame was never seen: what is guessed differs from the truth. As they are, these
# clips are 9.6 off; with every other line doubled, 5.9.
MOST_DEINTERLACED_ERROR = 5.5
MOST_DEINTERLACED_SHIFT = 1.2
MASTERING_FIELDS = tuple(
    f"{colour}_{axis}" for colour in ("red", "green", "blue", "white_point") for axis in "xy"
)


def faults(kind: Kind, render: dict[str, Any], source: Film, output: Film, measured: Measured) -> list[str]:
    """All that is wrong with a completed render; nothing, when all is well."""
    return [
        *_frames(kind, source, measured),
        *_picture(kind, output, measured),
        *_sound(kind, output, measured),
        *_warnings(kind, render),
        *_told(render, output, measured),
        *(_mastering(output) if kind.is_hdr10 else ()),
        *(_extras(output) if kind.has_extras else ()),
    ]


def _frames(kind: Kind, source: Film, measured: Measured) -> Iterator[str]:
    if kind.frames is not None and measured.frames_in != kind.frames:
        yield f"the clip itself has {measured.frames_in} frames, not {kind.frames}"
    if kind.rate is not None and kind.target_rate is None:
        tick = Fraction(source.video["time_base"])
        apart = max(abs(time - round(time * kind.rate) / kind.rate) for time in source.times)
        if apart > tick:
            yield f"the clip's frames lie up to {float(apart)} s beside its rate"
    if not measured.has_all_frames:
        yield f"frames {list(measured.numbers)} are shown, not {list(measured.expected_numbers)}"
    if measured.frames_out != len(measured.expected_numbers):
        yield f"{measured.frames_out} frames, not {len(measured.expected_numbers)}"
    if measured.time_error:
        yield f"a frame is shown {float(measured.time_error):.6f} s beside its time"
    if measured.duration_error:
        yield f"the video's duration is {float(measured.duration_error):.6f} s off"


def _picture(kind: Kind, output: Film, measured: Measured) -> Iterator[str]:
    size = (SCALE * kind.size[0], SCALE * kind.size[1])
    if measured.size != size:
        yield f"the pictures are {measured.size}, not {size}"
    if not measured.displayed_upright:
        yield "players are still told to turn the pictures"
    ratio = Fraction(output.video.get("sample_aspect_ratio", "1:1").replace(":", "/"))
    if ratio != kind.sar:
        yield f"the sample aspect ratio is {ratio}, not {kind.sar}"
    tags = tuple(measured.tags)
    wanted = (kind.tags.primaries, kind.tags.transfer, kind.tags.matrix, kind.tags.range)
    if tags != wanted:
        yield f"the colour tags are {tags}, not {wanted}"
    layout, depth, _ = output.layout
    if (layout, depth) != ("420", kind.depth):
        yield f"the pixels are {output.video['pix_fmt']}, not of {kind.depth} bits"
    if not all(frame.get("interlaced_frame") == 0 for frame in output.frames):
        yield "the frames are flagged as interlaced"
    most_error, most_shift = (
        (MOST_DEINTERLACED_ERROR, MOST_DEINTERLACED_SHIFT)
        if kind.is_interlaced
        else (MOST_COLOUR_ERROR, MOST_COLOUR_SHIFT)
    )
    if measured.colour_error > most_error:
        yield f"a frame's colours are {measured.colour_error:.2f} off"
    if abs(measured.colour_shift) > most_shift:
        yield f"a frame's colours are shifted by {measured.colour_shift:+.2f}"


def _sound(kind: Kind, output: Film, measured: Measured) -> Iterator[str]:
    tracks = output.streams("audio")
    codecs = [track["codec_name"] for track in tracks]
    if codecs != list(kind.sounds):
        yield f"the sound is {codecs}, not {list(kind.sounds)}"
    channels = [track["channels"] for track in tracks]
    if channels != list(kind.channels):
        yield f"the sound has {channels} channels, not {list(kind.channels)}"
    for shift in measured.sound_shifts:
        if shift is None or abs(shift) > kind.most_samples:
            yield f"the sound is {milliseconds(shift)} ms beside the picture"
    start = float(output.facts["format"]["start_time"])
    if start != 0:
        yield f"the file starts at {start} s"


def _warnings(kind: Kind, render: dict[str, Any]) -> Iterator[str]:
    given = list(render.get("warnings", []))
    for pattern in kind.warnings:
        matching = [warning for warning in given if re.search(pattern, warning)]
        if len(matching) != 1:
            yield f"{len(matching)} warnings say {pattern!r}: {given}"
        given = [warning for warning in given if warning not in matching]
    if given:
        yield f"unexpected warnings: {given}"


def _told(render: dict[str, Any], output: Film, measured: Measured) -> Iterator[str]:
    """What the API says of the output."""
    told = render["output"]
    if (told["width"], told["height"], told["frames"]) != (*measured.size, measured.frames_out):
        yield f"the API tells {told}"
    stated = output.video["duration_ts"] * Fraction(output.video["time_base"])
    if abs(told["durationSeconds"] - float(stated)) > 1e-6:
        yield f"the API tells of {told['durationSeconds']} s, the file of {float(stated)}"


def _mastering(output: Film) -> Iterator[str]:
    entries = {entry["side_data_type"]: entry for entry in output.frames[0].get("side_data_list", [])}
    display = entries.get("Mastering display metadata", {})
    light = entries.get("Content light level metadata", {})
    found = tuple(Fraction(display.get(name, 0)) for name in MASTERING_FIELDS)
    if found != MASTERING:
        yield f"the mastering display's colours are {found}"
    luminance = tuple(Fraction(display.get(f"{end}_luminance", 0)) for end in ("min", "max"))
    if luminance != LUMINANCE:
        yield f"the mastering display's luminance is {luminance}"
    if (light.get("max_content"), light.get("max_average")) != CONTENT_LIGHT:
        yield f"the content light level is {light}"


def _extras(output: Film) -> Iterator[str]:
    subtitles = [
        (stream["codec_name"], stream.get("tags", {}).get("language"))
        for stream in output.streams("subtitle")
    ]
    if subtitles != [("mov_text", "fra")]:
        yield f"the subtitles are {subtitles}"
    chapters = [chapter["tags"]["title"] for chapter in output.facts["chapters"]]
    if chapters != list(CHAPTERS):
        yield f"the chapters are {chapters}"
    tags = output.facts["format"].get("tags", {})
    if (tags.get("title"), tags.get("artist")) != (TITLE, ARTIST):
        yield f"the metadata is {tags}"
    languages = [stream.get("tags", {}).get("language") for stream in output.streams("audio")]
    if languages != ["eng"]:
        yield f"the sound's languages are {languages}"
