"""Checks of ffmpeg and ffprobe, which encode, probe and decode a few frames."""

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from app.cli.doctor.findings import Finding, FindingState
from app.platform.errors import FfmpegError, FfmpegMissing
from app.platform.media.components import FILTERS, MUXERS, TONE_MAPPING_FILTERS
from app.platform.media.confinement import OFF, REQUIRED, compiled_launcher
from app.platform.media.ffmpeg import FfmpegRunner, Programs, RunLimits, find_programs
from app.platform.media.sandbox import missing_layers
from app.platform.media.self_test import MEMORY_BYTES, SAMPLES, WALL_SECONDS, Sample, decode, encode
from app.platform.media.whitelists import VIDEO_DECODERS
from app.platform.settings import Settings

FULL = "install a full ffmpeg (Debian, Ubuntu: apt install ffmpeg)"
# The codecs of the server's own segments and of nearly all uploads.
REQUIRED_CODECS = frozenset({"h264", "hevc"})
# A static build takes half as much, with its launcher; one of 200 libraries twice as much.
SLOW_START_SECONDS = 0.06


def check_media(settings: Settings, scratch: Path) -> Iterator[Finding]:
    """The programs, their encoders and their decoders. `scratch` is an empty directory for the encoded files."""
    try:
        programs = find_programs(ffmpeg=settings.ffmpeg, ffprobe=settings.ffprobe)
    except FfmpegMissing as error:
        given = " and ".join(
            name
            for name, path in (("REGEN_FFMPEG", settings.ffmpeg), ("REGEN_FFPROBE", settings.ffprobe))
            if path
        )
        fix = (
            f"correct {given}, or unset it to use the one on PATH"
            if given
            else f"{FULL}, or run scripts/setup"
        )
        yield Finding.missing("ffmpeg and ffprobe", str(error), fix=fix)
        return
    yield _check_sandbox(settings)
    yield _check_launcher()
    yield _check_memory(settings)
    limits = RunLimits(wall_seconds=WALL_SECONDS, memory_bytes=MEMORY_BYTES, sandbox=settings.sandbox)
    runner = FfmpegRunner(programs=programs, limits=limits)
    yield _check_ffmpeg(runner, programs)
    encoded: list[Path] = []
    for sample in SAMPLES:
        path = sample.path_in(scratch)
        finding = _check_encoder(runner, sample, path)
        if finding.state is FindingState.OK:
            encoded.append(path)
        yield finding
    if encoded:
        yield _check_ffprobe(runner, programs, encoded[0])
        yield _check_decoding(runner, encoded, scratch)
    yield _check_decoders(runner)
    yield _check_filters(runner)
    yield _check_vmaf(runner)


def _check_sandbox(settings: Settings) -> Finding:
    subject = "sandbox of ffmpeg"
    if settings.sandbox == OFF:
        return Finding.absent(subject, "is off", fix="unset REGEN_SANDBOX if other people upload videos")
    missing = missing_layers()
    if not missing:
        return Finding.ok(
            subject, "no new privileges, Landlock (only its own files), seccomp (no sockets, no processes)"
        )
    fix = "use a Linux kernel of 5.13 or newer with Landlock and seccomp if other people upload videos"
    found = f"lacks {'; '.join(missing)}"
    return (Finding.missing if settings.sandbox == REQUIRED else Finding.absent)(subject, found, fix=fix)


def _check_launcher() -> Finding:
    subject = "launcher of ffmpeg"
    if compiled_launcher():
        return Finding.ok(subject, "compiled")
    fix = "nothing, but on Linux with a C compiler: install the package again"
    return Finding.absent(subject, "runs in Python, which takes 13 ms more for each start", fix=fix)


def _check_memory(settings: Settings) -> Finding:
    subject = "memory of server and workers"
    if settings.debuggable or sys.platform != "linux":
        fix = (
            "unset REGEN_DEBUGGABLE when you have finished debugging"
            if settings.debuggable
            else "nothing, but on Linux"
        )
        return Finding.absent(subject, "open to other programs of this user, including ffmpeg", fix=fix)
    return Finding.ok(
        subject, "closed to other programs of this user; REGEN_DEBUGGABLE opens it to debuggers"
    )


