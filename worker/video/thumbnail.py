"""Makes a small JPEG picture of the output."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

from app.platform.errors import FfmpegError
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.h273 import UNSPECIFIED, MatrixCoefficients
from worker.video.decoder import seconds_up
from worker.video.plan import RenderPlan, SegmentPlan

MAX_SIDE = 640
# Most videos are past opening black and titles by then.
POSITION = Fraction(1, 10)
SCALE_FLAGS = "area+accurate_rnd+full_chroma_int+full_chroma_inp"
# The matrices of the scale filter; it has none that is nearer to the others.
SCALE_MATRICES = {
    "bt709": MatrixCoefficients.BT709,
    "bt601": MatrixCoefficients.SMPTE170M,
    "bt2020nc": MatrixCoefficients.BT2020NC,
    "smpte240m": MatrixCoefficients.SMPTE240M,
    "fcc": MatrixCoefficients.FCC,
    "smpte2085": MatrixCoefficients.BT2020NC,
}
# Planes Y, Cg and Co, taken for G, B and R, to R'G'B'.
FROM_YCGCO = (
    "format=yuv444p,mergeplanes=0x000102:gbrp,"
    r"geq=r='clip(g(X\,Y)-b(X\,Y)+r(X\,Y)\,0\,255)':g='clip(g(X\,Y)+b(X\,Y)-128\,0\,255)'"
    r":b='clip(g(X\,Y)-b(X\,Y)-r(X\,Y)+256\,0\,255)',"
)
JPEG_QUALITY = 3  # ffmpeg's qscale: 2 is the best, 31 the worst


def thumbnail_size(width: int, height: int, sample_aspect_ratio: Fraction) -> tuple[int, int]:
    """Width and height in square pixels, in the displayed proportions; at most MAX_SIDE, and never enlarged."""
    # Non-square pixels are made square by reducing one side, never by enlarging the other.
    shown_width = width * sample_aspect_ratio if sample_aspect_ratio < 1 else Fraction(width)
    shown_height = height / sample_aspect_ratio if sample_aspect_ratio > 1 else Fraction(height)
    factor = min(Fraction(1), MAX_SIDE / max(shown_width, shown_height))
    return max(1, round(shown_width * factor)), max(1, round(shown_height * factor))


def make_thumbnail(
    runner: FfmpegRunner,
    video: Path,
    destination: Path,
    *,
    render: RenderPlan,
    segments: Sequence[SegmentPlan],
    cancelled: Callable[[], bool],
) -> None:
    """Write the frame at a tenth of the output's duration to `destination`. Raises FfmpegError.

    Colours are converted to full-range BT.601, which JPEG defines.
    """
    tick = render.written_tick(render.offset_ticks + _frame_at(segments, render.total_ticks * POSITION))
    width, height = thumbnail_size(render.target.width, render.target.height, render.sample_aspect_ratio)
    seek = seconds_up(Fraction(tick, render.written_timescale))
    chain = (
        f"settb=1/{render.written_timescale},trim=start_pts={tick}:end_pts={tick + 1},"
        f"setparams=color_primaries={UNSPECIFIED}:color_trc={UNSPECIFIED}"
        f":colorspace={SCALE_MATRICES.get(render.target.matrix, UNSPECIFIED):d},"
        f"scale={width}:{height}:flags={SCALE_FLAGS}:out_range=pc,"
    )
    if render.target.matrix == "ycgco":
        chain += FROM_YCGCO
    chain += f"scale=flags={SCALE_FLAGS}:out_color_matrix=bt601:out_range=pc,format=yuvj420p,setsar=1"
    source = runner.input(video, copyts=None, noaccurate_seek=None, seek_timestamp=1, ss=seek)
    stream = runner.output(
        source["v:0"],
        destination,
        vf=chain,
        fps_mode="passthrough",
        vcodec="mjpeg",
        color_range="pc",
        f="mjpeg",
        **{"q:v": JPEG_QUALITY, "frames:v": 1},
    )
    runner.run(stream, purpose="making the thumbnail", cancelled=cancelled)
    if destination.stat().st_size == 0:
        raise FfmpegError("The video program failed while making the thumbnail: there is no picture.")


def _frame_at(segments: Sequence[SegmentPlan], tick: Fraction) -> int:
    """The timestamp of the frame that is shown at `tick`."""
    shown = 0
    for segment in segments:
        if segment.start_tick > tick:
            break
        for at in segment.output_ticks():
            if segment.start_tick + at > tick:
                break
            shown = segment.start_tick + at
    return shown
