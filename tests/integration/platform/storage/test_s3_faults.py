"""An S3 server that ends, stalls, refuses, or is spoilt on its way."""

import pytest

from app.platform.byte_sizes import MIB
from app.platform.errors import KeyNotFound, StorageError
from app.platform.storage.s3_connection import S3Options, S3Timeouts
from tests.servers.process import free_port
from tests.servers.relay import Cut, http_answer, relay_to

KEY = "renders/a/output-1.mp4"
CONTENT = bytes(range(256)) * (22 * 4096)  # 22 MiB: five parts
SLOW_DOWN = http_answer("503 Slow Down", code="SlowDown")

HASTY = S3Timeouts(connect_seconds=0.3, read_seconds=0.3, attempts=1)
SMALL_PARTS = S3Options(part_bytes=5 * MIB)
IMPATIENT = S3Options(
    part_bytes=5 * MIB,
    timeouts=S3Timeouts(connect_seconds=2, read_seconds=5, attempts=2),
    brief_timeouts=HASTY,
)


@pytest.fixture
def relay(s3_server):
    with relay_to(s3_server.port) as relay:
        yield relay


@pytest.fixture
def open_relayed(open_bucket, relay):
    """The bucket, as it is reached through the relay."""
    return lambda options: open_bucket(options=options, s3_endpoint_url=f"http://127.0.0.1:{relay.port}")


@pytest.fixture
def falling_server(s3_server):
    """A server that a test may kill."""
    yield s3_server
    s3_server.start()


class TestUploads:
    def test_a_broken_connection_is_mended(self, open_relayed, relay, make_file, tmp_path):
        relay.up = Cut(12 * MIB)
        storage = open_relayed(SMALL_PARTS)

        storage.put_file(KEY, make_file(CONTENT), content_type="video/mp4")

        assert relay.up.was_made
        storage.fetch(KEY, tmp_path / "fetched")
        assert (tmp_path / "fetched").read_bytes() == CONTENT

    def test_the_server_ends(self, open_relayed, open_bucket, relay, make_file, falling_server):
        storage = open_relayed(IMPATIENT)
        storage.put_file(KEY, make_file(b"old"), content_type="image/jpeg")
        new, fresh = make_file(CONTENT), make_file(CONTENT)
        relay.up = Cut(12 * MIB, then=falling_server.kill)

        with pytest.raises(StorageError) as error:
            storage.put_file(KEY, new, content_type="video/mp4")
        with pytest.raises(StorageError):
            storage.put_file("fresh", fresh, content_type="video/mp4")

        assert relay.up.was_made
        assert not isinstance(error.value, KeyNotFound)
        assert error.value.message == "The file could not be stored."
        assert new.read_bytes() == fresh.read_bytes() == CONTENT
        falling_server.start()
        found = open_bucket().stat(KEY)
        assert (found.size_bytes, found.content_type) == (3, "image/jpeg")
        assert [found.key for found in open_bucket().list("")] == [KEY]

    def test_what_was_altered_on_the_way_is_refused(
        self, open_relayed, relay, s3_bucket, s3_server, make_file
    ):
        path = make_file(b"a" * 6 * MIB)
        relay.up = lambda piece: piece.replace(b"a" * 1000, b"b" * 1000)
        storage = open_relayed(SMALL_PARTS)

        if s3_server.is_complete:
            with pytest.raises(StorageError) as error:
                storage.put_file(KEY, path, content_type="video/mp4")
            assert "XAmzContentSHA256Mismatch" in (error.value.detail or "")
            assert path.exists()
            assert s3_bucket.keys() == []
        else:
            storage.put_file(KEY, path, content_type="video/mp4")
        assert s3_bucket.incomplete_uploads() == []

    def test_a_server_that_must_slow_down_is_asked_again(self, open_relayed, relay, make_file):
        storage = open_relayed(S3Options())
        relay.answers = [SLOW_DOWN, SLOW_DOWN]

        storage.put_file(KEY, make_file(b"content"), content_type="video/mp4")

        assert relay.answers == []
        assert storage.stat(KEY).size_bytes == 7

    def test_not_for_ever(self, open_relayed, relay, make_file):
        storage = open_relayed(IMPATIENT)
        relay.answers = [SLOW_DOWN] * 100

        with pytest.raises(StorageError) as error:
            storage.put_file(KEY, make_file(b"content"), content_type="video/mp4")
        assert "SlowDown" in (error.value.detail or "")


