"""Every two values of different options, and kinds of file, together: what comes out is what a model expects.

The model knows the clips, the options' descriptions and the formulas of the standards, and nothing of the product.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.renders.options import RenderOptions
from tests.e2e.exact import enlarge_exactly
from tests.e2e.film import SOUND_RATE, Film
from tests.e2e.measuring import SOUND_BEFORE, SOUND_SECONDS, expected_duration, input_film, video_duration
from tests.e2e.pairs import Case, pairwise
from tests.media.corpus import missing, write_corpus
from tests.media.drawing import read_number
from tests.media.kinds import KINDS

pytestmark = pytest.mark.slow

WAIT_SECONDS = 280
# So many renders are begun while another is measured.
AHEAD = 4
VALUES: dict[str, tuple[Any, ...]] = {
    "kind": ("h264", "variable-mp4", "interlaced-tff", "hdr10", "vp9-opus"),
    "form": (
        (None, None),
        ("h264", "mkv"),
        ("hevc", "mov"),
        ("av1", "mkv"),
        ("prores", "mov"),
        ("ffv1", "mkv"),
        ("vp9", "mp4"),
        (None, "webm"),
    ),
    "target_fps": (None, "60", "12.5"),
    "retime": ("nearest", "blend", "motion"),
    "part": ((None, None), ("0.13", None), ("0.08", "0.5")),
    "size": (None, {"scale": "1"}, {"scale": "3"}, {"max_width": "200"}, {"max_height": "150"}),
    "strength": (None, "0.5"),
    "grain": (None, "0.5"),
    "deinterlace": ("auto", "off", "frame", "field"),
    "output_quality": (None, "lossless", "high", "medium", "small"),
    "quality": (None, "true"),
}
# Which options the parameters above stand for.
HOLDS = {
    "form": {"codec", "container"},
    "part": {"start", "end"},
    "size": {"scale", "max_width", "max_height"},
}
# Of those that do not change the output: they are judged where they are made.
NOT_OF_THE_OUTPUT = {"engine", "metadata", "cancel_after", "priority", "webhook_url", "destination"}
# Options and values whose pictures the model does not know yet.
NOT_KNOWN_YET = {"stabilise", "detelecine"}
# Combinations that nobody had tried.
FIRST: tuple[Case, ...] = (
    {"kind": "variable-mp4", "part": ("0.08", "0.5"), "deinterlace": "field", "target_fps": None},
    {"kind": "hdr10", "form": ("av1", "mkv")},
    {"kind": "h264", "part": ("0.08", "0.5"), "form": (None, "webm")},
    # Everything else as by default: each sample is known.
    {
        **{"kind": "h264", "form": ("ffv1", "mkv"), "target_fps": None, "size": None, "strength": None},
        **{"grain": None, "deinterlace": "auto", "part": ("0.13", None)},
    },
)
QUALITIES = {
    "av1": {"high", "medium", "small"},
    "prores": {"high", "medium", "small"},
    "ffv1": {"lossless"},
}
FORMAT_NAMES = {"mp4": "mov,mp4", "mov": "mov,mp4", "mkv": "matroska", "webm": "matroska"}
RATES = {"60": Fraction(60), "12.5": Fraction(25, 2)}


def goes(case: Case) -> bool:
    codec, _ = case.get("form", (None, None))
    quality = case.get("output_quality")
    if quality is not None and quality not in QUALITIES.get(codec, {quality}):
        return False
    # Another clip than the others' is long enough for a part.
    return not (case.get("kind") == "hdr10" and case.get("part", (None, None))[0] is not None)


CASES = pairwise(VALUES, goes=goes, first=FIRST)


def told(case: Case) -> str:
    return " ".join(f"{name}={value}" for name, value in case.items() if value not in (None, (None, None)))


def fields_of(case: Case) -> dict[str, str]:
    codec, container = case["form"]
    start, end = case["part"]
    fields = {"codec": codec, "container": container, "start": start, "end": end, **(case["size"] or {})}
    alone = VALUES.keys() - {"kind", *HOLDS}
    return {name: text for name, text in {**fields, **{name: case[name] for name in alone}}.items() if text}


def test_every_option_is_among_those_that_are_tried() -> None:
    declared = RenderOptions.model_json_schema()["properties"]
    tried = (VALUES.keys() - {"kind", *HOLDS}) | set().union(*HOLDS.values())
    assert declared.keys() - tried - NOT_OF_THE_OUTPUT - NOT_KNOWN_YET == set(), (
        "Each option that changes the output needs values here, in VALUES, and what comes of them in the model."
    )
    shown = {
        "codec": {codec for codec, _ in VALUES["form"]},
        "container": {name for _, name in VALUES["form"]},
    }
    for name in tried:
        values = set(declared[name].get("enum", ())) - NOT_KNOWN_YET
        assert values <= shown.get(name, set(VALUES.get(name, ()))) | {"mp4"}, (
            f"`{name}` has a value that is not tried with others: add it to VALUES."
        )


def test_the_cases_hold_every_pair() -> None:
    names = list(VALUES)
    for at, one in enumerate(names):
        for two in names[at + 1 :]:
            for a in VALUES[one]:
                for b in VALUES[two]:
                    if goes({one: a, two: b}):
                        assert any(case[one] == a and case[two] == b for case in CASES), (one, a, two, b)
    assert all(map(goes, CASES))


def expected_container(case: Case) -> str:
    return case["form"][1] or "mp4"


class Expected:
    """What must come of the case, from the clip's own frames."""

    def __init__(self, case: Case, source: Film) -> None:
        kind = KINDS[case["kind"]]
        self.case, self.kind = case, kind
        start, end = (None if text is None else Fraction(text) for text in case["part"])
        whole = expected_duration(_without_rate(kind), source)
        # Each picture that is upscaled, from the first frame's time on, and the frame that it is of.
        pictures = list(enumerate(source.times))
        # The interlaced streams of HEVC hold single fields: nothing is made of its pictures.
        if case["deinterlace"] == "field" and source.video["codec_name"] != "hevc":
            following = [*source.times[1:], whole]
            pictures = [
                one
                for (number, at), after in zip(pictures, following, strict=True)
                for one in ((number, at), (number, (at + after) / 2))
            ]
        # `start` counts from the start of the earliest stream; what Opus starts with before 0 is not heard.
        starts = (Fraction(stream["start_time"]) for stream in source.facts["streams"])
        begins = source.start - max(Fraction(0), min(starts))
        shown = [
            (number, at)
            for number, at in pictures
            if at + begins >= (start or 0) and (end is None or at + begins < end)
        ]
        self.first_time = shown[0][1]
        ends = whole if end is None else min(end - begins, whole)
        self.duration = ends - self.first_time
        self.numbers = [number for number, _ in shown]
        self.times = [at - self.first_time for _, at in shown]
        self.begins_later = self.first_time + begins - (start or 0)
        if case["target_fps"] is not None:
            rate = RATES[case["target_fps"]]
            count = max(1, int(self.duration * rate + Fraction(1, 2)))
            self.times = [index / rate for index in range(count)]
            self.duration = count / rate
        self.start, self.end = start, end

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
        return expected_container(self.case)


