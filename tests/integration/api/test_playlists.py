"""GET /v1/renders/{id}/stream.m3u8 and what it names, over HTTP. What is in the parts: tests/integration/playlists."""

import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import urljoin, urlsplit

import httpx
import pytest

from app.http.resources import MOST_PLAYBACKS_PER_USER
from app.platform.secrets import Secrets
from app.platform.storage import open_storage
from app.platform.storage.keys import segment_key
from app.playlists import routes as playlist_routes
from app.work.ledger import WorkLedger
from app.work.planning import PlannedSegment, playlist_values
from tests.integration.api.test_shares import MOST_TIMES_AS_LONG, SLACK_SECONDS, seconds_of
from tests.integration.conftest import FACTS
from tests.integration.playlists.conftest import Film, film, frames  # noqa: F401 - a fixture

URI = re.compile(r'^(?:#EXT-X-MAP:URI="([^"]+)"|([^#].*))$', re.M)


@pytest.fixture
def ledger(database) -> WorkLedger:
    return WorkLedger(database=database, worker="one", lease_seconds=30, max_attempts=3)


@pytest.fixture
def begun(client, clip, ledger, settings, film: Film) -> str:  # noqa: F811
    """The id of a render with three segments, of which the first is done."""
    return begin(client, clip, ledger, settings, film)


def begin(client: httpx.Client, clip, ledger: WorkLedger, settings, film: Film) -> str:  # noqa: F811
    with clip.open("rb") as body:
        render_id = client.post("/v1/upscale", files={"file": (clip.name, body)}).json()["render"]["id"]
    segments = [PlannedSegment(frames=10, plan=f"number {number}") for number in range(3)]
    facts = {"source": FACTS, "output": FACTS, "cost": 1.0, "warnings": []}
    ledger.prepared(
        ledger.claim(), plan="all", segments=segments, playlist=playlist_values(film.times, None), **facts
    )
    assert client.get(f"/v1/renders/{render_id}/stream.m3u8").status_code == 409
    assert "streamURL" not in client.get(f"/v1/renders/{render_id}").json()["render"]
    do_segment(ledger, settings, film)
    return render_id


def do_segment(ledger: WorkLedger, settings, film: Film) -> None:  # noqa: F811
    claim = ledger.claim()
    (segment,) = claim.segments
    key = segment_key(claim.render_id, position=segment.position, attempt=claim.attempt)
    copy = settings.root / "copy"
    copy.write_bytes(film.segments[segment.position].read_bytes())
    open_storage(settings, Secrets.load(settings)).put_file(key, copy, content_type="video/mp4")
    ledger.segment_done(claim, storage_key=key)


def stream_url(client: httpx.Client, render_id: str) -> str:
    return client.get(f"/v1/renders/{render_id}").json()["render"]["streamURL"]


def addresses(url: str, playlist: httpx.Response) -> list[str]:
    return [urljoin(url, one or other) for one, other in URI.findall(playlist.text)]


def test_a_player_needs_no_key(client, stranger, begun, tmp_path):
    url = stream_url(client, begun)
    del client.headers["Authorization"]
    playlist = httpx.get(url)
    assert playlist.status_code == 200
    assert playlist.headers["Content-Type"] == "application/vnd.apple.mpegurl"
    assert playlist.headers["Cache-Control"] == "no-store"
    parts = [httpx.get(address) for address in addresses(url, playlist)]
    assert [part.status_code for part in parts] == [200, 200]
    assert {part.headers["Content-Type"] for part in parts} == {"video/mp4"}
    (tmp_path / "played.mp4").write_bytes(b"".join(part.content for part in parts))
    assert len(frames(tmp_path / "played.mp4")) == 20
    heads = [httpx.head(address) for address in addresses(url, playlist)]
    lengths = [(head.status_code, int(head.headers["Content-Length"]), head.content) for head in heads]
    assert lengths == [(200, len(part.content), b"") for part in parts]


def test_it_grows(client, begun, ledger, settings, film):  # noqa: F811
    path = f"/v1/renders/{begun}/stream.m3u8"
    first = client.get(path).text
    do_segment(ledger, settings, film)
    second = client.get(path).text
    assert second.startswith(first) and second.count("#EXTINF") == 2
    do_segment(ledger, settings, film)
    assert client.get(path).text.endswith("#EXT-X-ENDLIST\n")


