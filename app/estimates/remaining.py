"""The remaining work, in the time that one worker would take for it: a signal for scaling workers.

It falls as work is done, whatever the queues contain, and counts unprepared renders with their expected work.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.renders import workload
from app.renders.workload import Upscaling
from app.work.speeds import DeviceSpeed, measured_speeds

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
    pixels: dict[Upscaling, float] = defaultdict(float)
    for work in workload.work_by_user(session):
        pixels[work.upscaling] += work.pixels
    speeds = measured_speeds(session, within_seconds=REMEMBERED_SECONDS)
    unmeasured = [
        DeviceSpeed(device=UNMEASURED, engine=engine, pixels_per_second=UNMEASURED_PIXELS_PER_SECOND)
        for engine in sorted({kind.engine for kind in pixels} - {speed.engine for speed in speeds})
    ]
    return [
        RemainingWork(
            engine=speed.engine,
            device=speed.device,
            seconds=sum(
                pixels[Upscaling(speed.engine, stabilised)] / speed.pace(is_stabilised=stabilised)
                for stabilised in (False, True)
            ),
        )
        for speed in [*speeds, *unmeasured]
    ]
