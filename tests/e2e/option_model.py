"""What must come of a clip with options, and what of a render's result is otherwise.

The model knows the clips, the options' descriptions and the formulas of the standards, and nothing of the product.
"""

import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tests.e2e.exact import enlarge_exactly
from tests.e2e.film import SOUND_RATE, Film
from tests.e2e.measuring import SOUND_BEFORE, SOUND_SECONDS, expected_duration, video_duration
from tests.e2e.pairs import Case
from tests.media.drawing import read_number
from tests.media.encoding import X264, Sound, encode
from tests.media.kind import Kind

FORMAT_NAMES = {"mp4": "mov,mp4", "mov": "mov,mp4", "mkv": "matroska", "webm": "matroska"}
RATES = {"60": Fraction(60), "12.5": Fraction(25, 2)}
# Sound that is copied into a container unless it is cut, and what other sound becomes there.
COPIED_SOUND = {"mp4": {"aac", "opus"}, "mov": {"aac"}, "mkv": {"aac", "opus"}, "webm": {"opus"}}
MADE_SOUND = {"mp4": "aac", "mov": "aac", "mkv": "flac", "webm": "opus"}
NTSC_FILM = Fraction(24000, 1001)
MILLISECOND = Fraction(1, 1000)
# What a warning says of transparency that is lost.
LOST = "the output is opaque"
# Of alpha, which goes from 0 to 1: what rounding and VP9 cost.
MOST_ALPHA_ERROR, MOST_VP9_ALPHA_ERROR = 0.005, 0.04
# In codes, of luma: of single samples with grain, and of the mean of what is averaged over time.
MOST_GRAIN, MOST_STEADIED = 16.0, 2.0

FILM_FRAMES = 16
# 3:2 pulldown: of which of the film's four frames the first fields of five frames are, and the second ones.
FIRST_FIELDS, SECOND_FIELDS = (0, 1, 1, 2, 3), (0, 1, 2, 3, 3)


def _telecine(path: Path) -> Path:
    rate = NTSC_FILM
    return encode(
        path,
        count=FILM_FRAMES,
        rate=str(rate),
        after="telecine=pattern=23:first_field=top,setfield=tff",
        encoder=(*X264, "-flags", "+ildct+ilme"),
        sounds=[Sound(seconds=FILM_FRAMES / rate, click_at=6 / rate)],
    )


TELECINED = Kind(
    name="telecined",
    suffix=".mp4",
    about="a film's frames over two and three fields in turn, marked as interlaced",
    make=_telecine,
    frames=FILM_FRAMES * 5 // 4,
    rate=Fraction(30000, 1001),
    is_interlaced=True,
)


@dataclass(frozen=True)
class Picture:
    """One that is upscaled: the number in it, None where two are in alternate lines, and when it is due, in seconds
    from the clip's first frame on."""

    number: int | None
    at: Fraction


def drawn(kind: Kind, frame: int) -> tuple[int, int]:
    """The numbers in the two fields of a clip's frame."""
    if kind is TELECINED:
        film = frame // 5 * 4
        return film + FIRST_FIELDS[frame % 5], film + SECOND_FIELDS[frame % 5]
    return frame, frame


