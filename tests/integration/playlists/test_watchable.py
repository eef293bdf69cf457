"""A render that is watched while it renders, played by a ledger as its worker; what there is to watch is judged by
ffmpeg, from local files and from an S3 server."""

import shutil
from pathlib import Path

import pytest

from app.cleanup.service import CleanUp, RetentionRules
from app.platform.errors import Conflict, KeyNotFound, NotFound, PermanentError
from app.platform.storage.keys import output_key, segment_key, sound_key, thumbnail_key
from app.playlists.service import Fragment, Watchable, find_watchable, make_fragment, make_init
from app.playlists.stored_tracks import Place, StoredTracks, read_places
from app.renders.transitions import cancel_render, delete_render
from app.work.planning import PlannedSegment, playlist_values
from tests.integration.conftest import FACTS
from tests.integration.playlists.conftest import LENGTHS, RATE, Film, frames, make_film


class Watched:
    """One render, and what a worker does to it."""

    def __init__(self, database, storage, ledger, render, film: Film, tmp_path: Path) -> None:
        self.database, self.storage, self.ledger, self.film = database, storage, ledger, film
        self.id, self.user_id, self.directory = render.id, render.user_id, tmp_path
        self.tracks = StoredTracks(storage)
        self.sound_key = sound_key(self.id, attempt=1)

    def put(self, key: str, path: Path) -> str:
        shutil.copy(path, self.directory / "copy")
        self.storage.put_file(key, self.directory / "copy", content_type="video/mp4")
        return key

    def prepare(self, *, has_sound: bool = True, has_playlist: bool = True) -> None:
        claim = self.ledger.claim()
        if has_sound:
            self.put(self.sound_key, self.film.sound)
        playlist = playlist_values(self.film.times, self.sound_key if has_sound else None)
        segments = [PlannedSegment(frames=count, plan=f"number {count}") for count in LENGTHS]
        facts = {"source": FACTS, "output": FACTS, "cost": 1.0, "warnings": []}
        self.ledger.prepared(
            claim, plan="all", segments=segments, playlist=playlist if has_playlist else None, **facts
        )

    def render_segments(self, *positions: int) -> None:
        """Those of these positions are done, whichever are claimed first."""
        claims = [self.ledger.claim() for _ in LENGTHS]
        for claim in filter(None, claims):
            (segment,) = claim.segments
            if segment.position in positions:
                key = segment_key(self.id, position=segment.position, attempt=claim.attempt)
                self.put(key, self.film.segments[segment.position])
                self.ledger.segment_done(claim, storage_key=key)
            else:
                self.ledger.hand_back(claim)

    def finish(self, *, suffix: str = ".mp4", result: Path | None = None) -> None:
        claim = self.ledger.claim()
        video = self.put(output_key(self.id, attempt=1, suffix=suffix), result or self.film.result)
        picture = self.put(thumbnail_key(self.id, attempt=1), self.film.sound)
        facts = {"output": FACTS, "cost": 1.0, "warnings": []}
        self.ledger.finished(claim, output_key=video, thumbnail_key=picture, **facts)

    def cancel(self) -> None:
        with self.database.write() as session:
            cancel_render(session, render_id=self.id, user_id=self.user_id)

    def fail(self) -> None:
        """The next segment cannot be made, wherever."""
        self.ledger.failed(self.ledger.claim(), PermanentError("The video program refuses this frame."))

    def remove_segments(self) -> None:
        self.storage.delete_all([one.key for one in self.storage.list(f"renders/{self.id}/segments/")])

    def look(self, user_id: str | None = None) -> Watchable:
        with self.database.read_columns() as reader:
            return find_watchable(reader, render_id=self.id, user_id=user_id)

    def download(self, watchable: Watchable, *positions: int) -> Path:
        """The init segment and these fragments in one file, as players put them together."""
        with self.database.read_columns() as reader:
            parts = [make_init(reader, watchable, self.tracks)]
            parts += [make_fragment(reader, watchable, position, self.tracks) for position in positions]
        path = self.directory / "played.mp4"
        path.write_bytes(b"".join(map(self._content, parts)))
        return path

    def _content(self, part: Fragment) -> bytes:
        content = part.header + b"".join(read_places(self.storage, part.places))
        assert len(content) == part.size_bytes
        return content


@pytest.fixture
def watched(database, storage, make_ledger, add_render, film, tmp_path) -> Watched:
    return Watched(database, storage, make_ledger(), add_render(), film, tmp_path)


def times_of(rows: list[list[str]]) -> list[int]:
    return [int(time) for time, _hash in rows]


def test_what_is_finished_is_the_start_of_the_result(watched):
    watched.prepare()
    with pytest.raises(Conflict, match="Ask again"):
        watched.look()
    watched.render_segments(0, 2)
    growing = watched.look()
    assert (growing.listed, growing.is_ended) == (1, False), "the third one waits for the second"

    played = frames(watched.download(growing, 0))
    assert played == frames(watched.film.result)[: LENGTHS[0]]
    sound = times_of(frames(watched.download(growing, 0), track="a"))
    assert sound[0] == 0 and 0.8 < (sound[-1] + 21_333) / 1e6 < 0.83
    with pytest.raises(NotFound):
        watched.download(growing, 1)


