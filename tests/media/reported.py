"""The corpus's second part: files after public bug reports, tiny and cheap.

Of these the frames' times, the tracks, tags and warnings are judged; `kinds.py` has those that are compared in full,
and `tests/integration/video` further cousins that need no server.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from tests.media.encoding import run

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none")
MPEG2 = ("-c:v", "mpeg2video", "-q:v", "2", "-bf", "0")
MJPEG = ("-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj420p")
RATE = 25
TS_PACKET_BYTES = 188
RESTARTS, TO_STAY = r"start again", r"to stay with the picture"


@dataclass(frozen=True, kw_only=True)
class Reported:
    """`times`: of the output's frames in seconds. `size`: of the output. `sounds`: codecs and channels of its sound.
    `tags`: of its video, by ffprobe's names. `warnings`: a pattern for each. `refusal`: a pattern of the sentence that
    refuses the file. `fields`: of the request. `gray`: the level of each frame. `texts`: when the texts of each
    subtitle track begin, which is off by default. `examined`: frames and seconds of a file that is not rendered here.
    """

    file_name: str
    make: Callable[[Path], object]
    times: Sequence[Fraction] = ()
    size: tuple[int, int] = (256, 144)
    sounds: Sequence[tuple[str, int]] = ()
    tags: dict[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    refusal: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    gray: Sequence[int] = ()
    texts: Sequence[Sequence[float]] = ()
    examined: tuple[int, float] | None = None


def even(count: int, rate: int = RATE) -> list[Fraction]:
    return [Fraction(number, rate) for number in range(count)]


def picture(count: int = 6, size: str = "64x36", rate: int = RATE) -> tuple[str, ...]:
    return ("-f", "lavfi", "-i", f"testsrc2=s={size}:r={rate}:d={count / rate}")


def tone(seconds: float, layout: str = "stereo", rate: int = 48_000) -> tuple[str, ...]:
    return ("-f", "lavfi", "-i", f"aevalsrc='0.3*sin(2*PI*440*t)':s={rate}:d={seconds},pan={layout}|c0=c0")


def encode(*arguments: str) -> Callable[[Path], object]:
    """A file that ffmpeg makes with these."""
    return lambda path: run(*arguments, path)


def joined(times: int, *arguments: str, offsets: Sequence[float] = ()) -> Callable[[Path], object]:
    """So many of that file behind each other, or one for each offset of its timestamps."""

    def make(path: Path) -> None:
        content = b""
        for offset in offsets or [None] * times:
            run(*arguments, *(() if offset is None else ("-output_ts_offset", str(offset))), path)
            content += path.read_bytes()
        path.write_bytes(content)

    return make


def without(stream: int, *arguments: str) -> Callable[[Path], object]:
    """A transport stream that announces a stream of which there is no packet."""

    def make(path: Path) -> None:
        run(*arguments, path)
        content = path.read_bytes()
        packets = [content[at : at + TS_PACKET_BYTES] for at in range(0, len(content), TS_PACKET_BYTES)]
        path.write_bytes(b"".join(one for one in packets if (one[1] & 0x1F) << 8 | one[2] != 0x100 + stream))

    return make


def slides(path: Path) -> None:
    """At 0, 6, 7 and 8 s, of 32, 96, 160 and 224."""
    levels = "geq=lum='32+64*N':cb=128:cr=128"
    run(
        *("-f", "lavfi", "-i", "color=black:s=64x36:r=1:d=4", "-vf", f"{levels},setpts='if(N,5+N,0)/TB'"),
        *("-fps_mode", "passthrough", "-enc_time_base", "1/1000", *X264, path),
    )


def far_texts(path: Path) -> None:
    """Three kinds of subtitles, each of two texts 49 minutes apart."""
    lines = {
        "srt": "1\n00:00:01,100 --> 00:00:02,000\nA\n\n2\n00:50:00,500 --> 00:50:01,000\nB\n",
        "vtt": "WEBVTT\n\n00:00:01.100 --> 00:00:02.000\nA\n\n00:50:00.500 --> 00:50:01.000\nB\n",
        "ass": "[Script Info]\nScriptType: v4.00+\n[V4+ Styles]\nFormat: Name\nStyle: Default\n[Events]\n"
        "Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
        "Dialogue: 0,0:00:01.10,0:00:02.00,Default,,0,0,0,,A\nDialogue: 0,0:50:00.50,0:50:01.00,Default,,0,0,0,,B\n",
    }
    inputs: list[str | Path] = []
    for suffix, text in lines.items():
        (path.parent / f"far.{suffix}").write_text(text)
        inputs += ["-i", path.parent / f"far.{suffix}"]
    run(
        *("-f", "lavfi", "-i", "testsrc2=s=64x36:r=1/600:d=3600", *inputs),
        *(word for number in range(4) for word in ("-map", str(number))),
        *(*X264, "-c:s:0", "srt", "-c:s:1", "webvtt", "-c:s:2", "ass"),
        *(word for number in range(3) for word in (f"-disposition:s:{number}", "0")),
        path,
    )


KEYS = ("-encryption_key", 32 * "a", "-encryption_kid", 32 * "b", "-encryption_scheme", "cenc-aes-ctr")
TWO_SOUNDS = (*picture(), *tone(0.24), "-map", "0", "-map", "1", "-map", "1", *X264, "-c:a", "aac")
SLIDES = {"30": (1, 30), "1": (1, 1)}


def slide_show(rate: str) -> Reported:
    ticks, per_second = SLIDES[rate]
    count = round(Fraction(9 * per_second, ticks))
    times = [Fraction(number * ticks, per_second) for number in range(count)]
    half = Fraction(ticks, 2 * per_second)
    # Each change is within half a frame of its time.
    levels = [32 + 64 * sum(at >= change - half for change in (6, 7, 8)) for at in times]
    return Reported(
        file_name=f"slides-{rate}.mkv", make=slides, times=times, gray=levels, fields={"target_fps": rate}
    )


FAMILIES: dict[str, Sequence[Reported]] = {
    "what encoders refuse": (
        Reported(
            file_name="2x2.mkv",
            make=encode(*picture(2, "2x2"), "-c:v", "ffv1", "-pix_fmt", "yuv420p10le"),
            times=even(2),
            size=(8, 8),
        ),
        Reported(
            file_name="gamma-22.mp4",
            make=encode(*picture(2), *X264, "-bsf:v", "h264_metadata=transfer_characteristics=4"),
            times=even(2),
            tags={"color_transfer": "bt470m"},
        ),
        Reported(
            file_name="gamma-28.ts",
            make=encode(*picture(2), *MPEG2, "-bsf:v", "mpeg2_metadata=transfer_characteristics=5"),
            times=even(2),
            tags={"color_transfer": "bt470bg"},
        ),
    ),
    "slides at a new rate": [slide_show(rate) for rate in SLIDES],
    "timestamps that start again": (
        Reported(
            file_name="joined.m2ts",
            make=joined(
                3, *picture(), *tone(0.24), *X264, "-c:a", "ac3", "-f", "mpegts", "-mpegts_m2ts_mode", "1"
            ),
            times=even(18),
            sounds=[("aac", 2)],
            warnings=[RESTARTS, TO_STAY],
        ),
        Reported(
            file_name="other-days.ts",
            make=joined(0, *picture(), *tone(0.24), *X264, "-c:a", "aac", offsets=(7200, 0, 7300)),
            times=even(18),
            sounds=[("aac", 2)],
            warnings=[RESTARTS, TO_STAY],
        ),
    ),
    "subtitles far apart": (
        Reported(
            file_name="far.mkv",
            make=far_texts,
            times=[Fraction(600 * number) for number in range(6)],
            texts=[(1.1, 3000.5)] * 3,
        ),
    ),
    "dead streams": (
        Reported(
            file_name="sound.ts",
            make=without(1, *TWO_SOUNDS),
            times=even(6),
            sounds=[("aac", 2)],
            warnings=[r"none of its sound can be read"],
        ),
    ),
    "encrypted": (
        Reported(
            file_name="cenc.mp4",
            make=encode(*picture(), *X264, *KEYS),
            refusal=r"is encrypted",
        ),
        Reported(
            file_name="fragments.mp4",
            make=encode(*picture(), *X264, *KEYS, "-movflags", "frag_keyframe+empty_moov"),
            refusal=r"is encrypted",
        ),
        Reported(
            file_name="cenc.mov",
            make=encode(*picture(), *tone(0.24), *X264, "-c:a", "aac", "-f", "mp4", *KEYS),
            refusal=r"is encrypted",
        ),
    ),
    "wider doors": (
        *(
            Reported(file_name=name, make=encode(*picture(4, rate=rate), *coding), examined=(4, 4 / rate))
            for name, rate, coding in (
                ("a.gif", 10, ()),
                ("a.png", 10, ("-f", "apng")),
                ("a.h264", 25, X264),
                ("a.hevc", 25, X265),
                ("a.y4m", 25, ("-pix_fmt", "yuv420p")),
                ("ut.avi", 25, ("-c:v", "utvideo", "-pix_fmt", "yuv420p")),
            )
        ),
        *(
            Reported(file_name=name, make=encode(*picture(4, "64x48"), *coding), refusal=refusal)
            for name, coding, refusal in (
                ("magic.avi", ("-c:v", "magicyuv"), r"\(magicyuv\)\. Convert"),
                ("snow.avi", ("-c:v", "snow"), r"\(snow\)\. Convert"),
                ("a.ivf", ("-c:v", "libvpx", "-b:v", "1M"), r"IVF.*[Cc]onvert"),
                ("a.m2v", MPEG2, r"MPEG-2.*[Cc]onvert"),
                ("a.mjpeg", MJPEG, r"Motion JPEG.*[Cc]onvert"),
            )
        ),
    ),
}