class Expected:
    """What must come of the case, from the clip's own frames."""

    def __init__(self, case: Case, kind: Kind, source: Film, *, overrun: int = 0) -> None:
        """`overrun`: how many frames longer than the clip the film is, of which nobody says which frames it loses."""
        self.case, self.kind, self.source = case, kind, source
        self.start, self.end = (None if text is None else Fraction(text) for text in case["part"])
        whole = expected_duration(replace(kind, fields={}), source)
        # `start` counts from the start of the earliest stream; what Opus starts with before 0 is not heard.
        starts = (Fraction(stream["start_time"]) for stream in source.facts["streams"])
        begins = source.start - max(Fraction(0), min(starts))
        shown = [
            one
            for one in self._pictures(whole)
            if one.at + begins >= (self.start or 0) and (self.end is None or one.at + begins < self.end)
        ]
        self.first_time = shown[0].at
        ends = whole if self.end is None else min(self.end - begins, whole)
        self.begins_later = self.first_time + begins - (self.start or 0)
        self.pictures = [Picture(one.number, one.at - self.first_time) for one in shown]
        self.duration = ends - self.first_time
        self.native_times: Sequence[Fraction] = [one.at for one in self.pictures]
        if self.film_rate is not None:
            self._put_the_film_together(self.film_rate, overrun)
        self.times = self.native_times
        if self.rate is not None:
            count = max(1, int(self.duration * self.rate + Fraction(1, 2)))
            self.times = [index / self.rate for index in range(count)]
            self.duration = count / self.rate

    def _pictures(self, whole: Fraction) -> Iterator[Picture]:
        """Each picture that is made of the clip's frames, before the film's are chosen of them."""
        way = self.case["deinterlace"]
        # The interlaced streams of HEVC hold single fields: nothing is made of its pictures.
        by_field = way == "field" and self.source.video["codec_name"] != "hevc"
        for frame, (at, after) in enumerate(pairwise([*self.source.times, whole])):
            first, second = drawn(self.kind, frame)
            yield Picture(None if way == "off" and first != second else first, at)
            if by_field:
                yield Picture(second, (at + after) / 2)

    @cached_property
    def film_rate(self) -> Fraction | None:
        """The film's, if its frames are put together: 25 of 25, else 24 in NTSC. Transparent video is left alone."""
        if self.case["deinterlace"] != "detelecine" or self.is_see_through:
            return None
        average = Fraction(self.source.video["avg_frame_rate"])
        return average if average == Fraction(25) else NTSC_FILM

    @property
    def is_regular(self) -> bool:
        """Whether it is known of each frame of the clip in which place of the film it is, if any."""
        return self.film_rate is None or self.kind.rate is not None

    @classmethod
    def nearest(cls, case: Case, kind: Kind, source: Film, output: Film) -> Self:
        """What must come of it, of all that may, with as many frames as the output if there is such."""
        expected = cls(case, kind, source)
        longer = cls(case, kind, source, overrun=1)
        return expected if expected.is_regular or len(output.times) != len(longer.times) else longer

    def _put_the_film_together(self, rate: Fraction, overrun: int) -> None:
        """Each of the film's frames once, evenly spaced. Which frame is lost of a varying rate's is open."""
        numbers = sorted({one.number for one in self.pictures if one.number is not None})
        count = len(numbers)
        if self.is_regular:
            self.pictures = [Picture(number, place / rate) for place, number in enumerate(numbers)]
        else:
            count = int(self.duration * rate + Fraction(1, 2)) + overrun
        self.native_times = [place / rate for place in range(count)]
        self.duration = count / rate

    @property
    def rate(self) -> Fraction | None:
        asked = self.case["target_fps"]
        return None if asked is None else RATES[asked]

    @property
    def size(self) -> tuple[int, int]:
        width, height = self.kind.size
        asked = self.case["size"] or {"scale": "4"}
        if "scale" in asked:
            return width * int(asked["scale"]), height * int(asked["scale"])
        most = (
            Fraction(int(asked["max_width"]), width)
            if "max_width" in asked
            else Fraction(int(asked["max_height"]), height)
        )
        # To the nearest even number, from the middle up.
        return 2 * int(width * most / 2 + Fraction(1, 2)), 2 * int(height * most / 2 + Fraction(1, 2))

    @property
    def codec(self) -> str:
        codec, container = self.case["form"]
        return codec or ("vp9" if container == "webm" else "hevc" if self.kind.depth > 8 else "h264")

    @property
    def container(self) -> str:
        return self.case["form"][1] or "mp4"

    def sound_codec(self, stored: str) -> str:
        """What becomes of a track."""
        is_cut = self.start is not None or self.end is not None
        is_copied = not is_cut and stored in COPIED_SOUND[self.container]
        return stored if is_copied else MADE_SOUND[self.container]

    @property
    def is_see_through(self) -> bool:
        """The clip."""
        return any("transparen" in warning for warning in self.kind.warnings)

    @property
    def keeps_alpha(self) -> bool:
        has_place = self.codec in ("prores", "ffv1") or (self.codec == "vp9" and self.container != "mp4")
        return self.is_see_through and has_place

    @property
    def samples(self) -> tuple[str, set[int]]:
        """The layout of the samples, and the bit depths that are right: ProRes 4444 is decoded with 12."""
        match self.codec:
            case "prores":
                return ("444", {10, 12}) if self.keeps_alpha else ("422", {10})
            case "ffv1" if self.keeps_alpha:
                return "444", {self.kind.depth}
            case "vp9" if self.keeps_alpha:
                return "420", {8}
        return "420", {self.kind.depth}

    @property
    def is_lossless(self) -> bool:
        return self.codec == "ffv1" or self.case["output_quality"] == "lossless"

    @property
    def is_known_sample_by_sample(self) -> bool:
        """But for what grain and averaging over time change."""
        is_plain = self.case["deinterlace"] in ("auto", "off") and not self.kind.is_interlaced
        return self.is_lossless and is_plain and self.rate is None and not self.is_see_through


