"""Writes fragmented MP4 (ISO/IEC 14496-12, 8.8) around samples that are already encoded: the boxes alone, no sample is
read or changed.

Decoding times are the sorted times at which the samples are shown, so that a fragment takes exactly its own stretch of
time whatever its encoder's delay was. As no sample may be shown before it is decoded, all of a track are shown a
constant delay later, which the init segment's edit list takes off again.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from app.platform.media.mp4_boxes import HEADER_BYTES, LONG_HEADER_BYTES
from app.platform.media.mp4_samples import Track

_MATRIX = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
# Language "und", five bits for each letter.
_UNDETERMINED = 0x55C4
# Sample flags (8.8.3.1): a sample that depends on no other; one that does, and is no place to start.
_SYNC, _NOT_SYNC = 0x02000000, 0x01010000
# Flags of a track fragment's header, and of a run: offset of the data; of each sample duration, size, flags and
# composition offset.
_BASE_IS_MOOF = 0x020000
_RUN_FLAGS = 0x000001 | 0x000100 | 0x000200 | 0x000400 | 0x000800
# Flags of a track header: enabled, in the movie and in its preview.
_SHOWN = 7
LARGEST_SHORT_BOX = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class Run:
    """Samples of one track in the order of decoding, the last of which is shown until `end`, in its ticks.

    `times`: when each is shown. `sync`: for each, whether decoding may start there. `track_id` and `delay` are those of
    the init segment, ids from 1.
    """

    track_id: int
    end: int
    delay: int = 0
    times: Sequence[int]
    sizes: Sequence[int]
    sync: Sequence[bool]


def init_segment(tracks: Sequence[tuple[Track, int]]) -> bytes:
    """The file's type and its movie without samples, of tracks with their delays. Their ids are 1, 2, ..."""
    movie = _full(
        b"mvhd",
        struct.pack(">IIIIIH10x", 0, 0, 1000, 0, 0x10000, 0x100)
        + _MATRIX
        + bytes(24)
        + struct.pack(">I", len(tracks) + 1),
    )
    traks = b"".join(_trak(track, track_id, delay) for track_id, (track, delay) in enumerate(tracks, 1))
    defaults = b"".join(
        _full(b"trex", struct.pack(">IIIII", track_id, 1, 0, 0, 0))
        for track_id, _track in enumerate(tracks, start=1)
    )
    kinds = b"iso6" + struct.pack(">I", 0) + b"iso6mp41"
    return _box(b"ftyp", kinds) + _box(b"moov", movie + traks + _box(b"mvex", defaults))


def fragment_header(sequence: int, runs: Sequence[Run]) -> bytes:
    """All of a fragment before its samples, which follow run by run."""
    payload = sum(sum(run.sizes) for run in runs)
    data_header = HEADER_BYTES if payload + HEADER_BYTES <= LARGEST_SHORT_BOX else LONG_HEADER_BYTES
    size = len(_moof(sequence, runs, 0))
    moof = _moof(sequence, runs, size + data_header)
    if data_header == HEADER_BYTES:
        return moof + struct.pack(">I4s", payload + HEADER_BYTES, b"mdat")
    return moof + struct.pack(">I4sQ", 1, b"mdat", payload + LONG_HEADER_BYTES)


def _moof(sequence: int, runs: Sequence[Run], data_start: int) -> bytes:
    parts = [_full(b"mfhd", struct.pack(">I", sequence))]
    for run in runs:
        parts.append(_traf(run, data_start))
        data_start += sum(run.sizes)
    return _box(b"moof", b"".join(parts))


def _traf(run: Run, data_start: int) -> bytes:
    decoded = _decoding_times(run)
    durations = [after - before for before, after in pairwise([*decoded, run.end])]
    samples = b"".join(
        struct.pack(">IIII", duration, size, _SYNC if is_sync else _NOT_SYNC, shown + run.delay - time)
        for duration, size, is_sync, shown, time in zip(
            durations, run.sizes, run.sync, run.times, decoded, strict=True
        )
    )
    header = _full(b"tfhd", struct.pack(">I", run.track_id), flags=_BASE_IS_MOOF)
    time = _full(b"tfdt", struct.pack(">Q", decoded[0]), version=1)
    run_box = _full(b"trun", struct.pack(">Ii", len(run.sizes), data_start) + samples, flags=_RUN_FLAGS)
    return _box(b"traf", header + time + run_box)


def _decoding_times(run: Run) -> list[int]:
    """In order, none after its sample is shown: where the delay is too short for that, some come earlier."""
    times = [min(time, shown + run.delay) for time, shown in zip(sorted(run.times), run.times, strict=True)]
    return list(accumulate(reversed(times), min))[::-1]


def _trak(track: Track, track_id: int, delay: int) -> bytes:
    media = _full(b"mdhd", struct.pack(">IIIIHH", 0, 0, track.timescale, 0, _UNDETERMINED, 0))
    handler = _full(b"hdlr", bytes(4) + track.handler + bytes(13))
    is_video = track.handler == b"vide"
    kind = _full(b"vmhd", bytes(8), flags=1) if is_video else _full(b"smhd", bytes(4))
    here = _box(b"dinf", _full(b"dref", struct.pack(">I", 1) + _full(b"url ", b"", flags=1)))
    tables = (
        track.description
        + _full(b"stts", bytes(4))
        + _full(b"stsc", bytes(4))
        + _full(b"stsz", bytes(8))
        + _full(b"stco", bytes(4))
    )
    information = _box(b"minf", kind + here + _box(b"stbl", tables))
    edits = b""
    if delay:
        edits = _box(b"edts", _full(b"elst", struct.pack(">IIiI", 1, 0, delay, 0x10000)))
    header = _box(b"tkhd", _track_header(track, track_id))
    return _box(b"trak", header + edits + _box(b"mdia", media + handler + information))


def _track_header(track: Track, track_id: int) -> bytes:
    """The track's own, with its picture's size and place, without times."""
    is_long = track.header[0]
    return struct.pack(">IIIIII", _SHOWN, 0, 0, track_id, 0, 0) + track.header[36 if is_long else 24 :]


def _full(kind: bytes, content: bytes, *, version: int = 0, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags) + content)


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", HEADER_BYTES + len(content), kind) + content
