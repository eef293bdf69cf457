"""The length of segments: by their amount of work, if the speed of the workers is known."""

from collections.abc import Sequence
from fractions import Fraction

from app.platform.database import Database
from app.platform.media.info import VideoProperties
from app.platform.media.rates import Retime
from app.platform.settings import Settings
from app.work.queries import Job
from app.work.speeds import DeviceSpeed, speeds_at_work
from app.work.worker_queries import SILENT_LEASES
from models.catalog import Engine

# For the fastest device: compared with it, a segment's claim, start and end are cheap.
SEGMENT_WORK_SECONDS = 10
# For the slowest device that may get the segment: the loss when a worker dies or gives it back.
LONGEST_WORK_SECONDS = 30
# Bounds what one segment keeps on a worker's disk.
MOST_STRETCH = 16
SEGMENTS_PER_WORKER = 2


def segment_stretch(
    database: Database, settings: Settings, job: Job, *, engine: Engine, source: VideoProperties
) -> int:
    """The factor, at least 1, for the settings' segment length and pixels for this video. 1 if an operator has set
    one of the two, or if no running worker's speed is known. Raises Unavailable during an outage of the database.
    """
    if {"segment_seconds", "segment_max_output_pixels"} & settings.model_fields_set:
        return 1
    with database.read() as session:
        speeds = speeds_at_work(session, silent_for=SILENT_LEASES * settings.lease_seconds)
    frame_pixels = source.width * source.height
    source = source.deinterlaced(job.deinterlace)
    shown_rate = job.target_fps or source.frame_rate
    upscaled_rate = min(source.frame_rate, shown_rate) if job.retime is Retime.NEAREST else shown_rate
    output = source.upscaled(scale=engine.scale, target_fps=None, size=job.size)
    by_pixels = settings.segment_max_output_pixels / (output.width * output.height * shown_rate)
    frames = max(Fraction(1), min(settings.segment_seconds, by_pixels) * upscaled_rate)
    return stretch_for(
        [speed for speed in speeds if speed.engine == engine.id],
        is_stabilised=job.stabilise > 0,
        segment_pixels=float(frames * frame_pixels),
        pixels=float(source.duration_seconds * upscaled_rate * frame_pixels),
    )


def stretch_for(
    speeds: Sequence[DeviceSpeed], *, segment_pixels: float, pixels: float, is_stabilised: bool = False
) -> int:
    """The stretch with which a segment is at most SEGMENT_WORK_SECONDS of the fastest device's work and
    LONGEST_WORK_SECONDS of the slowest's, and every worker has a share.

    It is at least 1, because shorter segments would cost bit rate. `segment_pixels` and `pixels` are input
    pixels, of a segment without stretch and of the video.
    """
    if not speeds:
        return 1
    paces = [speed.pace(is_stabilised=is_stabilised) for speed in speeds]
    by_work = min(SEGMENT_WORK_SECONDS * max(paces), LONGEST_WORK_SECONDS * min(paces)) / segment_pixels
    by_share = pixels / segment_pixels / SEGMENTS_PER_WORKER / sum(speed.workers for speed in speeds)
    return max(1, min(MOST_STRETCH, int(by_work), int(by_share)))
