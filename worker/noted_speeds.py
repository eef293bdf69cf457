"""Notes how fast a segment was made, for the estimates of others."""

from app.platform.database import Database
from app.work.speeds import note_search, note_segment
from worker.device_turns import DeviceTurn
from worker.video.plan import RenderPlan, SegmentPlan


def note_speeds(
    database: Database,
    *,
    device: str,
    engine: str,
    render: RenderPlan,
    segment: SegmentPlan,
    turn: DeviceTurn,
    searched_at: float | None,
) -> None:
    """Note the worker's time for the segment's frames, and what came after its turn until `searched_at` (monotonic):
    the search for its quality and the encoding. None: it was not searched for. Never raises."""
    note_segment(
        database,
        device=device,
        engine=engine,
        pixels=render.source.width * render.source.height * segment.network_frames,
        seconds=turn.seconds,
        is_stabilised=render.stabilise > 0,
    )
    if searched_at is not None and turn.ended_at is not None:
        note_search(
            database,
            device=device,
            codec=render.codec,
            pixels=render.target.width * render.target.height * segment.output_frames,
            seconds=searched_at - turn.ended_at,
        )
