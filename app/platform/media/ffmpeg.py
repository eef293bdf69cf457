"""The one place that builds and runs ffmpeg and ffprobe commands.

The builders of `FfmpegRunner` make every input and put the safety options in front of it; `run` and `start`
refuse a command with any other input. A user's file always goes through `input`. The other builders accept
inputs that the server made: raw frames on stdin, a list of its own segments, a generated picture.

    runner = FfmpegRunner(programs=find_programs(), limits=RunLimits(wall_seconds=60, memory_bytes=2**31))
    video = runner.input(source)["v:0"]
    stream = runner.output(video, directory / "copy.mp4", vcodec="copy")
    runner.run(stream, purpose="copying the video")

Works with ffmpeg 5.1 to 9.
"""

import copy
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

import ffmpeg

from app.platform.byte_sizes import GIB
from app.platform.errors import FfmpegError
from app.platform.settings import Settings

from .ffprobe_output import ScannedLines
from .process import FfmpegProcess, RunLimits
from .programs import Programs, find_programs
from .running_processes import Completed, RunningProcesses, complete
from .safety_options import (
    NO_DECODER,
    check_inputs,
    file_name,
    pcm_decoders,
    refuse_safety_options,
    safety_options,
)
from .sandbox import memory_limit, require_sandbox
from .unlisted_codecs import COPYING, OpenedDecoders, decoders_by_codec, decoders_to_open, may_be_unlisted
from .whitelists import DECODERS, FORMATS, PROTOCOLS

__all__ = [
    "Completed",
    "FfmpegProcess",
    "FfmpegRunner",
    "Programs",
    "RunLimits",
    "Stream",
    "file_name",
    "find_programs",
]

# A node or stream of ffmpeg-python, which has no types.
Stream: TypeAlias = Any
EXAMINING = "examining the file"
# In addition to RunLimits.probe_bytes.
ANALYZED_MICROSECONDS = 600_000_000
LIST_BYTES = 1024 * 1024
PROBE_OUTPUT_LIMIT_BYTES = 16 * 1024 * 1024


