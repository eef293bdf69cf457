"""The tables of stored MP4 files, kept while they are in use, and reading of their samples."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

from app.platform.errors import FfmpegError, StorageError
from app.platform.media.mp4_samples import Track, read_tracks
from app.platform.storage.contract import Storage

# Of all files together: a film of two hours has 200,000, in 4 MB.
MOST_SAMPLES = 2_000_000
# Reading what lies between two places costs less than asking the storage again.
LONGEST_GAP_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Bytes of a stored object."""

    key: str
    offset: int
    length: int


class StoredTracks:
    """For any thread. An object never changes under its key."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._kept: OrderedDict[str, Sequence[Track]] = OrderedDict()
        self._lock = Lock()

    def of(self, key: str, handler: bytes) -> Track:
        """The object's first track of that handler. Raises KeyNotFound, StorageError and FfmpegError."""
        with self._lock:
            tracks = self._kept.get(key)
            if tracks is not None:
                self._kept.move_to_end(key)
        if tracks is None:
            tracks = self._read(key)
            with self._lock:
                self._kept[key] = tracks
                while len(self._kept) > 1 and _samples(self._kept.values()) > MOST_SAMPLES:
                    self._kept.popitem(last=False)
        found = next((track for track in tracks if track.handler == handler), None)
        if found is None:
            raise FfmpegError("The stored video is not as expected.", detail=f"no {handler!r} in {key}")
        return found

    def _read(self, key: str) -> Sequence[Track]:
        def read(offset: int, length: int | None) -> bytes:
            return b"".join(self._storage.read(key, offset=offset, length=length))

        return read_tracks(read)


def _samples(files: Iterable[Sequence[Track]]) -> int:
    return sum(len(track.sizes) for tracks in files for track in tracks)


def sample_places(key: str, track: Track, first: int, end: int) -> list[Place]:
    """Where the samples from `first` up to `end` are: places that touch are one."""
    places: list[Place] = []
    for offset, size in zip(track.offsets[first:end], track.sizes[first:end], strict=True):
        last = places[-1] if places else None
        if last is not None and last.offset + last.length == offset:
            places[-1] = Place(key, last.offset, last.length + size)
        else:
            places.append(Place(key, offset, size))
    return places


def read_places(storage: Storage, places: Sequence[Place]) -> Iterator[bytes]:
    """The bytes of all places, in their order. Raises KeyNotFound and StorageError, also for an object that is too
    short."""
    at = 0
    while at < len(places):
        end = at + 1
        while end < len(places) and _is_near(places[end - 1], places[end]):
            end += 1
        yield from _read_near(storage, places[at:end])
        at = end


def _is_near(before: Place, after: Place) -> bool:
    gap = after.offset - (before.offset + before.length)
    return before.key == after.key and 0 <= gap <= LONGEST_GAP_BYTES


def _read_near(storage: Storage, places: Sequence[Place]) -> Iterator[bytes]:
    """Of one object, in the order of their offsets, by one request."""
    at, end = places[0].offset, places[-1].offset + places[-1].length
    number = 0
    for chunk in storage.read(places[0].key, offset=at, length=end - at):
        until, kept = at + len(chunk), []
        while number < len(places) and places[number].offset < until:
            place = places[number]
            kept.append(chunk[max(0, place.offset - at) : place.offset + place.length - at])
            if place.offset + place.length > until:
                break
            number += 1
        if kept:
            yield b"".join(kept)
        at = until
    if at != end:
        raise StorageError("The stored file could not be read.", detail=f"it ends at {at:,}, not at {end:,}")