def test_a_canceled_one_ends(client, begun):
    url = stream_url(client, begun)
    client.post(f"/v1/renders/{begun}/cancel")
    playlist = httpx.get(url)
    assert playlist.text.count("#EXTINF") == 1 and playlist.text.endswith("#EXT-X-ENDLIST\n")
    assert httpx.get(addresses(url, playlist)[1]).status_code == 200
    assert "streamURL" not in client.get(f"/v1/renders/{begun}").json()["render"]
    client.delete(f"/v1/renders/{begun}")
    for address in (url, *addresses(url, playlist)):
        assert httpx.get(address).status_code == 404


def test_it_is_of_its_user_alone(client, begun, make_key):
    client.headers["Authorization"] = f"Bearer {make_key('bob')}"
    assert client.get(f"/v1/renders/{begun}/stream.m3u8").status_code == 404
    del client.headers["Authorization"]
    assert client.get(f"/v1/renders/{begun}/stream.m3u8").status_code == 401


def test_links_are_checked(client, begun):
    url = stream_url(client, begun)
    part = addresses(url, httpx.get(url))[0]
    for address in (url, part):
        plain = address.partition("?")[0]
        for query in (
            "expires=1&signature=x",
            f"{urlsplit(address).query}x",
            urlsplit(address).query.replace("expires=1", "expires=2"),
            "signature=%FF%00",
        ):
            answer = httpx.get(f"{plain}?{query}")
            assert answer.status_code == 404, query
            assert answer.json()["errors"]
    query = urlsplit(part).query
    for name in ("3.m4s", "-1.m4s", "1.m4s", "x.m4s", "0.mp4", "0", f"{'9' * 20}.m4s", "²3.m4s"):
        answer = httpx.get(f"{url.partition('stream.m3u8')[0]}stream/{name}?{query}")
        assert answer.status_code == 404, name


def test_links_expire(client, begun, monkeypatch):
    url = stream_url(client, begun)
    part = addresses(url, httpx.get(url))[1]
    monkeypatch.setattr("app.platform.playlist_links.clock.now", lambda: datetime(2100, 1, 1, tzinfo=UTC))
    answers = [httpx.get(address) for address in (url, part)]
    assert [answer.status_code for answer in answers] == [403, 403]
    assert "expired" in answers[0].json()["errors"][0]["message"]


def test_parts_that_are_read_for_ever_hold_up_no_other_users_player(
    client,
    clip,
    begun,
    ledger,
    settings,
    film,  # noqa: F811
    make_key,
    monkeypatch,
):
    """The storage does not answer for the attacker's render."""
    hostile = addresses(url := stream_url(client, begun), httpx.get(url))[1]
    client.headers["Authorization"] = f"Bearer {make_key('bob')}"
    while ledger.claim():
        """The attacker's other segments are in hand."""
    own = begin(client, clip, ledger, settings, film)
    part = addresses(url := stream_url(client, own), httpx.get(url))[1]
    released, waiting = threading.Event(), threading.Semaphore(0)
    read_places = playlist_routes.read_places

    def read(storage, places) -> Iterator[bytes]:
        if any(begun in str(place) for place in places):
            waiting.release()
            released.wait(60)
        yield from read_places(storage, places)

    def play() -> None:
        assert httpx.get(hostile, timeout=90).status_code == 200

    alone_seconds = seconds_of(lambda: httpx.get(part))
    monkeypatch.setattr(playlist_routes, "read_places", read)
    players = [threading.Thread(target=play) for _ in range(3 * MOST_PLAYBACKS_PER_USER)]
    for player in players:
        player.start()
    try:
        for _ in range(MOST_PLAYBACKS_PER_USER):
            assert waiting.acquire(timeout=30)
        beside_seconds = seconds_of(lambda: httpx.get(part))
        assert beside_seconds < MOST_TIMES_AS_LONG * alone_seconds + SLACK_SECONDS
    finally:
        released.set()
        for player in players:
            player.join(60)