class FfmpegRunner:
    """Builds and runs commands of one pair of programs under one set of limits. Cheap to make."""

    def __init__(self, *, programs: Programs, limits: RunLimits) -> None:
        self.programs = programs
        self.limits = limits
        # When every run must have ended, by the monotonic clock.
        self._deadline = math.inf
        self._running = RunningProcesses()

    @classmethod
    def for_uploads(cls, settings: Settings) -> Self:
        """The runner for probing files that are not validated yet.

        Raises FfmpegMissing, and ConfigurationError without a sandbox that is required.
        """
        memory_bytes = memory_limit(settings.probe_memory_bytes, most=2 * GIB, least=GIB, share=1 / 4)
        return cls._configured(
            settings, wall_seconds=settings.probe_timeout_seconds, memory_bytes=memory_bytes
        )

    @classmethod
    def for_work(cls, settings: Settings) -> Self:
        """The runner for decoding and encoding whole videos.

        Raises FfmpegMissing, and ConfigurationError without a sandbox that is required.
        """
        return cls._configured(
            settings,
            wall_seconds=settings.ffmpeg_timeout_seconds,
            memory_bytes=memory_limit(settings.ffmpeg_memory_bytes, most=16 * GIB, least=4 * GIB),
            stall_seconds=settings.stall_seconds,
        )

    @classmethod
    def _configured(
        cls, settings: Settings, *, wall_seconds: float, memory_bytes: int, stall_seconds: float = math.inf
    ) -> Self:
        require_sandbox(settings)
        programs = find_programs(ffmpeg=settings.ffmpeg, ffprobe=settings.ffprobe)
        max_pixels = settings.max_input_pixels
        return cls(
            programs=programs,
            limits=RunLimits(
                wall_seconds=wall_seconds,
                memory_bytes=memory_bytes,
                stall_seconds=stall_seconds,
                max_pixels=max_pixels,
                sandbox=settings.sandbox,
            ),
        )

    # Inputs

    def input(self, path: Path, **options: Any) -> Stream:
        """A user's file, or a video file of the server's, as an ffmpeg-python input.

        `options` are ffmpeg's input options (`ss`, `t`, `noautorotate=None`, ...). Raises ValueError for an option that
        decides what may be opened.
        """
        return ffmpeg.input(file_name(path), **self._input_options(FORMATS, options))

    def raw_input(
        self, *, width: int, height: int, pix_fmt: str, frame_rate: Fraction | int, **options: Any
    ) -> Stream:
        """Raw frames from stdin, at `frame_rate` frames per second."""
        safety = safety_options(formats=("rawvideo",), protocols=("pipe",), decoders=("rawvideo",))
        refuse_safety_options(options)
        size = f"{width}x{height}"
        raw = {"f": "rawvideo", "pix_fmt": pix_fmt, "s": size, "framerate": str(frame_rate)}
        return ffmpeg.input("pipe:0", **safety, **raw, **options)

    def concat_input(self, list_path: Path, *, decoder: str = NO_DECODER, **options: Any) -> Stream:
        """The server's own files, joined by an ffconcat list beside them, for a copy of their streams.

        The list names them relative to its directory, in letters, digits and `._-/`, with no part that starts with a
        dot; ffmpeg refuses any other name (`-safe 1`), so a list cannot name a file outside its directory.
        With a `decoder` ffmpeg decodes a frame of each file to learn its pixel format: ten times the work of the copy.
        """
        own = {"f": "concat", "safe": 1, "codec_whitelist": decoder}
        return ffmpeg.input(
            file_name(list_path), **{**self._input_options(("concat", *FORMATS), options), **own}
        )

    def own_file_input(
        self, path: Path, *, demuxer: Literal["nut", "ass", "ffmetadata"], **options: Any
    ) -> Stream:
        """PCM in a NUT file, texts in an ASS file, or chapters in ffmpeg's own form, that the server made."""
        decoders = {"nut": pcm_decoders(), "ass": ("ass", "ssa"), "ffmetadata": ("rawvideo",)}[demuxer]
        safety = safety_options(formats=(demuxer,), protocols=("file",), decoders=decoders)
        refuse_safety_options(options)
        return ffmpeg.input(file_name(path), **safety, **options)

    def generated_input(self, graph: str, **options: Any) -> Stream:
        """What ffmpeg generates, or reads from stdin where the server made it: pictures, sound, closed captions.

        `graph` is a constant in code, such as `testsrc2=...`.
        """
        decoders = ("rawvideo", "wrapped_avframe", "cc_dec", *pcm_decoders())
        safety = safety_options(formats=("lavfi",), protocols=("pipe",), decoders=decoders)
        refuse_safety_options(options)
        return ffmpeg.input(graph, **safety, f="lavfi", **options)

    def output(self, *streams: Stream, **options: Any) -> Stream:
        """`ffmpeg.output` to a file: the last argument is its absolute path. An existing file is overwritten."""
        *mapped, path = streams
        return ffmpeg.output(*mapped, file_name(path), **options)

    # Running

    def run(
        self,
        stream_or_args: Stream | Sequence[str],
        *,
        purpose: str,
        cancelled: Callable[[], bool] | None = None,
        stdout_limit_bytes: int = 0,
        output_bytes: int | None = None,
    ) -> Completed:
        """Run ffmpeg to its end. `purpose` completes "failed while ..." in messages: "joining the segments".

        `cancelled` is polled every 0.1 s. `output_bytes`: instead of that of the limits. Raises what FfmpegProcess.wait
        raises, and FfmpegError when stdout exceeds `stdout_limit_bytes` (with 0, stdout is discarded).
        """
        command = self._ffmpeg_command(stream_or_args)
        return self._complete(
            command,
            purpose=purpose,
            limits=self._limits_until(self._deadline_of_a_run(), output_bytes=output_bytes),
            cancelled=cancelled,
            stdout_limit_bytes=stdout_limit_bytes,
        )

    def start(
        self,
        stream_or_args: Stream | Sequence[str],
        *,
        purpose: str,
        stdin: bool,
        stdout: bool,
        may_wait: bool = True,
        output_bytes: int | None = None,
    ) -> FfmpegProcess:
        """Start ffmpeg with these pipes. This thread must enter the process's `with` block.

        `may_wait`: whether the other end of a pipe may be so slow that ffmpeg stalls without being at fault.
        `output_bytes`: instead of that of the limits.
        """
        command = self._ffmpeg_command(stream_or_args)
        limits = self._limits_until(self._deadline_of_a_run(), output_bytes=output_bytes)
        if may_wait:
            limits = replace(limits, stall_seconds=math.inf)
        return self._start(command, purpose=purpose, limits=limits, stdin=stdin, stdout=stdout)

    def version(self) -> str | None:
        """ffmpeg's version; None if it does not tell. Raises FfmpegError."""
        words = self._told("-version", purpose="telling its version").split(maxsplit=3)
        return words[2] if len(words) > 2 else None

    def components(self, kind: Literal["decoders", "encoders", "filters", "muxers"]) -> frozenset[str]:
        """The names in ffmpeg's own list of that kind. Raises FfmpegError."""
        listed = map(str.split, self._told(f"-{kind}", purpose=f"listing its {kind}").splitlines())
        return frozenset(name for words in listed if len(words) > 1 for name in words[1].split(","))

    def _told(self, question: str, *, purpose: str) -> str:
        answer = self.run([question], purpose=purpose, stdout_limit_bytes=LIST_BYTES)
        return answer.stdout.decode(errors="replace")

    def probe(self, path: Path, *ffprobe_args: str) -> dict[str, Any]:
        """ffprobe's JSON answer to `-show_...` arguments about a user's file. Raises as `run` does."""
        return self.probe_with_stderr(path, *ffprobe_args)[0]

    def probe_with_stderr(
        self,
        path: Path,
        *ffprobe_args: str,
        cpu_seconds: int | None = None,
        output_limit_bytes: int = PROBE_OUTPUT_LIMIT_BYTES,
    ) -> tuple[dict[str, Any], str]:
        """As `probe`, with the last 64 KiB of stderr. Raises FfmpegKilled after `cpu_seconds` of processor time, and
        FfmpegAnswerTooLong."""
        deadline = self._deadline_of_a_run()

        def run(opened: OpenedDecoders) -> Completed:
            return self._complete(
                self._ffprobe_command(path, opened, "-of", "json=compact=1", *ffprobe_args),
                purpose=EXAMINING,
                limits=replace(self._limits_until(deadline), cpu_seconds=cpu_seconds),
                stdout_limit_bytes=output_limit_bytes,
            )

        try:
            done = run({})
        except FfmpegError as error:
            if not may_be_unlisted(error, ffprobe_args) or not (
                opened := self._find_decoders(path, deadline)
            ):
                raise
            done = run(opened)
        try:
            answer = json.loads(done.stdout.decode("utf-8", errors="replace"))
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise FfmpegError("The video program gave an unreadable answer.", detail=done.stderr)
        return answer, done.stderr

    def scan_lines(self, path: Path, *ffprobe_args: str) -> ScannedLines:
        """The lines that ffprobe prints about a user's file, in constant memory; see ScannedLines."""
        deadline = self._deadline_of_a_run()

        def start(opened: OpenedDecoders) -> FfmpegProcess:
            command = self._ffprobe_command(path, opened, *ffprobe_args)
            limits = self._limits_until(deadline)
            return self._start(command, purpose=EXAMINING, limits=limits, stdout=True)

        return ScannedLines(start, partial(self._find_decoders, path, deadline), ffprobe_args)

    def under(self, limits: RunLimits) -> Self:
        """This runner under other limits: its runs end with those of this one, by `stop` and when its time is up."""
        other = copy.copy(self)
        other.limits = limits
        return other

    def within_one_limit(self) -> Self:
        """A runner whose runs together take no longer than one run of this runner may, from now on; this one
        if it is such a runner."""
        if self._deadline < math.inf:
            return self
        other = copy.copy(self)
        other._deadline = self._deadline_of_a_run()
        other._running = RunningProcesses()
        return other

    def stop(self) -> None:
        """Kill running processes and any started from now on: their callers get FfmpegCancelled. For any thread."""
        self._running.stop()

    def _start(
        self, command: Sequence[str], *, purpose: str, limits: RunLimits, stdin: bool = False, stdout: bool
    ) -> FfmpegProcess:
        process = FfmpegProcess(command=command, purpose=purpose, limits=limits, stdin=stdin, stdout=stdout)
        self._running.add(process)
        return process

    def _deadline_of_a_run(self) -> float:
        """When a run that starts now must have ended, by the monotonic clock."""
        return min(self._deadline, time.monotonic() + self.limits.wall_seconds)

    def _limits_until(self, deadline: float, *, output_bytes: int | None = None) -> RunLimits:
        """The limits of one of several runs that share this runner's time."""
        limits = replace(self.limits, wall_seconds=max(0.0, deadline - time.monotonic()))
        return limits if output_bytes is None else replace(limits, output_bytes=output_bytes)

    def _input_options(self, formats: Sequence[str], options: dict[str, Any]) -> dict[str, Any]:
        refuse_safety_options(options)
        safety = safety_options(formats=formats, protocols=PROTOCOLS, decoders=DECODERS)
        # Twice the limit, because decoders count whole coding blocks, which may exceed the picture.
        safety["max_pixels"] = 2 * self.limits.max_pixels
        if self.limits.probe_bytes is not None:
            safety |= {"probesize": self.limits.probe_bytes, "analyzeduration": ANALYZED_MICROSECONDS}
        if self.limits.threads is not None:
            safety["threads"] = self.limits.threads
        return {**safety, **options}

    def _ffmpeg_command(self, stream_or_args: Stream | Sequence[str]) -> list[str]:
        if isinstance(stream_or_args, (list, tuple)) and all(
            isinstance(item, str) for item in stream_or_args
        ):
            arguments = list(stream_or_args)
        else:
            arguments = ffmpeg.get_args(stream_or_args)
        check_inputs(arguments)
        return [str(self.programs.ffmpeg), *self._common(), "-nostdin", "-nostats", "-y", *arguments]

    def _ffprobe_command(self, path: Path, opened: OpenedDecoders, *ffprobe_args: str) -> list[str]:
        safety = self._input_options(FORMATS, {})
        listed = safety["codec_whitelist"]
        safety |= {f"codec_whitelist:{index}": ",".join((listed, *more)) for index, more in opened.items()}
        words = [word for option, value in safety.items() for word in (f"-{option}", str(value))]
        return [str(self.programs.ffprobe), *self._common(), *ffprobe_args, *words, "-i", file_name(path)]

    def _find_decoders(self, path: Path, deadline: float) -> OpenedDecoders:
        """The decoders that ffprobe must open for this file in addition to the whitelist. Raises CodecRefused."""
        words = [
            word
            for option in self._input_options(FORMATS, {}).items()
            for word in (f"-{option[0]}", option[1])
        ]
        answers = [
            self._complete(
                self._ffmpeg_command(arguments),
                purpose=EXAMINING,
                limits=self._limits_until(deadline),
                stdout_limit_bytes=LIST_BYTES,
            ).stdout.decode(errors="replace")
            for arguments in (["-codecs"], [*map(str, words), "-i", file_name(path), *COPYING])
        ]
        return decoders_to_open(answers[1], decoders_by_codec(answers[0]))

    def _common(self) -> list[str]:
        return ["-hide_banner", "-loglevel", "level+warning", "-max_alloc", str(self.limits.memory_bytes)]

    def _complete(
        self,
        command: Sequence[str],
        *,
        purpose: str,
        limits: RunLimits,
        stdout_limit_bytes: int,
        cancelled: Callable[[], bool] | None = None,
    ) -> Completed:
        with self._start(command, purpose=purpose, limits=limits, stdout=stdout_limit_bytes > 0) as process:
            return complete(process, purpose=purpose, limit_bytes=stdout_limit_bytes, cancelled=cancelled)
