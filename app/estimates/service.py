"""The estimate of a render: its output, cost and time, and whether limits would refuse it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from sqlalchemy.orm import Session

from app.estimates.forecasts import DECIMALS, Forecast, Outlook, RenderWork, frames_around
from app.files.service import find_file
from app.platform.database import Database
from app.platform.errors import LimitExceeded, TooManyRequests
from app.platform.media.info import MediaInfo, VideoProperties
from app.platform.media.limits import check_input
from app.platform.media.rates import Retime
from app.renders import workload
from app.renders.options import RenderOptions
from app.renders.service import cost_in_gigapixels
from app.usage.allowances import Requester, check_file_quota, check_render_quota


@dataclass(frozen=True, kw_only=True)
class Times:
    """`expected_seconds`: with all present workers and nothing else to do. `wait_seconds`: the time of work
    before it, and of other users' turns."""

    expected_seconds: float
    wait_seconds: float
    measured_on: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """`input`, `output` and `cost` are None for a video too far over limits to be read to its end; `times`
    too without a measurement. `refusals` are the sentences that would refuse the render."""

    options: RenderOptions
    input: VideoProperties | None
    output: VideoProperties | None
    cost: float | None
    times: Times | None
    refusals: Sequence[str]


def estimate_unseen(options: RenderOptions, refusal: LimitExceeded) -> Estimate:
    """The estimate of an upload that was refused before it was fully probed."""
    return Estimate(
        options=options, input=None, output=None, cost=None, times=None, refusals=refusal.messages
    )


def estimate_upload(
    database: Database,
    forecast: Forecast,
    *,
    info: MediaInfo,
    size_bytes: int,
    options: RenderOptions,
    requester: Requester,
) -> Estimate:
    """The estimate of an upload that is not kept. Raises InvalidRequest if the options leave nothing of it."""
    outlook = forecast.outlook()
    with database.read() as session:
        refusals = [
            *_refused(partial(check_input, info, requester.allowance.media)),
            *_refused(partial(check_file_quota, session, requester, size_bytes=size_bytes, is_made=False)),
        ]
        return _estimate(
            session,
            info.video,
            begins_at=info.video_begins_at,
            options=options,
            requester=requester,
            outlook=outlook,
            refusals=refusals,
        )


def estimate_file(
    database: Database, forecast: Forecast, *, file_id: str, options: RenderOptions, requester: Requester
) -> Estimate:
    """The estimate of an uploaded file. Raises NotFound, and InvalidRequest if the options leave nothing of it."""
    outlook = forecast.outlook()
    with database.read() as session:
        file = find_file(session, file_id=file_id, user_id=requester.id)
        return _estimate(
            session,
            file.video,
            begins_at=file.video_begins_at or Fraction(0),
            options=options,
            requester=requester,
            outlook=outlook,
            refusals=[],
        )


def _estimate(
    session: Session,
    video: VideoProperties,
    *,
    begins_at: Fraction,
    options: RenderOptions,
    requester: Requester,
    outlook: Outlook,
    refusals: Sequence[str],
) -> Estimate:
    engine = options.engine
    pictures = options.pictures(video, begins_at=begins_at)
    output = options.output(pictures)
    cost = cost_in_gigapixels(output, engine=engine)
    too_much = _refused(partial(options.check_output, pictures, requester.allowance.media))
    no_room = _refused(partial(check_render_quota, session, requester, cost=cost, is_made=False))
    return Estimate(
        options=options,
        input=options.source(video, begins_at=begins_at),
        output=output,
        cost=cost,
        times=_times(session, pictures, output, options=options, user_id=requester.id, outlook=outlook),
        refusals=[*refusals, *too_much, *no_room],
    )


def _times(
    session: Session,
    pictures: VideoProperties,
    output: VideoProperties,
    *,
    options: RenderOptions,
    user_id: str,
    outlook: Outlook,
) -> Times | None:
    # As in the workload of queued renders: no frame goes through the network twice.
    frames = min(pictures.frames, output.frames) if options.retime is Retime.NEAREST else output.frames
    parts = outlook.cut.parts(
        seconds=pictures.duration_seconds,
        output_pixels=output.total_pixels,
        frames=output.frames,
    )
    frames += frames_around(parts, stabilise=options.stabilise, measures_quality=options.measures_quality)
    work = RenderWork.of(
        engine=options.engine.id,
        stabilise=options.stabilise,
        form=options.form,
        pixels=float(frames * pictures.width * pictures.height),
        output_pixels=output.total_pixels,
        parts=parts,
    )
    before = workload.work_before_another(session, user_id=user_id, priority=options.priority)
    time = outlook.time_of(work, user_id=user_id, before=before)
    if time is None:
        return None
    return Times(
        expected_seconds=round(time.alone, DECIMALS),
        wait_seconds=round(max(time.in_turn - time.alone, 0.0), DECIMALS),
        measured_on=outlook.devices[options.engine.id],
    )


def _refused(check: Callable[[], object]) -> Sequence[str]:
    """The sentences of the check's refusal; none if it passes."""
    try:
        check()
    except (LimitExceeded, TooManyRequests) as refusal:
        return refusal.messages
    return ()