class TestDownloads:
    @pytest.fixture
    def stored(self, open_bucket, make_file):
        open_bucket(options=SMALL_PARTS).put_file(KEY, make_file(CONTENT), content_type="video/mp4")

    def test_a_broken_connection_costs_a_part(self, stored, open_relayed, relay, tmp_path):
        relay.down = Cut(12 * MIB)

        open_relayed(SMALL_PARTS).fetch(KEY, tmp_path / "fetched")

        assert relay.down.was_made
        assert (tmp_path / "fetched").read_bytes() == CONTENT
        assert relay.passed_down < len(CONTENT) + 6 * MIB

    def test_a_single_request_that_breaks_off_leaves_nothing(self, stored, open_relayed, relay, tmp_path):
        relay.down = Cut(12 * MIB)
        storage = open_relayed(SMALL_PARTS)
        place = tmp_path / "place"
        place.mkdir()

        with pytest.raises(StorageError):
            storage.fetch(KEY, place / "fetched", in_parts=False)

        assert relay.down.was_made
        assert list(place.iterdir()) == []
        storage.fetch(KEY, place / "fetched", in_parts=False)
        assert (place / "fetched").read_bytes() == CONTENT

    def test_what_a_single_request_does_not_get_is_asked_for_again(
        self, stored, open_relayed, relay, tmp_path
    ):
        storage = open_relayed(SMALL_PARTS)
        relay.answers = [SLOW_DOWN, SLOW_DOWN]
        for number in range(3):
            storage.fetch(KEY, tmp_path / str(number), in_parts=False)
            assert (tmp_path / str(number)).read_bytes() == CONTENT
        assert relay.answers == []

        relay.cut()
        relay.restore()
        accepted = relay.accepted
        for number in range(3, 9):
            storage.fetch(KEY, tmp_path / str(number), in_parts=False)
        assert (tmp_path / "8").read_bytes() == CONTENT
        assert relay.accepted - accepted <= 2

    def test_the_server_ends(self, stored, open_relayed, relay, tmp_path, falling_server):
        relay.down = Cut(12 * MIB, then=falling_server.kill)
        place = tmp_path / "place"
        place.mkdir()

        with pytest.raises(StorageError) as error:
            open_relayed(IMPATIENT).fetch(KEY, place / "fetched")

        assert relay.down.was_made
        assert not isinstance(error.value, KeyNotFound)
        assert list(place.iterdir()) == []

    def test_a_stream_that_ends_early_is_no_whole_file(self, stored, open_relayed, relay):
        storage = open_relayed(IMPATIENT)
        chunks = storage.read(KEY)
        got = len(next(chunks))
        relay.down = Cut(0)

        with pytest.raises(StorageError):
            for chunk in chunks:
                got += len(chunk)
        assert 0 < got < len(CONTENT)


def calls(storage, path, place):
    return {
        "put_file": lambda: storage.put_file(KEY, path, content_type="video/mp4"),
        "fetch": lambda: storage.fetch(KEY, place),
        "fetch at once": lambda: storage.fetch(KEY, place, in_parts=False),
        "read": lambda: storage.read(KEY),
        "stat": lambda: storage.stat(KEY),
        "list": lambda: list(storage.list("")),
        "delete": lambda: storage.delete(KEY),
        "check": storage.check,
    }


@pytest.mark.parametrize("silence", ["it accepts and never answers", "nobody listens"])
def test_a_silent_server_is_not_waited_for(open_bucket, black_hole, make_file, tmp_path, silence):
    port = free_port() if silence == "nobody listens" else black_hole
    hasty = S3Options(timeouts=HASTY, brief_timeouts=HASTY)
    storage = open_bucket(options=hasty, s3_endpoint_url=f"http://127.0.0.1:{port}")
    path = make_file(b"content")

    for name, call in calls(storage, path, tmp_path / "fetched").items():
        with pytest.raises(StorageError) as error:
            call()
        assert not isinstance(error.value, KeyNotFound), name
        assert error.value.detail, name
    assert path.read_bytes() == b"content"
    assert not (tmp_path / "fetched").exists()
