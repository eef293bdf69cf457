"""The speakers of a sound track's channels, and the layout in which its conversion keeps them apart."""

import re
from collections.abc import Sequence
from itertools import islice
from math import sqrt
from typing import NamedTuple

# ffmpeg's names (`ffmpeg -layouts`). Those with a number in AAC come first, from the smallest: every player
# knows them. Any other layout goes into the first that has all its speakers, the others silent.
AAC_LAYOUTS = ("mono", "stereo", "3.0", "4.0", "5.0", "5.1", "7.1")
# Of encoders: those of Opus lack the one with a single back channel.
LAYOUTS_OF: dict[str, Sequence[str]] = {
    "aac": AAC_LAYOUTS,
    "flac": AAC_LAYOUTS,
    "libopus": [name for name in AAC_LAYOUTS if name != "4.0"],
}
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
    "hexadecagonal": "FL+FR+FC+BL+BR+BC+SL+SR+TFL+TFC+TFR+TBL+TBC+TBR+WL+WR",
    "22.2": "FL+FR+FC+LFE+BL+BR+FLC+FRC+BC+SL+SR+TC+TFL+TFC+TFR+TBL+TBC+TBR+LFE2+TSL+TSR+BFC+BFL+BFR",
    "downmix": "DL+DR",
}
# ffmpeg's default layout for a number of channels without a layout.
_BY_CHANNELS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_SIDES_AS_BACKS = {"SL": "BL", "SR": "BR"}
# Of FLAC without a channel mask, by the number of channels (RFC 9639, section 9.1.3).
_FLAC = ("mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1")
# Where a speaker that a layout lacks is heard: ffmpeg's own mix leaves those above, below and beside these out.
_NEAREST = {
    **_SIDES_AS_BACKS,
    **dict.fromkeys(("FLC", "WL", "TFL", "BFL", "DL"), "FL"),
    **dict.fromkeys(("FRC", "WR", "TFR", "BFR", "DR"), "FR"),
    **dict.fromkeys(("TFC", "BFC"), "FC"),
    **dict.fromkeys(("TSL", "SDL"), "SL"),
    **dict.fromkeys(("TSR", "SDR"), "SR"),
    **dict.fromkeys(("BC", "TBC"), "BL+BR"),
    **{"TBL": "BL", "TBR": "BR", "LFE2": "LFE"},
}
_IN_FRONT = "FL+FR"
MAX_STEREO = 2
MAX_SURROUND = 6


class KeptLayout(NamedTuple):
    """The layout of converted sound. `mix`: the filter that makes it of more speakers than it has, else empty."""

    name: str
    channels: int
    mix: str = ""

    @property
    def is_mixed(self) -> bool:
        return bool(self.mix)


def kept_layout(layout: str | None, *, channels: int, known: Sequence[str] = AAC_LAYOUTS) -> KeptLayout:
    """The layout, among the `known`, for sound of `layout` (ffprobe's name, None where it gives none) and that many
    channels.
    """
    order = _order(layout) or _order(_BY_CHANNELS.get(channels))
    speakers = set(_sides_as_backs(order))
    for name in known:
        if speakers and speakers <= set(_order(name)):
            return _kept(name)
    if channels <= MAX_STEREO:
        return _kept("mono" if channels <= 1 else "stereo")
    name = "5.1" if channels <= MAX_SURROUND else "7.1"
    if not order:
        # Low frequencies are not guessed: AAC drops all others there. The further ones alternate, left and right.
        order = list(islice((*_order("7.0"), *(_order("stereo") * channels)), channels))
    return _kept(name, mixed=order)


def is_kept_in_flac(layout: str | None, *, channels: int) -> bool:
    """Whether copied FLAC has its channels in their places: a copy in MP4 lacks the mask that names others."""
    usual = _FLAC[channels - 1] if 0 < channels <= len(_FLAC) else None
    return layout is None or _sides_as_backs(_order(layout)) == _sides_as_backs(_order(usual))


def _kept(name: str, *, mixed: Sequence[str] = ()) -> KeptLayout:
    places = _order(name)
    sums: dict[str, list[str]] = {place: [] for place in places}
    for number, speaker in enumerate(mixed):
        for place, share in _shares(speaker, places).items():
            sums[place].append(f"{share:.4g}*c{number}")
    # In floats, which may exceed the nominal range before they are encoded.
    mix = "|".join(
        (f"aformat=sample_fmts=fltp,pan={name}", *(f"{p}={'+'.join(s)}" for p, s in sums.items() if s))
    )
    return KeptLayout(name, len(places), mix if mixed else "")


def _shares(speaker: str, places: Sequence[str]) -> dict[str, float]:
    """How loud a speaker is heard at each of these places, in sum as loud as before."""
    if speaker in places:
        return {speaker: 1.0}
    nearest = _NEAREST.get(speaker, _IN_FRONT).split("+")
    return {
        place: share / sqrt(len(nearest)) for one in nearest for place, share in _shares(one, places).items()
    }


def _order(layout: str | None) -> list[str]:
    """The speakers in the order of the channels; empty for a layout that names none. `4 channels (FL+FR+LFE+BC)` is
    ffmpeg's name of one without a name.
    """
    spelled = re.fullmatch(r"[0-9]+ channels \(([A-Z0-9+]+)\)", layout or "")
    names = spelled[1] if spelled else LAYOUTS.get(layout or "", "")
    return names.split("+") if names else []


def _sides_as_backs(speakers: Sequence[str]) -> list[str]:
    """Side and back channels are distinguished only if there are both."""
    if set(speakers) & set(_SIDES_AS_BACKS.values()):
        return list(speakers)
    return [_SIDES_AS_BACKS.get(one, one) for one in speakers]
