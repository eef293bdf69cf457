"""How far a render is from its input: frames, times, colours, sound. No judgement: numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.e2e.film import SOUND_RATE, Film
from tests.media.corpus import camera_frames
from tests.media.drawing import read_number
from tests.media.kind import Kind

SCALE = 4
TAGS = ("color_primaries", "color_transfer", "color_space", "color_range")
# The frame that is shown when the click is heard.
CLICK_FRAME = 6
# Sound from this long before a frame is compared, for this long.
SOUND_BEFORE = Fraction(1, 2)
SOUND_SECONDS = Fraction(2)
# Loud enough to be the click.
HEARD = 0.1


@dataclass(frozen=True, kw_only=True)
class Measured:
    """`time_error`: of the worst frame, and `duration_error`, in seconds, exactly. Colours are in 8-bit code values of
    R'G'B': `colour_error` is the mean absolute difference of the worst frame, `colour_shift` the mean difference of the
    worst channel of the worst frame. `sound_shifts`: by how many samples of 1/48000 s each track comes later beside the
    picture than in the input; None where nothing is heard. `tags`: primaries, transfer, matrix and range of the output.
    """

    frames_in: int
    frames_out: int
    numbers: Sequence[int]
    expected_numbers: Sequence[int]
    time_error: Fraction
    duration_error: Fraction
    size: tuple[int, int]
    displayed_upright: bool
    colour_error: float
    colour_shift: float
    sound_shifts: Sequence[int | None]
    tags: Sequence[str | None]

    @property
    def has_all_frames(self) -> bool:
        return list(self.numbers) == list(self.expected_numbers)


def input_film(path: Any, kind: Kind) -> Film:
    return Film(path, matrix=kind.tags.matrix, full_range=kind.tags.range == "pc", clockwise=kind.clockwise)


def measure(kind: Kind, source: Film, output: Film) -> Measured:
    """Compare every frame of `output` with the one of `source` that is to be shown then."""
    times, shown = expected(kind, source)
    pictures = camera_pictures(kind) if kind.is_interlaced else list(source.rgb())
    numbers, errors, shifts = [], [0.0], [0.0]
    for index, picture in enumerate(output.rgb()):
        numbers.append(read_number(picture))
        if index < len(shown):
            error, shift = difference(reduce(picture, pictures[0].shape), pictures[shown[index]])
            errors.append(error)
            shifts.append(shift)
    tracks = len(source.streams("audio"))
    moments = _same_moment(kind, source, output, numbers)
    return Measured(
        frames_in=len(source.times),
        frames_out=len(output.times),
        numbers=numbers,
        expected_numbers=[kind.first_number + frame for frame in shown],
        time_error=max(
            (abs(after - before) for after, before in zip(output.times, times, strict=False)),
            default=Fraction(0),
        ),
        duration_error=abs(video_duration(output) - expected_duration(kind, source)),
        size=(output.video["width"], output.video["height"]),
        displayed_upright=not any(entry.get("rotation") for entry in output.video.get("side_data_list", [])),
        colour_error=max(errors),
        colour_shift=max(shifts, key=abs),
        sound_shifts=[_sound_shift(source, output, track, moments) for track in range(tracks)],
        tags=[output.tag(tag) for tag in TAGS],
    )


def expected(kind: Kind, source: Film) -> tuple[list[Fraction], list[int]]:
    """When the output's frames are to be shown, from the first one on, and which frame of the input each shows."""
    rate = kind.target_rate
    if rate is None:
        return source.times, list(range(len(source.times)))
    count = max(1, int(expected_duration(kind, source) * rate))
    times = [index / rate for index in range(count)]
    # A frame comes half an output frame early or late at most.
    half = 1 / rate / 2
    shown: list[int] = []
    for time in times:
        apart = [at - time for at in source.times]
        due = [frame for frame, late in enumerate(apart) if -half <= late < half]
        stays = time < times[-1] and not any(half <= late < 3 * half for late in apart)
        if not due:
            shown.append(shown[-1])
        else:
            shown.append(due[-1] if stays else min((abs(apart[frame]), frame) for frame in due)[1])
    return times, shown


