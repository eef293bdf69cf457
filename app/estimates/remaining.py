"""The remaining work, in the time that one worker would take for it: a signal for scaling workers.

It falls as work is done, whatever the queues contain, and counts unprepared renders with their expected work.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.renders import workload
from app.work.speeds import measured_speeds

# An engine that no worker has run recently counts at this speed, for this device: otherwise no first worker
# would be started.
UNMEASURED = "unmeasured"
UNMEASURED_PIXELS_PER_SECOND = 1_000_000.0
REMEMBERED_SECONDS = 30 * 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class RemainingWork:
    """All waiting and running upscaling with this engine, in `seconds` of one worker with such a device."""

    engine: str
    device: str
    seconds: float


def remaining_work(session: Session) -> Sequence[RemainingWork]:
    """For every engine with work, and every kind of device that has run it recently."""
    pixels: dict[str, float] = defaultdict(float)
    for work in workload.work_by_user(session):
        pixels[work.engine] += work.pixels
    speeds: dict[str, dict[str, float]] = defaultdict(dict)
    for engine, device, speed in measured_speeds(session, within_seconds=REMEMBERED_SECONDS):
        speeds[engine][device] = speed
    return [
        RemainingWork(engine=engine, device=device, seconds=pixels[engine] / speed)
        for engine in sorted({*pixels, *speeds})
        for device, speed in (speeds[engine] or {UNMEASURED: UNMEASURED_PIXELS_PER_SECOND}).items()
    ]