def _without_rate(kind: Any) -> Any:
    return type(kind)(**{**kind.__dict__, "fields": {}})


def faults(expected: Expected, render: dict[str, Any], source: Film, output: Film) -> Iterator[str]:
    case, kind = expected.case, expected.kind
    is_rounded = expected.container in ("mkv", "webm")
    # Matroska counts in thousandths of a second, to which each time is rounded by itself.
    slack = Fraction(1, 1000) if is_rounded else Fraction(source.video["time_base"])
    if case["target_fps"] is not None and not is_rounded:
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
    wanted = ("422", 10) if expected.codec == "prores" else ("420", kind.depth)
    if output.layout[:2] != wanted:
        yield f"the samples are {output.video['pix_fmt']}, not {wanted}"
    tags = tuple(
        output.tag(tag) for tag in ("color_primaries", "color_transfer", "color_space", "color_range")
    )
    # ProRes has no range but this one, which newer versions of ffmpeg do not show.
    if expected.codec == "prores" and kind.tags.range == "tv":
        tags = (*tags[:3], tags[3] or "tv")
    if tags != (kind.tags.primaries, kind.tags.transfer, kind.tags.matrix, kind.tags.range):
        yield f"the colour tags are {tags}"
    told_of = render["output"]
    if (told_of["width"], told_of["height"], told_of["frames"]) != (*expected.size, len(expected.times)):
        yield f"the API tells {told_of}"
    if (case["quality"] is not None) != ("quality" in render):
        yield "the quality was measured although nobody asked, or the other way round"
    side_data = {entry["side_data_type"] for entry in output.frames[0].get("side_data_list", [])}
    if kind.is_hdr10 and (expected.codec in ("hevc", "av1")) != ("Mastering display metadata" in side_data):
        yield f"the side data is {side_data}"
    yield from _picture_faults(expected, source, output)
    yield from _sound_faults(expected, source, output)