def _check_ffmpeg(runner: FfmpegRunner, programs: Programs) -> Finding:
    try:
        version = runner.version() or "unknown version"
    except FfmpegError as error:
        return Finding.missing(
            "ffmpeg", _reason(error), fix=f"see why {programs.ffmpeg} does not run, or {FULL}"
        )
    return Finding.ok("ffmpeg", f"{programs.ffmpeg}, {version}")


def _check_encoder(runner: FfmpegRunner, sample: Sample, path: Path) -> Finding:
    subject = f"encoder {sample.encoder}"
    try:
        encode(runner, sample, path)
    except FfmpegError as error:
        fix = f"put an ffmpeg built with {sample.encoder}, such as Debian's, on PATH or in REGEN_FFMPEG"
        return Finding.missing(subject, _reason(error), fix=fix)
    return Finding.ok(subject, "encodes")


def _check_ffprobe(runner: FfmpegRunner, programs: Programs, path: Path) -> Finding:
    before = _children_seconds()
    try:
        answer = runner.probe(path, "-show_program_version", "-show_streams")
    except FfmpegError as error:
        fix = f"see why {programs.ffprobe} does not run, or put ffmpeg's own ffprobe on PATH or in REGEN_FFPROBE"
        return Finding.missing("ffprobe", _reason(error), fix=fix)
    version = answer.get("program_version", {}).get("version", "unknown version")
    seconds = _children_seconds() - before
    hint = " (a static build starts faster, see docs/operating.md)" if seconds > SLOW_START_SECONDS else ""
    found = (
        f"{programs.ffprobe}, {version}; {1000 * seconds:.0f} ms of processor time for a short video{hint}"
    )
    return Finding.ok("ffprobe", found)


def _children_seconds() -> float:
    """Processor time of this process' ended children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _check_decoding(runner: FfmpegRunner, paths: list[Path], scratch: Path) -> Finding:
    for path in paths:
        try:
            decode(runner, path, scratch)
        except FfmpegError as error:
            fix = f"put an ffmpeg that decodes {path.stem}'s format on PATH or in REGEN_FFMPEG"
            return Finding.missing("decoding", _reason(error), fix=fix)
    return Finding.ok("decoding", f"decodes what {', '.join(path.stem for path in paths)} encoded")


def _check_decoders(runner: FfmpegRunner) -> Finding:
    """The accepted codecs that this build can decode, by its own list."""
    try:
        listed = runner.components("decoders")
    except FfmpegError as error:
        return Finding.missing("decoders", _reason(error), fix=FULL)
    lacking = [codec for codec, decoders in VIDEO_DECODERS.items() if listed.isdisjoint(decoders)]
    if lacking:
        report = Finding.absent if REQUIRED_CODECS.isdisjoint(lacking) else Finding.missing
        found = f"videos in {', '.join(lacking)} cannot be read"
        return report("decoders", found, fix=f"{FULL} to accept such videos")
    return Finding.ok("decoders", f"all {len(VIDEO_DECODERS)} accepted video codecs")


def _check_filters(runner: FfmpegRunner) -> Finding:
    """The filters and muxers that commands use, by the program's own lists."""
    subject = "filters and muxers"
    try:
        filters, muxers = runner.components("filters"), runner.components("muxers")
    except FfmpegError as error:
        return Finding.missing(subject, _reason(error), fix=FULL)
    lacking = [name for name in FILTERS if name not in filters] + [
        name for name in MUXERS if name not in muxers
    ]
    if lacking:
        return Finding.missing(subject, f"lacks {', '.join(lacking)}", fix=FULL)
    if not filters.issuperset(TONE_MAPPING_FILTERS):
        return Finding.absent(subject, "previews of HDR videos cannot be made", fix=f"{FULL} to make them")
    return Finding.ok(subject, "all that are used")


def _check_vmaf(runner: FfmpegRunner) -> Finding:
    subject = "VMAF"
    try:
        is_there = "libvmaf" in runner.components("filters")
    except FfmpegError as error:
        return Finding.missing(subject, _reason(error), fix=FULL)
    if is_there:
        return Finding.ok(subject, "measured: `output_quality` may be a target, such as vmaf=95")
    fix = "nothing, unless such renders are wanted here: docs/operating.md names an ffmpeg that has libvmaf"
    return Finding.absent(subject, "`output_quality` cannot be a target, such as vmaf=95", fix=fix)


def _reason(error: FfmpegError) -> str:
    last = (error.detail or "").strip().splitlines()
    return f"{error} {last[-1]}" if last else str(error)
