"""Cuts the input's other tracks to the part that is rendered: sound to the sample, texts and data by their times."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from math import floor
from pathlib import Path
from types import MappingProxyType

from app.platform.media.containers import MP4, OutputContainer
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.time_range import MICROSECONDS, TimeRange
from worker.video.filter_expressions import seconds_option
from worker.video.sound_runs import Run, fit_to_film
from worker.video.tracks import KeptTrack, told_of

SOUND_CUT = f"Sound was converted to {MP4.audio_codec}, to be cut to the sample."


def fit_sound(
    tracks: Sequence[KeptTrack],
    runs: Mapping[int, Sequence[Run]],
    *,
    part: TimeRange | None,
    start: Fraction,
    end: Fraction,
    file: OutputContainer = MP4,
    time_bases: Mapping[int, Fraction] = MappingProxyType({}),
) -> tuple[tuple[KeptTrack, ...], tuple[str, ...]]:
    """The tracks as the output has them, and warnings: cut to the part, and fitted to the film (see `fit_to_film`).

    `time_bases`: of the input's tracks, by their index; one that is not there counts finely enough.
    """
    told: tuple[str, ...] = ()
    copied = {track.index for track in tracks if track.is_copied}
    if part is not None:
        tracks, runs, told = _cut_sound(tracks, runs, part, start=start, time_bases=time_bases)
        told = tuple(told_of(one, file) for one in told)
    fitted, warnings = fit_to_film(tracks, runs, start=float(start), end=float(end))
    mixed = (track.mixed for track in fitted if track.index in copied and not track.is_copied)
    return fitted, tuple(dict.fromkeys((*told, *warnings, *filter(None, mixed))))


def _cut_sound(
    tracks: Sequence[KeptTrack],
    runs: Mapping[int, Sequence[Run]],
    part: TimeRange,
    *,
    start: Fraction,
    time_bases: Mapping[int, Fraction],
) -> tuple[tuple[KeptTrack, ...], dict[int, list[Run]], tuple[str, ...]]:
    """The tracks with a sound filter that cuts them, without those that are silent in the part; the runs in the part;
    and warnings. `start`: the part's, in seconds of the input.

    A track is decoded from its start on: timestamps in the middle of a file may be rounded to more than a sample.
    """
    end = None if part.end is None else start + part.end - part.start
    heard = {
        index: [run for run in found if run[1] > start and (end is None or run[0] < end)]
        for index, found in runs.items()
    }
    cut, warnings = [], []
    for track in tracks:
        if track.kind == "audio":
            if track.index in heard and not heard[track.index]:
                continue
            warnings += [SOUND_CUT] if track.is_copied else []
            until = "" if end is None else f":end={seconds_option(end - start)}"
            # Sound that is read from a file of its own is not in the input's ticks.
            time_base = None if track.sample_rate else time_bases.get(track.index)
            missed = _missed(start, time_base) if time_base else 0
            exactly = f"asetpts=round(PTS-({float(missed):.9f}/TB))," if missed else ""
            cut.append(replace(track, is_copied=False, cut=f"{exactly}atrim=start=0{until}"))
        else:
            cut.append(track)
    return tuple(cut), heard, tuple(dict.fromkeys(warnings))


def _missed(start: Fraction, time_base: Fraction) -> Fraction:
    """By how much less than `start` ffmpeg's `itsoffset` moves a track: it moves by whole ticks. Those of Matroska, a
    thousandth of a second, are 48 samples.
    """
    ticks = abs(Fraction(round(start * MICROSECONDS), MICROSECONDS)) / time_base
    moved = floor(ticks + Fraction(1, 2)) * time_base
    return start - (moved if start >= 0 else -moved)


def write_chapters(
    runner: FfmpegRunner, source: Path, directory: Path, part: TimeRange | None, *, start: Fraction
) -> Path | None:
    """Write the chapters that the part has something of, in ffmpeg's form of metadata. `start`: see `fit_sound`.

    None without a part: the source's own chapters are right.
    """
    if part is None:
        return None
    lines = [";FFMETADATA1"]
    length = None if part.end is None else part.end - part.start
    for chapter in runner.probe(source, "-show_chapters").get("chapters", []):
        base = Fraction(chapter["time_base"])
        begins, ends = (chapter[name] * base - start for name in ("start", "end"))
        begins, ends = max(begins, Fraction(0)), ends if length is None else min(ends, length)
        if begins >= ends:
            continue
        times = (f"{name}={round(at * MICROSECONDS)}" for name, at in (("START", begins), ("END", ends)))
        title = re.sub(r"([=;#\\\n])", r"\\\1", chapter.get("tags", {}).get("title", ""))
        lines += ["[CHAPTER]", f"TIMEBASE=1/{MICROSECONDS}", *times, f"title={title}"]
    path = directory / "chapters.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def packet_filters(part: TimeRange) -> str:
    """Bitstream filters for packets of texts and data: those outside are dropped, those across an end are clipped.

    In the packets' times the part begins at 0.
    """
    if part.end is None:
        beyond, after = "", "0"
    else:
        length = seconds_option(part.end - part.start)
        beyond, after = f"+gte(pts*tb\\,{length})", f"max(PTS+DURATION-{length}/TB\\,0)"
    # Those that ended before are marked by a duration below 0; one without a duration may go on.
    ended = "lt(PTS\\,0)*gt(DURATION\\,0)*lte(PTS+DURATION\\,0)"
    lasts = f"max(DURATION-max(-PTS\\,0)-{after}\\,0)"
    # setts holds a packet back, and would lose it if another filter before it dropped the last one.
    return f"setts=ts=max(TS\\,0):duration=if({ended}\\,-1\\,{lasts}),noise=amount=0:drop=lt(duration\\,0){beyond}"
