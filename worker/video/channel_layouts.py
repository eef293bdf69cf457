"""The speakers of a sound track's channels, and the layout in which its conversion keeps them apart."""

import re
from collections.abc import Set
from typing import NamedTuple

# ffmpeg's names (`ffmpeg -layouts`). Those with a number in AAC come first, from the smallest: every player
# knows them. Any other layout goes into the first that has all its speakers, the others silent.
AAC_LAYOUTS = ("mono", "stereo", "3.0", "4.0", "5.0", "5.1", "7.1")
LAYOUTS: dict[str, str] = {
    "mono": "FC",
    "stereo": "FL+FR",
    "3.0": "FL+FR+FC",
    "4.0": "FL+FR+FC+BC",
    "5.0": "FL+FR+FC+BL+BR",
    "5.1": "FL+FR+FC+LFE+BL+BR",
    "7.1": "FL+FR+FC+LFE+BL+BR+SL+SR",
    "2.1": "FL+FR+LFE",
    "3.0(back)": "FL+FR+BC",
    "3.1": "FL+FR+FC+LFE",
    "quad": "FL+FR+BL+BR",
    "quad(side)": "FL+FR+SL+SR",
    "5.0(side)": "FL+FR+FC+SL+SR",
    "4.1": "FL+FR+FC+LFE+BC",
    "5.1(side)": "FL+FR+FC+LFE+SL+SR",
    "6.0": "FL+FR+FC+BC+SL+SR",
    "6.0(front)": "FL+FR+FLC+FRC+SL+SR",
    "hexagonal": "FL+FR+FC+BL+BR+BC",
    "6.1": "FL+FR+FC+LFE+BC+SL+SR",
    "6.1(back)": "FL+FR+FC+LFE+BL+BR+BC",
    "6.1(front)": "FL+FR+LFE+FLC+FRC+SL+SR",
    "7.0": "FL+FR+FC+BL+BR+SL+SR",
    "7.0(front)": "FL+FR+FC+FLC+FRC+SL+SR",
    "7.1(wide)": "FL+FR+FC+LFE+BL+BR+FLC+FRC",
    "7.1(wide-side)": "FL+FR+FC+LFE+FLC+FRC+SL+SR",
    "octagonal": "FL+FR+FC+BL+BR+BC+SL+SR",
    "downmix": "DL+DR",
}
# ffmpeg's default layout for a number of channels without a layout.
_BY_CHANNELS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_SIDES_AS_BACKS = {"SL": "BL", "SR": "BR"}
MAX_STEREO = 2
MAX_SURROUND = 6


class KeptLayout(NamedTuple):
    """The layout of converted sound. `is_mixed`: it has fewer speakers than the input's."""

    name: str
    channels: int
    is_mixed: bool


def kept_layout(layout: str | None, *, channels: int) -> KeptLayout:
    """The layout for sound of `layout` (ffprobe's name, or None where it gives none) and that many channels."""
    speakers = _speakers(layout) or _speakers(_BY_CHANNELS.get(channels))
    for name in AAC_LAYOUTS:
        if speakers and speakers <= _speakers(name):
            return _kept(name, is_mixed=False)
    if channels <= MAX_STEREO:
        return _kept("mono" if channels <= 1 else "stereo", is_mixed=False)
    return _kept("5.1" if channels <= MAX_SURROUND else "7.1", is_mixed=True)


def _kept(name: str, *, is_mixed: bool) -> KeptLayout:
    return KeptLayout(name, len(_speakers(name)), is_mixed)


def _speakers(layout: str | None) -> Set[str]:
    """Empty for a layout that names none. `4 channels (FL+FR+LFE+BC)` is ffmpeg's name of one without a name."""
    spelled = re.fullmatch(r"[0-9]+ channels \(([A-Z0-9+]+)\)", layout or "")
    speakers = set((spelled[1] if spelled else LAYOUTS.get(layout or "", "")).split("+")) - {""}
    if not speakers & set(_SIDES_AS_BACKS.values()):
        # Side and back channels are distinguished only if there are both.
        speakers = {_SIDES_AS_BACKS.get(one, one) for one in speakers}
    return speakers