def faults(expected: Expected, render: dict[str, Any], output: Film) -> Iterator[str]:
    case, kind = expected.case, expected.kind
    is_rounded = expected.container in ("mkv", "webm")
    # Matroska counts in thousandths of a second, to which each time is rounded by itself.
    slack = MILLISECOND if is_rounded else Fraction(expected.source.video["time_base"])
    if (expected.rate is not None or expected.film_rate is not None) and not is_rounded:
        slack = Fraction(0)
    if len(output.times) != len(expected.times):
        yield f"{len(output.times)} frames, not {len(expected.times)}"
    apart = [abs(a - b) for a, b in zip(output.times, expected.times, strict=False)]
    if max(apart) > slack:
        yield f"a frame is {float(max(apart))} s beside its time"
    if abs(video_duration(output) - expected.duration) > slack + expected.begins_later * is_rounded:
        yield f"it lasts {float(video_duration(output))} s, not {float(expected.duration)}"
    if (size := (output.video["width"], output.video["height"])) != expected.size:
        yield f"the pictures are {size}, not {expected.size}"
    if output.video["codec_name"] != expected.codec:
        yield f"the codec is {output.video['codec_name']}, not {expected.codec}"
    if not output.facts["format"]["format_name"].startswith(FORMAT_NAMES[expected.container]):
        yield f"the container is {output.facts['format']['format_name']}"
    layout, depths = expected.samples
    if output.layout[0] != layout or output.layout[1] not in depths:
        yield f"the samples are {output.video['pix_fmt']}, not {layout} of {depths} bits"
    tags = tuple(
        output.tag(tag) for tag in ("color_primaries", "color_transfer", "color_space", "color_range")
    )
    # ProRes has no range but this one, which newer versions of ffmpeg do not show.
    if expected.codec == "prores" and kind.tags.range == "tv":
        tags = (*tags[:3], tags[3] or "tv")
    if tags != (kind.tags.primaries, kind.tags.transfer, kind.tags.matrix, kind.tags.range):
        yield f"the colour tags are {tags}"
    side_data = {entry["side_data_type"] for entry in output.frames[0].get("side_data_list", [])}
    if kind.is_hdr10 and (expected.codec in ("hevc", "av1")) != ("Mastering display metadata" in side_data):
        yield f"the side data is {side_data}"
    yield from _faults_of_what_is_told(expected, render)
    if expected.rate is None or case["retime"] == "nearest":
        top = 2 ** output.layout[1] - 1
        # Of black and white blocks, the luma of each range will do.
        yield from _number_faults(expected, [read_number(planes[0] / top) for planes in output.planes])
    if expected.is_known_sample_by_sample:
        yield from _sample_faults(expected, output)
    yield from _alpha_faults(expected, output)
    yield from _sound_faults(expected, output)


