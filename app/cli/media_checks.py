"""The part of `regen doctor` that proves ffmpeg and ffprobe, by encoding, probing and decoding a few frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.cli.checks import Finding, State
from app.platform.errors import FfmpegError, FfmpegMissing
from app.platform.media.ffmpeg import FfmpegRunner, Programs, RunLimits, find_programs
from app.platform.media.whitelists import VIDEO_DECODERS
from app.platform.settings import GIB, Settings

MEND = "install a full ffmpeg (Debian, Ubuntu: apt install ffmpeg), run scripts/setup, or set REGEN_FFMPEG"
WALL_SECONDS = 60.0
MEMORY_BYTES = 4 * GIB
LIST_BYTES = 1024 * 1024
# What our own segments and nearly all uploads are in.
INDISPENSABLE_CODECS = frozenset({"h264", "hevc"})


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """An encoder to be proven on `source`, which ffmpeg makes itself."""

    name: str
    source: str
    suffix: str
    required: bool


VIDEO = "testsrc2=size=256x144:rate=25:duration=0.2"
SOUND = "sine=duration=0.2"
ENCODERS = (
    Encoder(name="libx264", source=VIDEO, suffix=".mp4", required=True),
    Encoder(name="libx265", source=VIDEO, suffix=".mp4", required=True),
    Encoder(name="aac", source=SOUND, suffix=".m4a", required=True),
    Encoder(name="h264_nvenc", source=VIDEO, suffix=".mp4", required=False),
    Encoder(name="hevc_nvenc", source=VIDEO, suffix=".mp4", required=False),
)


def check_media(settings: Settings, scratch: Path) -> Iterator[Finding]:
    """The programs, their encoders and their decoders."""
    try:
        programs = find_programs(ffmpeg=settings.ffmpeg, ffprobe=settings.ffprobe)
    except FfmpegMissing as error:
        yield Finding(subject="ffmpeg and ffprobe", state=State.MISSING, found=str(error), mend=MEND)
        return
    runner = FfmpegRunner(
        programs=programs, limits=RunLimits(wall_seconds=WALL_SECONDS, memory_bytes=MEMORY_BYTES)
    )
    yield _check_ffmpeg(runner, programs)
    encoded: list[Path] = []
    for encoder in ENCODERS:
        path = scratch / f"{encoder.name}{encoder.suffix}"
        finding = _check_encoder(runner, encoder, path)
        if finding.state is State.OK and encoder.required:
            encoded.append(path)
        yield finding
    if encoded:
        yield _check_ffprobe(runner, programs, encoded[0])
        yield _check_decoding(runner, encoded, scratch)
    yield _check_decoders(runner)


def _check_ffmpeg(runner: FfmpegRunner, programs: Programs) -> Finding:
    try:
        answer = runner.run(["-version"], purpose="telling its version", stdout_limit_bytes=LIST_BYTES).stdout
    except FfmpegError as error:
        return Finding(subject="ffmpeg", state=State.MISSING, found=_reason(error), mend=MEND)
    words = answer.decode(errors="replace").split()
    version = words[2] if len(words) > 2 else "unknown version"
    return Finding(subject="ffmpeg", state=State.OK, found=f"{programs.ffmpeg}, {version}")


def _check_encoder(runner: FfmpegRunner, encoder: Encoder, path: Path) -> Finding:
    video = encoder.source is VIDEO
    options = {"vcodec": encoder.name, "pix_fmt": "yuv420p"} if video else {"acodec": encoder.name}
    source = runner.generated_input(encoder.source)
    try:
        runner.run(runner.output(source, path, **options), purpose=f"encoding with {encoder.name}")
        if not path.is_file() or not path.stat().st_size:
            raise FfmpegError("The program claims success and has written nothing.")
    except FfmpegError as error:
        if not encoder.required:
            return Finding(
                subject=f"encoder {encoder.name}",
                state=State.ABSENT,
                found="does not encode here; the server does without",
            )
        return Finding(
            subject=f"encoder {encoder.name}", state=State.MISSING, found=_reason(error), mend=MEND
        )
    return Finding(subject=f"encoder {encoder.name}", state=State.OK, found="encodes")


def _check_ffprobe(runner: FfmpegRunner, programs: Programs, path: Path) -> Finding:
    try:
        answer = runner.probe(path, "-show_program_version", "-show_streams")
        version = answer.get("program_version", {}).get("version", "unknown version")
    except FfmpegError as error:
        return Finding(subject="ffprobe", state=State.MISSING, found=_reason(error), mend=MEND)
    return Finding(subject="ffprobe", state=State.OK, found=f"{programs.ffprobe}, {version}")


def _check_decoding(runner: FfmpegRunner, paths: list[Path], scratch: Path) -> Finding:
    for path in paths:
        try:
            runner.run(
                runner.output(
                    runner.input(path), scratch / f"{path.stem}.nut", vcodec="rawvideo", acodec="pcm_s16le"
                ),
                purpose=f"decoding {path.stem}",
            )
        except FfmpegError as error:
            return Finding(subject="decoding", state=State.MISSING, found=_reason(error), mend=MEND)
    names = ", ".join(path.stem for path in paths)
    return Finding(subject="decoding", state=State.OK, found=f"decodes what {names} encoded")


def _check_decoders(runner: FfmpegRunner) -> Finding:
    """Which of the codecs that the server takes this build can decode, by its own list."""
    try:
        answer = runner.run(
            ["-decoders"], purpose="listing its decoders", stdout_limit_bytes=LIST_BYTES
        ).stdout
    except FfmpegError as error:
        return Finding(subject="decoders", state=State.MISSING, found=_reason(error), mend=MEND)
    listed = {
        line.split()[1] for line in answer.decode(errors="replace").splitlines() if len(line.split()) > 1
    }
    lacking = [codec for codec, decoders in VIDEO_DECODERS.items() if listed.isdisjoint(decoders)]
    if lacking:
        return Finding(
            subject="decoders",
            state=State.ABSENT if INDISPENSABLE_CODECS.isdisjoint(lacking) else State.MISSING,
            found=f"videos in {', '.join(lacking)} cannot be read",
            mend="install a full ffmpeg if such videos will come",
        )
    return Finding(
        subject="decoders", state=State.OK, found=f"all {len(VIDEO_DECODERS)} video codecs we take"
    )


def _reason(error: FfmpegError) -> str:
    last = (error.detail or "").strip().splitlines()
    return f"{error} {last[-1]}" if last else str(error)
