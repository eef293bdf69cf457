"""The runner: safety options on every input, and what they keep out."""

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg
import pytest

from app.platform.errors import CodecRefused, FfmpegCancelled, FfmpegError, FfmpegTimeout
from app.platform.media.ffmpeg import Completed, FfmpegRunner

Make = Callable[..., Path]

WHITELISTS = ("-protocol_whitelist", "-format_whitelist", "-codec_whitelist")


def decode_to_nothing(runner: FfmpegRunner, stream: object) -> None:
    runner.run(ffmpeg.output(stream, "pipe:1", f="null"), purpose="decoding")


def frame_count(runner: FfmpegRunner, path: Path) -> int:
    with runner.scan_lines(
        path, "-select_streams", "v:0", "-show_entries", "packet=pts", "-of", "csv=p=0"
    ) as lines:
        return sum(1 for line in lines if line)


def test_every_builder_puts_the_whitelists_in_front_of_its_input(
    runner: FfmpegRunner, tmp_path: Path
) -> None:
    inputs = [
        runner.input(tmp_path / "a.mp4"),
        runner.raw_input(width=2, height=2, pix_fmt="gray", frame_rate=25),
        runner.concat_input(tmp_path / "list.ffconcat"),
        runner.generated_input("testsrc2"),
    ]
    for made in inputs:
        arguments = ffmpeg.get_args(ffmpeg.output(made, "pipe:1"))
        before = arguments[: arguments.index("-i")]
        assert all(option in before for option in WHITELISTS)
    arguments = ffmpeg.get_args(ffmpeg.output(inputs[0], "pipe:1"))
    assert "-max_pixels" in arguments
    assert arguments[arguments.index("-i") + 1] == f"file:{tmp_path}/a.mp4"


@pytest.mark.parametrize(
    "option",
    ["format_whitelist", "protocol_whitelist", "codec_whitelist:v", "max_pixels", "f", "enable_drefs"],
)
def test_no_caller_changes_a_safety_option(runner: FfmpegRunner, tmp_path: Path, option: str) -> None:
    with pytest.raises(ValueError, match="FfmpegRunner sets"):
        runner.input(tmp_path / "a.mp4", **{option: "hls"})


def test_an_input_that_the_runner_did_not_make_is_refused(runner: FfmpegRunner, clips: Path) -> None:
    clip = clips / "bunny-240x136-25fps.mp4"
    with pytest.raises(ValueError, match="was not made by FfmpegRunner"):
        decode_to_nothing(runner, ffmpeg.input(str(clip)))
    with pytest.raises(ValueError, match="was not made by FfmpegRunner"):
        runner.start(["-i", str(clip), "-f", "null", "-"], purpose="decoding", stdin=False, stdout=False)
    safe = ffmpeg.get_args(ffmpeg.output(runner.input(clip), "pipe:1", f="null"))
    with pytest.raises(ValueError, match="was not made by FfmpegRunner"):
        runner.run([*safe[:-4], "-i", str(clip), *safe[-4:]], purpose="decoding")


def test_a_relative_path_is_refused(runner: FfmpegRunner) -> None:
    with pytest.raises(ValueError, match="not an absolute path"):
        runner.input(Path("-i.mp4"))


@pytest.mark.parametrize(
    "name", ["http:x.mp4", "-y.mp4", "a b'c\"%03d$(x);.mp4", "concat:a|b.mp4", "é\n.mp4"]
)
def test_a_name_is_only_a_name(runner: FfmpegRunner, clips: Path, tmp_path: Path, name: str) -> None:
    odd = tmp_path / name
    odd.write_bytes((clips / "bunny-240x136-25fps.mp4").read_bytes())
    assert frame_count(runner, odd) == 50
    copy = tmp_path / ("copy of " + name)
    runner.run(runner.output(runner.input(odd)["v:0"], copy, vcodec="copy"), purpose="copying")
    assert frame_count(runner, copy) == 50