def _faults_of_what_is_told(expected: Expected, render: dict[str, Any]) -> Iterator[str]:
    told = render["output"]
    if (told["width"], told["height"], told["frames"]) != (*expected.size, len(expected.times)):
        yield f"the API tells {told}"
    if (expected.case["quality"] is not None) != ("quality" in render):
        yield "the quality was measured although nobody asked, or the other way round"
    warnings = " ".join(render.get("warnings", ()))
    if (LOST in warnings) != (expected.is_see_through and not expected.keeps_alpha):
        yield f"of transparency, the warnings say {warnings!r}"
    target = re.fullmatch("vmaf=(.+)", expected.case["output_quality"] or "")
    found = render.get("encodedQuality")
    if (target is None) != (found is None):
        yield f"the target is {target}, and {found} was found"
    elif target is not None and found is not None:
        least = float(target[1])
        is_missed = found["vmaf"]["min"] < least
        if found["target"] != least or is_missed != ("VMAF" in warnings):
            yield f"{found} was found, and the warnings are {warnings!r}"


def _number_faults(expected: Expected, numbers: Sequence[int]) -> Iterator[str]:
    """Which frames are shown."""
    if expected.rate is None and expected.is_regular:
        wanted = [one.number for one in expected.pictures]
        if any(number not in (None, shown) for number, shown in zip(wanted, numbers, strict=False)):
            yield f"frames {numbers} are shown, not {wanted}"
        return
    # At another rate a frame is shown half of the new rate's frame early at most, and until the next is due.
    early = MILLISECOND + (0 if expected.rate is None else 1 / expected.rate / 2)
    if expected.film_rate is not None and not expected.is_regular:
        early += 1 / expected.film_rate
    due = [one.at for one in expected.pictures]
    ends = [*due[1:], max(expected.duration, expected.times[-1])]
    for shown, time in zip(numbers, expected.times, strict=False):
        if not any(
            one.number in (None, shown) and one.at - early <= time <= max(end, one.at) + early
            for one, end in zip(expected.pictures, ends, strict=True)
        ):
            yield f"frames {numbers} are shown, {shown} beside its time"
            return


def _sample_faults(expected: Expected, output: Film) -> Iterator[str]:
    case, kind = expected.case, expected.kind
    pictures = list(expected.source.rgb())
    wanted = [
        enlarge_exactly(
            pictures[one.number or 0],
            kind.tags.matrix,
            depth=kind.depth,
            full_range=kind.tags.range == "pc",
            size=expected.size,
            strength=float(case["strength"] or 1),
        )
        for one in expected.pictures
    ]
    if case["stabilise"] is not None:
        yield from _steadiness_faults(
            [planes[0] for planes in output.planes], [planes[0] for planes in wanted]
        )
        return
    # Grain is of luma alone, but where a colour ends, and neither brighter nor darker on average.
    most = (1, 1, 1) if case["grain"] is None else (MOST_GRAIN, 2, 2)
    for number, (shown, exact) in enumerate(zip(output.planes, wanted, strict=False)):
        apart = [float(np.abs(a - b).max()) for a, b in zip(shown, exact, strict=True)]
        if any(error > limit for error, limit in zip(apart, most, strict=True)):
            yield f"samples of frame {number} are {apart} codes off"
            return
        if abs(brighter := float((shown[0] - exact[0]).mean())) > 1 / 2:
            yield f"frame {number} is {brighter} codes brighter"


