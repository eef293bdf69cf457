"""Sound tracks that are kept: in which layout, copied or converted, by themselves."""

import subprocess
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import ffmpeg
import numpy as np
import pytest

from app.platform.errors import FfmpegKilled
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.process import RunLimits
from app.platform.media.programs import find_programs
from app.platform.media.time_range import TimeRange
from worker.video.channel_layouts import AAC_LAYOUTS, LAYOUTS, kept_layout
from worker.video.cut_tracks import SOUND_CUT, fit_sound
from worker.video.sound_headers import FormatReader, SoundFormat
from worker.video.tracks import (
    LEAST_CPU_SECONDS,
    SLOWEST_COPY,
    SOUND_CHANGES,
    SOUND_EMPTY,
    SOUND_MISPLACED,
    choose_tracks,
    within_budget,
)

RATE = 48_000
# Where a speaker of the input is heard, if not in its own place: AAC does not tell beside from behind.
BEHIND = {"SL": "BL", "SR": "BR"}
# A rate and a layout, as pan's inputs: one tone in all of them.
STEREO, SURROUND, SLOWER, MONO = (48_000, "stereo"), (48_000, "5.1"), (44_100, "stereo"), (48_000, "mono")


def _ffmpeg(*arguments: str | Path) -> bytes:
    return subprocess.run(["ffmpeg", "-v", "error", "-y", *arguments], capture_output=True, check=True).stdout


def test_the_layouts_are_ffmpegs() -> None:
    listed = _ffmpeg("-layouts").decode().partition("Standard channel layouts:")[2]
    known = dict(line.split() for line in listed.splitlines()[2:] if len(line.split()) == 2)
    assert {name: known.get(name, speakers) for name, speakers in LAYOUTS.items()} == LAYOUTS