def _picture_faults(expected: Expected, source: Film, output: Film) -> Iterator[str]:
    case, kind = expected.case, expected.kind
    if case["target_fps"] is None or case["retime"] == "nearest":
        numbers = [read_number(picture) for picture in output.rgb()]
        if case["target_fps"] is None and numbers != expected.numbers:
            yield f"frames {numbers} are shown, not {expected.numbers}"
        # At another rate a frame is shown half of the new rate's frame early at most, and until the next is due.
        if case["target_fps"] is not None and kind.rate is not None:
            half = 1 / RATES[case["target_fps"]] / 2 + Fraction(1, 1000)
            # A second field is shown half a frame after its frame.
            field = 1 / kind.rate / 2 if case["deinterlace"] == "field" else Fraction(0)
            at = {number: source.times[number] - expected.first_time for number in expected.numbers}
            late = [time - at[number] for number, time in zip(numbers, expected.times, strict=True)]
            if min(late) < -half or max(late) > max(1 / kind.rate, half) + field:
                yield f"frames {numbers} are shown beside their times"
    is_lossless = expected.codec == "ffv1" or case["output_quality"] == "lossless"
    is_plain = case["deinterlace"] in ("auto", "off") and not kind.is_interlaced
    as_it_is = (case["target_fps"], case["size"], case["strength"], case["grain"]) == (None,) * 4
    if is_lossless and is_plain and as_it_is:
        pictures = list(source.rgb())
        for shown, number in zip(output.planes, expected.numbers, strict=True):
            wanted = enlarge_exactly(
                pictures[number], kind.tags.matrix, depth=kind.depth, full_range=kind.tags.range == "pc"
            )
            apart = max(float(np.abs(a - b).max()) for a, b in zip(shown, wanted, strict=True))
            if apart > 1:
                yield f"a sample of frame {number} is {apart} codes off"
                return


def _sound_faults(expected: Expected, source: Film, output: Film) -> Iterator[str]:
    """Its codec; that it is beside the picture, to the sample; and how long it is heard."""
    tracks = output.streams("audio")
    if len(tracks) != len(expected.kind.sounds):
        yield f"{len(tracks)} sound tracks"
        return
    for track in range(len(tracks)):
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


class Submissions:
    """Clips, each made once, and renders, begun a few ahead of the test that waits for one."""

    def __init__(self, directory: Path, server: Any) -> None:
        kinds = [KINDS[name] for name in VALUES["kind"] if missing(KINDS[name]) is None]
        self.clips = {kind.name: path for kind, path in write_corpus(directory, kinds)}
        self._server = server
        self._begun: dict[int, str] = {}

    def get(self, number: int) -> str:
        """The id of the case's render."""
        for coming in range(number, min(number + AHEAD, len(CASES))):
            path = self.clips.get(CASES[coming]["kind"])
            if path is not None and coming not in self._begun:
                self._begun[coming] = self._server.submit(path, **fields_of(CASES[coming]))["id"]
        return self._begun[number]


@pytest.fixture(scope="module")
def submissions(stand_in_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Submissions:
    return Submissions(tmp_path_factory.mktemp("pairs"), stand_in_server)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_what_comes_out_is_what_the_model_expects(
    number: int, stand_in_server: Any, submissions: Submissions, tmp_path: Path
) -> None:
    case = CASES[number]
    if reason := missing(KINDS[case["kind"]]):
        pytest.skip(reason)
    render = stand_in_server.wait(submissions.get(number), seconds=WAIT_SECONDS)
    assert render["status"] == "completed", f"{told(case)}: {render.get('error')}"
    output = Film(stand_in_server.download(render["outputFileURL"], tmp_path / "output"))
    source = input_film(submissions.clips[case["kind"]], KINDS[case["kind"]])
    assert list(faults(Expected(case, source), render, source, output)) == [], told(case)
