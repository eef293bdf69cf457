"""Forecasts how long renders take: the work ahead of them, divided by the speed of the present workers.

Users take turns at segments, so all users with work share the workers evenly. Before a render that would keep
all workers busy for n seconds is done, every other user has n seconds of their own work done, or all of it,
if that is less: the render takes the sum of these. It never takes less than its own parallel parts need.
Reading a video and joining the result do not count.
"""

import math
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from fractions import Fraction
from typing import get_args

import structlog

from app.platform import clock
from app.platform.database import Database
from app.platform.errors import InvalidRequest, RegenError
from app.platform.media.codecs import CODECS, OutputFormat, Quality, VmafTarget, encoder_quality
from app.platform.media.picture_options import STABILISED_RADIUS
from app.platform.settings import Settings
from app.renders import workload
from app.renders.progress import RenderView
from app.renders.statuses import RenderStatus
from app.renders.workload import Upscaling, UserWork
from app.work.speeds import DeviceSpeed, SearchSpeed, searches_at_work, speeds_at_work
from app.work.worker_queries import SILENT_LEASES
from app.work.workers import count_workers

# The work of others changes slowly compared with the cost of adding it up.
FRESH_SECONDS = 2.0
# A worker that starts with the server needs as long to register.
QUEUED_SECONDS = 10.0
REST_FACTOR = 10.0
DECIMALS = 1
# Of outputs whose codec follows from the video, as far as a search for their quality counts.
USUAL_CODEC = "h264"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The greatest length of segments, in seconds of video and pixels of output."""

    seconds: Fraction
    output_pixels: int

    def parts(self, *, seconds: Fraction, output_pixels: int, frames: int) -> int:
        """The approximate number of segments for a video of that length and size."""
        by_size = Fraction(output_pixels, self.output_pixels)
        return min(math.ceil(max(seconds / self.seconds, by_size, Fraction(1))), frames)


def frames_around(parts: int, *, stabilise: int, measures_quality: bool) -> int:
    """The approximate number of frames that go through the network with a neighbouring segment as well."""
    return (parts - 1) * (2 * STABILISED_RADIUS + measures_quality) if stabilise else 0


@dataclass(frozen=True, kw_only=True)
class RenderWork:
    """What is left of one render: `pixels` of the input, in so many `parts` that can run at once, and those of the
    output, for which a target of VMAF is searched for with `searched_codec` (None: there is no target)."""

    upscaling: Upscaling
    pixels: float
    parts: int
    output_pixels: float
    searched_codec: str | None

    @classmethod
    def of(
        cls,
        *,
        engine: str,
        stabilise: int,
        form: OutputFormat,
        pixels: float,
        output_pixels: float,
        parts: int,
    ) -> "RenderWork":
        is_searched = isinstance(form.quality, VmafTarget)
        return cls(
            upscaling=Upscaling(engine, stabilise > 0),
            pixels=pixels,
            parts=max(parts, 1),
            output_pixels=output_pixels,
            searched_codec=(form.chosen_codec or USUAL_CODEC) if is_searched else None,
        )


@dataclass(frozen=True, kw_only=True)
class RenderTime:
    """Seconds until a render is done: `alone`, with all present workers and nothing else to do, and `in_turn`, after
    its user's earlier work, while other users have their turns."""

    alone: float
    in_turn: float


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """The workers and the work at one moment. `speeds` and `workers` are totals of all measured workers;
    `busy_seconds` is how long each user's work would keep all of them busy, `cut` how videos are cut."""

    cut: Cut
    speeds: Mapping[Upscaling, float] = field(default_factory=dict)
    searches: Mapping[str, SearchSpeed] = field(default_factory=dict)
    """Of all measured workers together, by codec; `pixels_per_second` is that of one."""
    workers: Mapping[str, int] = field(default_factory=dict)
    devices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    busy_seconds: Mapping[str, float] = field(default_factory=dict)
    no_worker: str | None = None
    """A sentence if no worker claims queued work."""
    lacked_codecs: frozenset[str] = frozenset()
    """Those that no present worker encodes."""
    lacks_vmaf: bool = False
    """Whether workers are present and none of them measures VMAF."""

    @classmethod
    def of(
        cls,
        cut: Cut,
        measured: Sequence[DeviceSpeed],
        work: Sequence[UserWork],
        searches: Sequence[SearchSpeed] = (),
    ) -> "Outlook":
        total: dict[Upscaling, float] = defaultdict(float)
        workers: dict[str, int] = defaultdict(int)
        devices: dict[str, list[str]] = defaultdict(list)
        for device in measured:
            for stabilised in (False, True):
                pace = device.pace(is_stabilised=stabilised)
                total[Upscaling(device.engine, stabilised)] += pace * device.workers
            workers[device.engine] += device.workers
            devices[device.engine].append(device.device)
        busy: dict[str, float] = defaultdict(float)
        for some in work:
            speed = total.get(some.upscaling)
            busy[some.user_id] += some.pixels / speed if speed else math.inf
        return cls(
            cut=cut,
            speeds=dict(total),
            searches={one.codec: _together(one.codec, searches) for one in searches},
            workers=dict(workers),
            devices=dict(devices),
            busy_seconds=dict(busy),
        )

    def time_of(
        self, render: RenderWork, *, user_id: str, before: Mapping[Upscaling, float]
    ) -> RenderTime | None:
        """The time of the user's render, after that work of theirs; None if a speed is unknown."""
        upscaling = self._upscaling_seconds(render)
        earlier = self._busy_seconds(before)
        if upscaling is None or earlier is None:
            return None
        alone = self._with_search(upscaling, render)
        # A search lengthens the render's turns as well.
        own = earlier + render.pixels / self.speeds[render.upscaling] * (alone / upscaling)
        others = (seconds for other, seconds in self.busy_seconds.items() if other != user_id)
        return RenderTime(alone=alone, in_turn=own + sum(min(own, seconds) for seconds in others))

    def _upscaling_seconds(self, render: RenderWork) -> float | None:
        speed = self.speeds.get(render.upscaling)
        if not speed:
            return None
        return render.pixels / (speed * min(1.0, render.parts / self.workers[render.upscaling.engine]))

    def _with_search(self, seconds: float, render: RenderWork) -> float:
        """The time with a search for the quality of each part. A worker searches while it upscales the next part: the
        slower of the two decides, and the other one is added once. The same `seconds` without a measurement."""
        measured = self.searches.get(render.searched_codec) if render.searched_codec else None
        if measured is None:
            return seconds
        at_once = min(render.parts, measured.workers)
        searching = render.output_pixels / (measured.pixels_per_second * at_once)
        in_a_row = max(render.parts / at_once, 1.0)
        return max(seconds, searching) + min(seconds, searching) / in_a_row

    def _busy_seconds(self, work: Mapping[Upscaling, float]) -> float | None:
        """How long this work keeps all workers busy; None if a speed is unknown."""
        busy = 0.0
        for upscaling, pixels in work.items():
            if pixels:
                speed = self.speeds.get(upscaling)
                if not speed:
                    return None
                busy += pixels / speed
        return busy