def test_raw_frames_go_in_and_come_out_unchanged(runner: FfmpegRunner, tmp_path: Path) -> None:
    path = tmp_path / "raw.mkv"
    frames = [bytes([7 * number]) * (16 * 8) for number in range(20)]
    raw = runner.raw_input(width=16, height=8, pix_fmt="gray", frame_rate=Fraction(30000, 1001))
    with runner.start(
        runner.output(raw, path, vcodec="ffv1"), purpose="encoding", stdin=True, stdout=False
    ) as encoder:
        for frame in frames:
            encoder.write_all(frame)
        encoder.close_stdin()
        encoder.wait()
    decoding = ffmpeg.output(runner.input(path), "pipe:1", f="rawvideo", pix_fmt="gray")
    decoded, buffer = [], bytearray(16 * 8)
    with runner.start(decoding, purpose="decoding", stdin=False, stdout=True) as decoder:
        while decoder.read_exactly_into(buffer):
            decoded.append(bytes(buffer))
        decoder.wait()
    assert decoded == frames


def test_our_own_files_are_joined_by_a_list(runner: FfmpegRunner, clips: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    for name in ("one.mp4", "two.mp4"):
        (parts / name).write_bytes((clips / "bunny-240x136-25fps.mp4").read_bytes())
    script = tmp_path / "list.ffconcat"
    script.write_text(
        "ffconcat version 1.0\nfile parts/one.mp4\nduration 2\nfile parts/two.mp4\nduration 2\n"
    )
    joined = tmp_path / "joined.mp4"
    copy = runner.output(runner.concat_input(script)["v:0"], joined, vcodec="copy")
    done = runner.run(copy, purpose="joining")
    assert frame_count(runner, joined) == 100
    # No frame is decoded, and what ffmpeg says of that is not kept.
    arguments = ffmpeg.get_args(copy)
    assert arguments[arguments.index("-codec_whitelist") + 1] == "none"
    assert "whitelist" not in done.stderr and "repeated" not in done.stderr


@pytest.mark.parametrize("named", ["/etc/hostname", "../outside.mp4", "file:outside.mp4", "{absolute}"])
def test_a_list_names_nothing_outside_its_directory(
    runner: FfmpegRunner, clips: Path, tmp_path: Path, named: str
) -> None:
    outside = tmp_path / "outside.mp4"
    outside.write_bytes((clips / "bunny-240x136-25fps.mp4").read_bytes())
    directory = tmp_path / "job"
    directory.mkdir()
    script = directory / "list.ffconcat"
    script.write_text(f"ffconcat version 1.0\nfile '{named.format(absolute=outside)}'\n")
    with pytest.raises(FfmpegError) as failed:
        decode_to_nothing(runner, runner.concat_input(script))
    assert "Unsafe file name" in (failed.value.detail or "")


def test_a_list_leads_to_no_other_format(runner: FfmpegRunner, tmp_path: Path) -> None:
    (tmp_path / "inner.mp4").write_text("#EXTM3U\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n")
    script = tmp_path / "list.ffconcat"
    script.write_text("ffconcat version 1.0\nfile inner.mp4\n")
    with pytest.raises(FfmpegError):
        decode_to_nothing(runner, runner.concat_input(script))


def test_a_decoder_that_is_not_listed_does_not_run(runner: FfmpegRunner, make_moving: Make) -> None:
    exotic = make_moving("exotic.mkv", "-c:v", "magicyuv")
    with pytest.raises(FfmpegError) as failed:
        decode_to_nothing(runner, runner.input(exotic)["v:0"])
    assert "magicyuv" in (failed.value.detail or "")
    with pytest.raises(FfmpegError), runner.scan_lines(exotic, "-show_frames") as lines:
        list(lines)


def test_a_stream_of_an_unlisted_codec_stops_neither_examining_nor_decoding_the_others(
    runner: FfmpegRunner, clips: Path, make: Make
) -> None:
    clip = ("-i", clips / "bunny-240x136-25fps.mp4", "-map", "0:v", "-map", "0:a", "-map", "0:a")
    sounds = ("-c:v:0", "copy", "-c:a:0", "tta", "-c:a:1", "wavpack")
    mixed = make("mixed.mkv", *clip, *sounds)
    streams = runner.probe(mixed, "-show_streams")["streams"]
    assert [stream["codec_name"] for stream in streams] == ["h264", "tta", "wavpack"]
    assert frame_count(runner, mixed) == 50
    decode_to_nothing(runner, runner.input(mixed)["v:0"])


@pytest.mark.parametrize("codec", ["magicyuv", "cinepak"])
def test_no_decoder_of_an_unlisted_video_is_opened(
    runner: FfmpegRunner, clips: Path, make: Make, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    commands: list[Sequence[str]] = []
    complete = runner._complete

    def record(command: Sequence[str], **options: Any) -> Completed:
        commands.append(command)
        return complete(command, **options)

    monkeypatch.setattr(runner, "_complete", record)
    clip = clips / "bunny-240x136-25fps.mp4"
    two = make(
        *("two.mkv", "-i", clip, "-map", "0:v", "-map", "0:a", "-map", "0:v", "-frames:v:1", "2"),
        *("-c:v:0", "copy", "-c:a", "tta", "-c:v:1", codec),
    )
    with pytest.raises(CodecRefused, match=rf"Stream 2 .*\({codec}\).* removes it"):
        runner.probe(two, "-show_streams")
    assert not any(codec in word for command in commands for word in command)


def test_frames_of_more_pixels_than_allowed_are_not_decoded(runner: FfmpegRunner, make_moving: Make) -> None:
    clip = make_moving("large.mp4", source="testsrc2=size=640x480:rate=5:duration=1")
    decode_to_nothing(runner, runner.input(clip))
    small = FfmpegRunner(programs=runner.programs, limits=replace(runner.limits, max_pixels=100 * 100))
    with pytest.raises(FfmpegError):
        decode_to_nothing(small, small.input(clip))


def test_leaving_a_scan_early_kills_ffprobe(runner: FfmpegRunner, tmp_path: Path) -> None:
    # A named pipe without a writer keeps ffprobe waiting for ever.
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    keep_open = os.open(pipe, os.O_RDWR)
    try:
        slow = FfmpegRunner(programs=runner.programs, limits=replace(runner.limits, wall_seconds=0.5))
        with pytest.raises(FfmpegTimeout):
            slow.probe(pipe, "-show_format")
        with pytest.raises(FfmpegCancelled):
            runner.run(
                ffmpeg.output(runner.input(pipe), "pipe:1", f="null"),
                purpose="waiting",
                cancelled=lambda: True,
            )
    finally:
        os.close(keep_open)


def test_a_scan_may_be_left_after_its_first_line(runner: FfmpegRunner, clips: Path) -> None:
    with closing(runner.scan_lines(clips / "bunny-240x136-25fps.mp4", "-show_packets")) as lines:
        assert next(lines) == "[PACKET]"
    with pytest.raises(StopIteration):
        next(lines)


def test_output_is_captured_as_far_as_asked_for(runner: FfmpegRunner) -> None:
    version = runner.run(["-version"], purpose="asking for the version", stdout_limit_bytes=64 * 1024)
    assert version.stdout.startswith(b"ffmpeg version")
    with pytest.raises(FfmpegError, match="answer was too long"):
        runner.run(["-version"], purpose="asking for the version", stdout_limit_bytes=10)


def test_what_was_there_is_overwritten(runner: FfmpegRunner, clips: Path, tmp_path: Path) -> None:
    there = tmp_path / "there.mp4"
    there.write_text("something else")
    clip = runner.input(clips / "bunny-240x136-25fps.mp4")
    runner.run(runner.output(clip["v:0"], there, vcodec="copy"), purpose="copying")
    assert frame_count(runner, there) == 50


def test_a_picture_of_our_own_is_generated_and_encoded(runner: FfmpegRunner, tmp_path: Path) -> None:
    path = tmp_path / "made.mp4"
    made = runner.generated_input("testsrc2=size=64x48:rate=25:duration=1")
    runner.run(runner.output(made, path, vcodec="libx264", pix_fmt="yuv420p"), purpose="proving the encoder")
    assert frame_count(runner, path) == 25
