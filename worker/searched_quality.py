"""What the searches for the quality of a render's segments found, together."""

from collections.abc import Sequence

from app.platform.media.codecs import VmafTarget
from app.work.queries import Job
from worker.video.plan import RenderPlan, SegmentPlan
from worker.video.quality_search import EncodedQuality, FoundQuality
from worker.video.vmaf import model_for


def searched_quality(job: Job, render: RenderPlan, segments: Sequence[SegmentPlan]) -> EncodedQuality | None:
    """Of all segments of the job; None if no target was asked for."""
    target = job.form.quality
    if not isinstance(target, VmafTarget):
        return None
    parts = [
        (segment.output_frames, FoundQuality(crf=done.crf, vmaf=done.vmaf))
        for segment, done in zip(segments, job.segments, strict=True)
        if done.crf is not None and done.vmaf is not None
    ]
    return EncodedQuality.of(target, parts, model=model_for(render.target)) if parts else None