def _together(codec: str, searches: Sequence[SearchSpeed]) -> SearchSpeed:
    """The workers that search with the codec, at their mean speed."""
    own = [one for one in searches if one.codec == codec]
    workers = sum(one.workers for one in own)
    mean = sum(one.pixels_per_second * one.workers for one in own) / workers
    return SearchSpeed(codec=codec, pixels_per_second=mean, workers=workers)


class Forecast:
    """The process's outlook on workers and work, read again by a request once it is a few seconds old."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._lease_seconds = settings.lease_seconds
        self._silent_for = SILENT_LEASES * settings.lease_seconds
        self._cut = Cut(seconds=settings.segment_seconds, output_pixels=settings.segment_max_output_pixels)
        self._lock = threading.Lock()
        self._outlook: Outlook | None = None
        self._fresh_until = 0.0

    def eta_seconds(self, view: RenderView) -> float | None:
        """The time until the render is completed; None once it has ended, and if it is unknown."""
        render, work = view.render, view.work
        if work is None:
            return None
        if work.pixels == 0:
            return 0.0
        outlook = self.outlook()
        parts = self._cut.parts(
            seconds=render.input.duration_seconds,
            output_pixels=render.output.total_pixels,
            frames=render.output.frames,
        )
        before = {**work.until_then}
        before[Upscaling(render.engine, render.stabilise > 0)] -= work.pixels
        around = frames_around(parts, stabilise=render.stabilise, measures_quality=render.measures_quality)
        is_planned = work.parts is not None
        left = RenderWork.of(
            engine=render.engine,
            stabilise=render.stabilise,
            form=OutputFormat(
                codec=render.codec,
                container=render.container,
                quality=encoder_quality(render.output_quality),
            ),
            pixels=work.pixels + (0 if is_planned else around * render.input.width * render.input.height),
            output_pixels=render.output.total_pixels * (1.0 - view.progress),
            parts=work.parts or parts,
        )
        time = outlook.time_of(left, user_id=render.user_id, before=before)
        return None if time is None else round(max(time.alone, time.in_turn), DECIMALS)

    def warning(self, view: RenderView) -> str | None:
        """A sentence for a render that has been queued for a while and that no worker claims."""
        render = view.render
        if render.status is not RenderStatus.QUEUED:
            return None
        if clock.now() - render.created_at < timedelta(seconds=QUEUED_SECONDS):
            return None
        return self.outlook().no_worker

    def require_encoder(self, form: OutputFormat) -> None:
        """Raises InvalidRequest if workers are present and none of them encodes the codec, or can search for the
        quality."""
        if isinstance(form.quality, VmafTarget) and self.outlook().lacks_vmaf:
            raise InvalidRequest(
                f"No worker of this server can search for `output_quality` {form.quality} at present: their ffmpeg "
                f"lacks libvmaf. There are {', '.join(f'`{name}`' for name in get_args(Quality))}."
            )
        codec = form.chosen_codec
        if codec is not None and codec in (lacked := self.outlook().lacked_codecs):
            others = ", ".join(f"`{other}`" for other in CODECS if other not in lacked)
            raise InvalidRequest(
                f"No worker of this server can encode `codec` {codec} at present: their ffmpeg lacks "
                f"{CODECS[codec].encoder}. There are {others}."
            )

    def outlook(self) -> Outlook:
        """The outlook, read again once it is due. During an outage of the database everything in it is unknown."""
        # While another thread reads, the previous outlook is used.
        if self._lock.acquire(blocking=self._outlook is None):
            try:
                if self._outlook is None or time.monotonic() >= self._fresh_until:
                    started = time.monotonic()
                    self._outlook = self._read()
                    now = time.monotonic()
                    self._fresh_until = now + max(FRESH_SECONDS, REST_FACTOR * (now - started))
                return self._outlook
            finally:
                self._lock.release()
        return self._outlook or self.outlook()

    def forget(self) -> None:
        """Has the next request read the outlook again: workers or clock have changed at once."""
        with self._lock:
            self._outlook = None

    def _read(self) -> Outlook:
        try:
            with self._database.read() as session:
                measured = speeds_at_work(session, silent_for=self._silent_for)
                # Without speeds no time can be forecast, so the work need not be added up.
                searches = searches_at_work(session, silent_for=self._silent_for)
                work = workload.work_by_user(session) if measured else []
                outlook = Outlook.of(self._cut, measured, work, searches)
                workers = count_workers(session, lease_seconds=self._lease_seconds)
                return replace(
                    outlook,
                    no_worker=workers.missing,
                    lacked_codecs=workers.lacked_codecs,
                    lacks_vmaf=workers.lacks_vmaf,
                )
        except RegenError as error:
            log.warning("outlook_missing", error=error.message, detail=error.detail)
            return Outlook(cut=self._cut)