def test_the_end_is_not_noticed(watched):
    watched.prepare()
    watched.render_segments(0, 1, 2)
    whole = watched.look()
    assert (whole.listed, whole.is_ended) == (3, True)
    before = frames(watched.download(whole, 0, 1, 2))
    watched.finish()
    watched.remove_segments()
    with pytest.raises(KeyNotFound):
        StoredTracks(watched.storage).of(segment_key(watched.id, position=0, attempt=1), b"vide")

    completed = watched.look()
    assert completed.playlist("q") == whole.playlist("q")
    path = watched.download(completed, 0, 1, 2)
    assert frames(path) == before == frames(watched.film.result)
    assert times_of(before) == [round(1e6 * number / RATE) for number in range(sum(LENGTHS))]
    assert len(frames(path, track="a")) == len(frames(watched.film.result, track="a"))
    # One may start anywhere.
    middle = [row for _time, row in frames(watched.film.result)][LENGTHS[0] : sum(LENGTHS[:2])]
    assert [row for _time, row in frames(watched.download(completed, 1))] == middle


@pytest.mark.slow
@pytest.mark.parametrize(
    "codec",
    [
        ("-c:v", "libx265", "-tag:v", "hvc1", "-x265-params", "log-level=none"),
        ("-c:v", "libvpx-vp9", "-deadline", "realtime"),
        ("-c:v", "libx264", "-bf", "0", "-g", "5"),
    ],
    ids=["hevc", "vp9", "h264-of-key-frames"],
)
def test_other_codecs(database, storage, make_ledger, add_render, tmp_path, codec):
    if not database.is_sqlite:
        pytest.skip("once is enough")
    film = make_film(tmp_path, codec=codec)
    watched = Watched(database, storage, make_ledger(), add_render(), film, tmp_path)
    watched.prepare(has_sound=False)
    watched.render_segments(0, 1, 2)
    assert frames(watched.download(watched.look(), 0, 1, 2)) == frames(film.result)
    watched.finish()
    assert frames(watched.download(watched.look(), 0, 1, 2)) == frames(film.result)


def test_a_result_without_fragments_leaves_the_segments_to_the_clean_up(watched):
    watched.prepare()
    watched.render_segments(0, 1, 2)
    watched.finish(suffix=".mkv")
    assert frames(watched.download(watched.look(), 0, 1, 2)) == frames(watched.film.result)
    clean_up(watched)
    with pytest.raises(NotFound, match="outputFileURL"):
        watched.look()


@pytest.mark.parametrize("end", [Watched.cancel, Watched.fail], ids=["canceled", "failed"])
def test_a_render_that_is_not_completed_ends_its_list(watched, end):
    watched.prepare()
    watched.render_segments(0, 1)
    assert not watched.look().is_ended
    end(watched)
    ended = watched.look()
    assert (ended.listed, ended.is_ended) == (2, True)
    assert len(frames(watched.download(ended, 0, 1))) == sum(LENGTHS[:2])
    clean_up(watched)
    with pytest.raises(NotFound, match="no longer here"):
        watched.look()
    assert list(watched.storage.list(f"renders/{watched.id}/")) == [], "nor is its sound"


def test_the_clean_up_keeps_what_belongs_to_a_result(watched):
    watched.prepare()
    watched.render_segments(0, 1, 2)
    watched.finish()
    clean_up(watched)
    assert frames(watched.download(watched.look(), 0, 1, 2), track="a")
    delete_render(watched.database, watched.storage, render_id=watched.id, user_id=watched.user_id)
    with pytest.raises(NotFound):
        watched.look()
    assert list(watched.storage.list(f"renders/{watched.id}/")) == []


def test_others_do_not_see_it(watched):
    watched.prepare()
    watched.render_segments(0)
    assert watched.look(watched.user_id).listed == 1
    for stranger in ("somebody", ""):
        with pytest.raises(NotFound):
            watched.look(stranger)


def test_a_render_without_times_has_no_list(watched):
    with pytest.raises(Conflict, match="Ask again"):
        watched.look()
    watched.prepare(has_sound=False, has_playlist=False)
    with pytest.raises(Conflict, match="There is no playlist"):
        watched.look()


def clean_up(watched: Watched) -> None:
    """As if a day had passed."""
    rules = RetentionRules(keep_files=None, keep_results=None, settled=-86_400, url_lifetime=-86_400)
    CleanUp(database=watched.database, storage=watched.storage, rules=rules).run()


def places(*runs: tuple[int, int]) -> list[Place]:
    return [Place("renders/one/file", offset, length) for offset, length in runs]


@pytest.mark.parametrize(
    "runs",
    [
        [(0, 10)],
        [(5, 7), (12, 8), (30, 1)],
        [(0, 1_048_570), (1_048_580, 20), (1_048_600, 2_000_000)],
        [(10, 5), (2_000_000, 5)],
        [(20, 5), (0, 5), (10, 100)],
        [(3_999_990, 10)],
    ],
)
def test_places_are_read_in_their_order(storage, tmp_path, runs: list[tuple[int, int]]):
    content = bytes(number * number % 251 for number in range(4_000_000))
    (tmp_path / "file").write_bytes(content)
    storage.put_file("renders/one/file", tmp_path / "file", content_type="video/mp4")
    expected = b"".join(content[offset : offset + length] for offset, length in runs)
    assert b"".join(read_places(storage, places(*runs))) == expected