@pytest.mark.parametrize(
    "layout",
    ["mono", "stereo", "2.1", "3.0", "3.0(back)", "quad", "quad(side)", "5.0(side)", "5.1(side)", "7.1"],
)
def test_each_channel_is_heard_in_its_own_place(layout: str, tmp_path: Path) -> None:
    speakers = LAYOUTS[layout].split("+")
    tones = {speaker: 400 + 200 * number for number, speaker in enumerate(speakers)}
    # AAC has no room for more at the place of low frequencies.
    tones |= {"LFE": 60} if "LFE" in tones else {}
    sums = "|".join(f"0.3*sin(2*PI*{tones[speaker]}*t)" for speaker in speakers)
    stream = {"index": 1, "codec_type": "audio", "codec_name": "pcm_s16le", "channels": len(speakers)}
    choice = choose_tracks([{**stream, "channel_layout": layout}], video_index=0, formats={})
    options = [
        f"-{word}" if at % 2 == 0 else str(word)
        for at, word in enumerate(_words(choice.tracks[0].options(0)))
    ]
    path = tmp_path / "a.mp4"
    _ffmpeg("-f", "lavfi", "-i", f"aevalsrc={sums}:c={layout}:s={RATE}:d=0.5", *options, path)
    kept = kept_layout(layout, channels=len(speakers))
    raw = _ffmpeg("-i", path, "-f", "f32le", "pipe:1")
    heard = np.frombuffer(raw, np.float32).reshape(-1, kept.channels)[RATE // 10 : RATE * 4 // 10]
    assert not kept.is_mixed
    assert kept.name in AAC_LAYOUTS
    places = LAYOUTS[kept.name].split("+")
    for number, place in enumerate(places):
        spectrum = np.abs(np.fft.rfft(heard[:, number] * np.hanning(len(heard))))
        expected = next(
            (tone for one, tone in tones.items() if place in (one, one not in places and BEHIND.get(one))),
            None,
        )
        if expected is None:
            assert np.abs(heard[:, number]).max() < 0.02, place
        else:
            assert abs(spectrum.argmax() * RATE / len(heard) - expected) < 10, place


def _words(options: dict[str, object]) -> list[object]:
    return [word for option in options.items() for word in option]


@pytest.mark.parametrize(
    ("layout", "channels", "kept"),
    [
        ("hexagonal", 6, "5.1"),
        ("7.1(wide)", 8, "7.1"),
        ("hexadecagonal", 16, "7.1"),
        (None, 12, "7.1"),
        ("6 channels (FL+FR+LFE+BC+TC+TBL)", 6, "5.1"),
    ],
)
def test_each_mixed_channel_is_heard(layout: str | None, channels: int, kept: str, tmp_path: Path) -> None:
    mixed = kept_layout(layout, channels=channels)
    assert (mixed.name, mixed.is_mixed) == (kept, True)
    # AAC drops all but low frequencies at their place.
    assert layout is not None or "LFE" not in mixed.mix
    sums = "|".join(f"0.1*sin(2*PI*{400 + 200 * number}*t)" for number in range(channels))
    # In a file, which names no layout.
    path = tmp_path / "a.mkv"
    _ffmpeg("-f", "lavfi", "-i", f"aevalsrc={sums}:s={RATE}:d=0.2", "-c:a", "pcm_s16le", path)
    raw = _ffmpeg("-i", path, "-af", f"aresample=async=1,{mixed.mix}", "-f", "f32le", "pipe:1")
    heard = np.frombuffer(raw, np.float32).reshape(-1, mixed.channels)[: RATE // 10]
    levels = np.abs(np.fft.rfft(heard, axis=0)).max(axis=1) / np.abs(np.fft.rfft(heard, axis=0)).max()
    for number in range(channels):
        assert levels[(400 + 200 * number) // 10] > 0.4, number


@pytest.mark.parametrize(
    ("layout", "channels", "is_copied"),
    [
        ("stereo", 2, True),
        ("quad", 4, True),
        ("5.1(side)", 6, True),
        ("7.1", 8, True),
        ("hexagonal", 6, False),
        ("2.1", 3, False),
        # The same speakers as those of 6.1, in another order.
        ("6.1(back)", 7, False),
    ],
)
def test_flac_is_copied_if_its_channels_keep_their_places(
    layout: str, channels: int, is_copied: bool
) -> None:
    stream = {"index": 1, "codec_type": "audio", "codec_name": "flac", "channels": channels}
    choice = choose_tracks([{**stream, "channel_layout": layout}], video_index=0, formats={})
    assert choice.tracks[0].is_copied == is_copied
    assert (SOUND_MISPLACED in choice.warnings) != is_copied


def test_mixing_is_told_where_a_part_is_cut() -> None:
    """Of a track that would be copied whole."""
    stream = {"index": 1, "codec_type": "audio", "codec_name": "opus", "channels": 7, "channel_layout": "6.1"}
    choice = choose_tracks([stream], video_index=0, formats={})
    assert choice.warnings == ()
    times = {"start": Fraction(0), "end": Fraction(2)}
    _, told = fit_sound(choice.tracks, {}, part=TimeRange(Fraction(0), Fraction(1)), **times)
    assert told == (SOUND_CUT, choice.tracks[0].mixed)


@pytest.mark.parametrize(
    ("layout", "channels", "kept"),
    [
        ("hexagonal", 6, "5.1"),
        ("7.1(wide)", 8, "7.1"),
        ("hexadecagonal", 16, "7.1"),
        (None, 16, "7.1"),
        ("5 channels (FL+FR+LFE+BC+TC)", 5, "5.1"),
    ],
)
def test_what_is_mixed_is_told(layout: str | None, channels: int, kept: str) -> None:
    stream = {"index": 1, "codec_type": "audio", "codec_name": "pcm_s16le", "channels": channels}
    choice = choose_tracks([{**stream, "channel_layout": layout}], video_index=0, formats={})
    (warning,) = [one for one in choice.warnings if "mixed" in one]
    assert f"{channels} channels" in warning
    assert f"mixed to {kept}" in warning
    assert choice.tracks[0].layout is not None
    assert choice.tracks[0].layout.name == kept


@pytest.mark.parametrize(
    ("layout", "channels", "kept"),
    [(None, 2, "stereo"), ("unknown", 4, "4.0"), ("4 channels (FL+FR+LFE+BC)", 4, "5.1"), ("7.0", 7, "7.1")],
)
def test_layouts_without_a_name(layout: str | None, channels: int, kept: str) -> None:
    found = kept_layout(layout, channels=channels)
    if layout != "4 channels (FL+FR+LFE+BC)":
        assert (found.name, found.is_mixed) == (kept, False)
    else:
        assert found.is_mixed


@pytest.mark.parametrize("codec", ["aac", "aac_latm", "ac3", "dts", "eac3", "mp2", "mp3"])
def test_formats_are_read_from_headers(codec: str, tmp_path: Path) -> None:
    kinds = [STEREO, MONO, SLOWER] if codec in ("mp2", "mp3") else [STEREO, SURROUND, SLOWER]
    encoder = {"mp3": "libmp3lame", "dts": "dca", "aac_latm": "aac"}.get(codec, codec)
    container = {"aac": "adts", "aac_latm": "latm"}.get(codec, codec)
    coded = b""
    for rate, layout in kinds:
        # Noise, so that what looks like a header comes up within frames.
        noise = f"anoisesrc=r={rate}:d=1,aformat=channel_layouts={layout}"
        experimental = ("-strict", "-2")
        coded += _ffmpeg(
            "-f", "lavfi", "-i", noise, "-c:a", encoder, *experimental, "-f", container, "pipe:1"
        )
    reader = FormatReader(codec)
    for at in range(0, len(coded), 5000):
        reader.feed(coded[at : at + 5000])
    surround = 6 if codec.startswith("aac") else 5
    assert reader.formats == {
        SoundFormat({"mono": 1, "stereo": 2}.get(layout, surround), rate) for rate, layout in kinds
    }


def test_a_track_that_changes_is_converted_and_an_empty_one_left_out() -> None:
    sound = {"codec_type": "audio", "codec_name": "aac", "channels": 2, "channel_layout": "stereo"}
    empty = {**sound, "channels": 0, "channel_layout": "unknown"}
    choice = choose_tracks(
        [{"index": 1, **sound}, {"index": 2, **empty}, {"index": 3, **sound}],
        video_index=0,
        formats={
            1: {SoundFormat(2, 48_000), SoundFormat(6, 44_100)},
            3: {SoundFormat(2, 48_000)},
        },
    )
    changing, steady = choice.tracks
    assert (changing.index, changing.is_copied, steady.index, steady.is_copied) == (1, False, 3, True)
    assert (
        "aresample=48000:async=1:min_hard_comp=0.01,aformat=channel_layouts=5.1"
        in changing.options(0).values()
    )
    assert choice.warnings == (SOUND_CHANGES, SOUND_EMPTY)


@pytest.mark.parametrize(
    ("channels", "seconds", "copied_bytes", "cpu_seconds", "sound_bytes"),
    [
        ([], Fraction(10), 0, 0, 0),
        ([2], Fraction(7200), 0, 14_400, 172_800_000),
        ([6, 2], Fraction(100, 3), 100 * SLOWEST_COPY, 267 + 100, 3_200_000),
    ],
)
def test_the_budget_for_putting_the_output_together(
    channels, seconds, copied_bytes, cpu_seconds, sound_bytes
) -> None:
    limits = RunLimits(wall_seconds=60, memory_bytes=2**32, output_bytes=1000)
    runner = FfmpegRunner(programs=find_programs(), limits=limits)
    streams = [{"codec_type": "audio", "channels": number} for number in channels] + [
        {"codec_type": "subtitle"}
    ]
    budget = within_budget(runner, streams, seconds=seconds, copied_bytes=copied_bytes).limits
    assert budget.cpu_seconds == LEAST_CPU_SECONDS + cpu_seconds
    assert budget.output_bytes == 1000 + 2 * sound_bytes
    assert replace(budget, cpu_seconds=None, output_bytes=1000) == limits


def test_what_takes_more_than_its_budget_is_ended() -> None:
    """With an error of the file's, not with an outage of the machine."""
    limits = RunLimits(wall_seconds=60, memory_bytes=2**32, cpu_seconds=1)
    runner = FfmpegRunner(programs=find_programs(), limits=limits)
    endless = ffmpeg.output(runner.generated_input("nullsrc=s=16x16"), "pipe:1", f="null")
    began = time.monotonic()
    with pytest.raises(FfmpegKilled):
        runner.run(endless, purpose="putting the output together")
    assert time.monotonic() - began < 30