def _steadiness_faults(shown: Sequence[NDArray[Any]], unsteady: Sequence[NDArray[Any]]) -> Iterator[str]:
    """What is averaged over time is about as it was, and changes less from frame to frame."""
    rows = shown[0].shape[0] * 3 // 4  # without the numbers, which change for good

    def unrest(lumas: Sequence[NDArray[Any]]) -> float:
        scenery = np.stack([luma[:rows] for luma in lumas]).astype(np.float64)
        return float(np.abs(scenery[2:] - 2 * scenery[1:-1] + scenery[:-2]).mean())

    apart = max(float(np.abs(a - b).mean()) for a, b in zip(shown, unsteady, strict=False))
    if apart > MOST_STEADIED:
        yield f"a frame is {apart} codes off after averaging"
    if not unrest(shown) < unrest(unsteady):
        yield f"its unrest is {unrest(shown)}, and without averaging {unrest(unsteady)}"


def _alpha_faults(expected: Expected, output: Film) -> Iterator[str]:
    if not expected.is_see_through:
        return
    has_plane = re.match("yuva|gbrap", output.video["pix_fmt"]) is not None
    is_tagged = {name.lower(): text for name, text in output.video.get("tags", {}).items()}.get("alpha_mode")
    if (has_plane or is_tagged == "1") != expected.keeps_alpha:
        yield f"alpha: {output.video['pix_fmt']}, alpha_mode {is_tagged}"
    elif expected.keeps_alpha:
        width, height = expected.size
        alpha = _read_alpha(output, expected.codec)
        clip_width = expected.kind.size[0]
        # The clip's grows from column to column.
        places = (np.arange(width) + 0.5) * clip_width / width - 0.5
        inner = (places >= 2) & (places <= clip_width - 3)
        error = np.abs(alpha.reshape(-1, height, width) - places / clip_width)[..., inner].max()
        if error > (MOST_VP9_ALPHA_ERROR if expected.codec == "vp9" else MOST_ALPHA_ERROR):
            yield f"alpha is {error} off"


def _read_alpha(film: Film, codec: str) -> NDArray[np.float64]:
    """Samples from 0 to 1."""
    decoder = ("-c:v", "libvpx-vp9") if codec == "vp9" else ()
    command = [
        "ffmpeg",
        "-v",
        "error",
        *decoder,
        "-i",
        str(film.path),
        "-map",
        "0:v:0",
        "-vf",
        "extractplanes=a",
    ]
    command += ["-fps_mode", "passthrough", "-f", "rawvideo", "-"]
    raw = subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout
    codes = np.frombuffer(raw, np.uint8 if codec == "vp9" else "<u2")
    top = 255 if codec == "vp9" else 2 ** film.layout[1] - 1
    return codes.astype(np.float64) / top


def _sound_faults(expected: Expected, output: Film) -> Iterator[str]:
    """Its codec; that it is beside the picture, to the sample; and how long it is heard."""
    source, tracks = expected.source, output.streams("audio")
    if len(tracks) != len(expected.kind.sounds):
        yield f"{len(tracks)} sound tracks"
        return
    for track, (stored, made) in enumerate(zip(source.streams("audio"), tracks, strict=True)):
        if made["codec_name"] != (codec := expected.sound_codec(stored["codec_name"])):
            yield f"the sound's codec is {made['codec_name']}, not {codec}"
        before = source.start + expected.first_time
        a = source.sound(track, start=before - SOUND_BEFORE, seconds=SOUND_SECONDS)
        b = output.sound(track, start=output.start - SOUND_BEFORE, seconds=SOUND_SECONDS)
        size = 2 * len(a)
        likeness = np.fft.irfft(np.fft.rfft(b, size) * np.fft.rfft(a, size).conj(), size)
        peak = int(likeness.argmax())
        shift = peak if peak < size // 2 else peak - size
        # Matroska rounds times to milliseconds; another sound's start is rounded too.
        most = 48 if expected.container in ("mkv", "webm") else expected.kind.most_samples
        if abs(shift) > most:
            yield f"the sound is {shift} samples of 1/{SOUND_RATE} s beside the picture"
        if expected.end is not None:
            after = output.start - expected.begins_later + (expected.end - (expected.start or 0))
            rest = output.sound(track, start=after + Fraction(1, 40), seconds=Fraction(1, 2))
            if np.abs(rest).max() > 0.005:
                yield "sound is heard after the end"
