"""What there is to watch of a render: its playlist, and the fragments that the playlist names.

A fragment is made at each request from encoded samples that are stored anyway: before the render is completed from
those of its segment's file, afterwards from the same stretch of the result. Both are the same fragment at the same
address, so that a player need not notice the end. Where no fragments can be made of the result (Matroska and WebM),
the segments stay until the clean-up.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import PurePath

from app.platform.database import ColumnReader
from app.platform.errors import Conflict, FfmpegError, NotFound
from app.platform.media.containers import ISO_SUFFIXES
from app.platform.media.fragments import Run, fragment_header, init_segment
from app.platform.media.mp4_samples import Track
from app.platform.media.segment_times import SegmentTimes
from app.playlists import queries as playlist_queries
from app.playlists.hls import media_playlist
from app.playlists.queries import WatchedRender
from app.playlists.stored_tracks import Place, StoredTracks, sample_places
from app.renders.service import NO_RENDER
from app.renders.statuses import RenderStatus

VIDEO, SOUND = b"vide", b"soun"
VIDEO_ID, SOUND_ID = 1, 2
NOT_YET = "No part of this render is finished yet. Ask again in a few seconds."
NOTHING_TO_WATCH = (
    "There is no playlist of this render: it is of a single segment, in a codec that playlists cannot hold (ProRes, "
    "FFV1, transparent VP9), or was made by an earlier version. Its result is at `outputFileURL`."
)
GONE = "The parts of this render are no longer here."
MADE_ANEW = "A playlist cannot hold this render's {}: its result is at `outputFileURL`."
NO_PART = "There is no such part of this render."


@dataclass(frozen=True, kw_only=True)
class Watchable:
    """A render that can be watched, up to the segment `listed`, which is not there yet; all there will ever be if it
    `is_ended`. `result_key`: of its result, if its fragments are made of that.
    """

    render: WatchedRender
    times: SegmentTimes
    listed: int
    is_ended: bool
    result_key: str | None

    def playlist(self, query: str) -> str:
        """`query`: of the addresses in it."""
        return media_playlist(self.times.durations, listed=self.listed, is_ended=self.is_ended, query=query)


@dataclass(frozen=True, kw_only=True)
class Fragment:
    """A part of a playlist: `header`, then the bytes of `places`."""

    header: bytes
    places: Sequence[Place]

    @property
    def size_bytes(self) -> int:
        return len(self.header) + sum(place.length for place in self.places)


def find_watchable(reader: ColumnReader, *, render_id: str, user_id: str | None = None) -> Watchable:
    """The render, of `user_id` if that is given.

    Raises NotFound for an unknown render and another user's, and where files are gone; Conflict while no part is there,
    and where there will be none.
    """
    render = playlist_queries.find_watched(reader, render_id=render_id)
    if render is None or user_id not in (None, render.user_id):
        raise NotFound(NO_RENDER)
    is_failed, is_completed = (
        render.status is status for status in (RenderStatus.FAILED, RenderStatus.COMPLETED)
    )
    if render.files_removed_at is not None or (is_failed and render.cleaned_at is not None):
        raise NotFound(GONE)
    if render.segment_times is None:
        is_read = render.status is RenderStatus.PROCESSING and render.unplanned_frames is None
        if is_failed:
            raise NotFound(GONE)
        raise Conflict(NOTHING_TO_WATCH if is_read or is_completed else NOT_YET)
    times = SegmentTimes.from_json(render.segment_times)
    result_key = _result_key(render) if is_completed else None
    listed = len(times.ends)
    if not is_completed:
        unfinished = playlist_queries.first_unfinished(reader, render_id=render.id)
        listed = listed if unfinished is None else unfinished
        if listed == 0:
            raise NotFound(GONE) if is_failed else Conflict(NOT_YET)
    is_ended = is_failed or listed == len(times.ends)
    return Watchable(render=render, times=times, listed=listed, is_ended=is_ended, result_key=result_key)


def _result_key(render: WatchedRender) -> str | None:
    """Of a completed render: None while its segments are still there."""
    key = render.output_key
    if key is not None and PurePath(key).suffix in ISO_SUFFIXES:
        return key
    if render.cleaned_at is not None:
        raise NotFound(MADE_ANEW.format("file format"))
    return None


def make_init(reader: ColumnReader, watchable: Watchable, tracks: StoredTracks) -> Fragment:
    """The init segment. Raises KeyNotFound if a file was removed meanwhile."""
    key = watchable.result_key or _segment_key(reader, watchable, 0)
    described = [(tracks.of(key, VIDEO), watchable.times.delay)]
    if watchable.render.sound_key is not None:
        described.append((tracks.of(watchable.render.sound_key, SOUND), 0))
    return Fragment(header=init_segment(described), places=())


def make_fragment(
    reader: ColumnReader, watchable: Watchable, position: int, tracks: StoredTracks
) -> Fragment:
    """The fragment of one segment. Raises NotFound if it is not there, KeyNotFound as `make_init` does."""
    if position >= watchable.listed:
        raise NotFound(NO_PART)
    times = watchable.times
    bounds = times.bounds(position)
    key = watchable.result_key or _segment_key(reader, watchable, position)
    track = tracks.of(key, VIDEO)
    if track.timescale != times.timescale:
        raise FfmpegError("The stored video is not as expected.", detail=f"{track.timescale} ticks a second")
    if watchable.result_key is None:
        first, end = 0, len(track.sizes)
    else:
        first, end = (_sample_shown_at(track, tick) for tick in bounds)
    begins = bounds[0] - track.times[first]
    sync = set(range(first, end) if track.sync is None else track.sync)
    runs = [
        Run(
            track_id=VIDEO_ID,
            end=bounds[1],
            delay=times.delay,
            times=[time + begins for time in track.times[first:end]],
            sizes=track.sizes[first:end],
            sync=[number in sync for number in range(first, end)],
        )
    ]
    places = sample_places(key, track, first, end)
    if (sound_key := watchable.render.sound_key) is not None:
        sound = tracks.of(sound_key, SOUND)
        first, end = (
            bisect_left(sound.times, ceil(Fraction(tick * sound.timescale, times.timescale)))
            for tick in bounds
        )
        if first < end:
            runs.append(
                Run(
                    track_id=SOUND_ID,
                    end=sound.times[end] if end < len(sound.times) else sound.end,
                    times=sound.times[first:end],
                    sizes=sound.sizes[first:end],
                    sync=[True] * (end - first),
                )
            )
            places += sample_places(sound_key, sound, first, end)
    return Fragment(header=fragment_header(position + 1, runs), places=places)


def _segment_key(reader: ColumnReader, watchable: Watchable, position: int) -> str:
    key = playlist_queries.segment_key(reader, render_id=watchable.render.id, position=position)
    if key is None:
        raise NotFound(NO_PART)
    return key


def _sample_shown_at(track: Track, tick: int) -> int:
    """The number of the sample of the result that is shown so long after the first, where a segment begins; at the
    end, the number of samples. Each segment begins with a key frame, and nothing after that is shown earlier.
    """
    starts = range(len(track.sizes)) if track.sync is None else track.sync
    at = bisect_left(starts, tick, key=lambda number: track.times[number] - track.times[0])
    return starts[at] if at < len(starts) else len(track.sizes)