def expected_duration(kind: Kind, source: Film) -> Fraction:
    """From the first frame's start to the last one's end; at a new rate, to the nearest whole frame.

    The end is where the last frame's own duration says, else where the file says that the stream ends, else one
    frame of the average rate later.
    """
    time_base = Fraction(source.video["time_base"])
    last = source.frames[-1]
    ticks = int(last.get("duration", last.get("pkt_duration", 0)))
    stated = int(source.video.get("duration_ts", 0)) * time_base
    if ticks:
        seconds = source.times[-1] + ticks * time_base
    elif stated > source.times[-1]:
        seconds = stated
    else:
        seconds = source.times[-1] + 1 / Fraction(source.video["avg_frame_rate"])
    rate = kind.target_rate
    return seconds if rate is None else Fraction(int(seconds * rate + Fraction(1, 2))) / rate


def video_duration(film: Film) -> Fraction:
    """As the file states it."""
    if "duration_ts" not in film.video:
        # Matroska says it in a tag.
        hours, minutes, seconds = film.video["tags"]["DURATION"].split(":")
        return 3600 * int(hours) + 60 * int(minutes) + Fraction(seconds)
    ticks: int = film.video["duration_ts"]
    return ticks * Fraction(film.video["time_base"])


def camera_pictures(kind: Kind) -> list[NDArray[np.floating]]:
    return list(camera_frames(kind).astype(np.float32) / 65_535)


def reduce(picture: NDArray[np.floating], shape: Sequence[int]) -> NDArray[np.floating]:
    """The mean of each block of four by four; pictures of another size are cut or filled up first."""
    height, width = shape[0] * SCALE, shape[1] * SCALE
    if picture.shape[:2] != (height, width):
        rows = np.minimum(np.arange(height), picture.shape[0] - 1)
        columns = np.minimum(np.arange(width), picture.shape[1] - 1)
        picture = picture[rows][:, columns]
    reduced: NDArray[np.floating] = picture.reshape(shape[0], SCALE, shape[1], SCALE, 3).mean(axis=(1, 3))
    return reduced


def difference(picture: NDArray[np.floating], reference: NDArray[np.floating]) -> tuple[float, float]:
    """The mean absolute difference, and the mean difference of the channel where it is largest, in 8-bit codes."""
    apart = 255 * (picture.astype(np.float64) - reference)
    by_channel = apart.mean(axis=(0, 1))
    return float(np.abs(apart).mean()), float(by_channel[np.abs(by_channel).argmax()])


def _same_moment(kind: Kind, source: Film, output: Film, numbers: Sequence[int]) -> tuple[Fraction, Fraction]:
    """When the same picture is first shown, in each file's own time: that of the click, else the first."""
    wanted = kind.first_number + CLICK_FRAME
    if kind.target_rate is None and len(source.times) > CLICK_FRAME and wanted in numbers:
        before, after = source.times[CLICK_FRAME], output.times[numbers.index(wanted)]
    else:
        before = after = Fraction(0)
    return source.start + before, output.start + after


def _sound_shift(source: Film, output: Film, track: int, moments: tuple[Fraction, Fraction]) -> int | None:
    """By how many samples the output's sound is later beside the picture; None where the click is not heard."""
    if track >= len(output.streams("audio")):
        return None
    before, after = (
        film.sound(track, start=moment - SOUND_BEFORE, seconds=SOUND_SECONDS)
        for film, moment in zip((source, output), moments, strict=True)
    )
    if min(np.abs(before).max(), np.abs(after).max()) < HEARD:
        return None
    size = 2 * len(before)
    likeness = np.fft.irfft(np.fft.rfft(after, size) * np.fft.rfft(before, size).conj(), size)
    peak = int(likeness.argmax())
    return peak if peak < size // 2 else peak - size


def milliseconds(samples: int | None) -> str:
    return "-" if samples is None else f"{samples * 1000 / SOUND_RATE:.2f}"
