"""The API on PostgreSQL: what SQLite takes and PostgreSQL does not, and outages under a running server."""

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import select

from app import migrations
from app.files.tables import File
from app.platform.database import Database
from app.platform.settings import Settings
from app.renders.tables import Render
from tests.servers.postgres import PostgresServer
from tests.servers.process import free_port, wait_until
from tests.servers.relay import Relay

pytestmark = pytest.mark.slow

PROMISED_SECONDS = 5


@pytest.fixture(scope="module")
def postgres():
    """A server of these tests' own, which they may stop as long as they start it again."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def template(postgres):
    """A database of that server at the newest migration, to make copies of."""
    url = postgres.create_database()
    database = Database(url)
    migrations.upgrade(database)
    database.close()
    return url


@pytest.fixture
def settings(tmp_path, postgres, template):
    return Settings(
        data_dir=tmp_path / "data",
        broker_url=f"redis://127.0.0.1:{free_port()}/0",  # nobody is woken here
        database_url=postgres.create_database(template=template),
        secret_key=SecretStr("a secret of these tests, which is none"),
    )


@pytest.fixture
def database(settings):
    database = Database.from_settings(settings)
    yield database
    database.close()


def test_uploads_and_renders(client, clip, database, postgres):
    name = "Ünïcode 🎬 " + "n" * 300 + ".mp4"
    with clip.open("rb") as body:
        answer = client.post("/v1/upscale", files={"file": (name, body)}, data={"target_fps": "30000/1001"})
    assert answer.status_code == 200, answer.text
    render = answer.json()["render"]
    assert client.get(f"/v1/renders/{render['id']}").json()["render"]["status"] == "queued"
    for strange in ("%00", "a%00b", "%ED%B3%BF", "%D9%A1", "x" * 500):
        assert client.get(f"/v1/renders/{strange}").status_code == 404
        assert client.get(f"/v1/files/{strange}").status_code == 404
    for strange in ("a\0b", "\udcff"):
        as_json = {
            "content": json.dumps({"file_id": strange}),
            "headers": {"Content-Type": "application/json"},
        }
        assert client.post("/v1/upscale", **as_json).status_code == 404

    with postgres.administration() as connection:
        busy = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'regen' AND state <> 'idle'"
        assert connection.execute(busy).fetchone() == (0,)

    answer = client.post("/v1/upscale", json={"file_id": render["fileId"], "engine": "regen-4x"})
    assert answer.status_code == 200, answer.text
    with database.read() as session:
        rates = session.scalars(select(Render.target_fps).order_by(Render.created_at)).all()
        assert rates == [Fraction(30000, 1001), None]
        assert session.scalars(select(File.name)).one().startswith("Ünïcode 🎬 nnn")


@contextmanager
def outage(postgres: PostgresServer) -> Iterator[None]:
    postgres.kill()
    try:
        yield
    finally:
        postgres.start()


@pytest.fixture
def render(client, clip):
    with clip.open("rb") as body:
        return client.post("/v1/upscale", files={"file": ("clip.mp4", body)}).json()["render"]


def assert_unavailable(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.json()["errors"] == [{"message": "The database cannot be reached just now."}]
    assert int(answer.headers["Retry-After"]) > 0


def test_readers_outlast_an_outage_and_writers_are_told_at_once(
    client, clip, render, postgres, database, spool_files, stored_files
):
    headers = dict(client.headers)
    stop, answers = threading.Event(), []

    def poll(path: str) -> None:
        with httpx.Client(base_url=client.base_url, headers=headers, timeout=60) as reader:
            while not stop.is_set():
                began = time.monotonic()
                status = reader.get(path).status_code
                answers.append((began, time.monotonic(), status))
                stop.wait(0.05)

    paths = (f"/v1/renders/{render['id']}", f"/renders/{render['id']}", f"/v1/files/{render['fileId']}")
    pollers = [threading.Thread(target=poll, args=(path,)) for path in paths]
    for poller in pollers:
        poller.start()
    try:
        wait_until(lambda: len(answers) > 10, seconds=20, what="they poll")
        stored = stored_files()
        assert client.get("/readyz").status_code == 200
        with outage(postgres):
            with clip.open("rb") as body:
                writes = [client.post("/v1/upscale", files={"file": ("clip.mp4", body)})]
            writes += [
                client.post("/v1/upscale", json={"file_id": render["fileId"]}),
                client.post(f"/v1/renders/{render['id']}/cancel"),
                client.delete(f"/v1/renders/{render['id']}"),
            ]
            for answer in writes:
                assert_unavailable(answer)
                assert answer.elapsed.total_seconds() < PROMISED_SECONDS
            for path in ("/healthz", "/readyz", "/metrics"):
                assert client.get(path).elapsed.total_seconds() < PROMISED_SECONDS
            assert client.get("/healthz").status_code == 200
            assert client.get("/readyz").status_code == 200
            wait_until(
                lambda: client.get("/readyz?parts").json()["parts"]["database"] == "failed",
                seconds=20,
                what="what it stands on is told to be away",
            )
            before_back = time.monotonic()
        back_at = time.monotonic()
        wait_until(
            lambda: sum(began > back_at for began, _ended, _status in answers) > 10,
            seconds=30,
            what="they are answered again",
        )
    finally:
        stop.set()
        for poller in pollers:
            poller.join(90)
    assert {status for _began, _ended, status in answers} == {200}
    waited = [answer for answer in answers if answer[0] < before_back and answer[1] > before_back]
    assert len(waited) == len(paths), "each had a read under way all through the outage"
    assert spool_files() == [] and stored_files() == stored
    with database.read() as session:
        assert session.scalars(select(Render.status)).one() == "queued"


def test_readers_are_told_when_their_patience_ends(serve, settings, key, render, postgres):
    impatient = serve(settings.model_copy(update={"read_patience_seconds": 0.5}), key=key)
    with outage(postgres):
        assert_unavailable(impatient.get(f"/v1/renders/{render['id']}"))
    assert impatient.get(f"/v1/renders/{render['id']}").status_code == 200


def test_a_reader_who_leaves_is_not_waited_for(serve, settings, key, render, postgres):
    patient = serve(settings.model_copy(update={"read_patience_seconds": 600.0}), key=key)

    def in_progress() -> float:
        found = re.search(r"^regen_http_requests_in_progress (.+)$", patient.get("/metrics").text, re.M)
        assert found is not None
        return float(found[1])

    with outage(postgres):
        with contextlib.suppress(httpx.ReadTimeout):
            answer = patient.get(f"/v1/renders/{render['id']}", timeout=1)
            raise AssertionError(f"not waited for: {answer.status_code}")
        wait_until(lambda: in_progress() == 1, seconds=20, what="only the question itself is in progress")


def test_a_database_that_hangs_holds_up_nobody_for_long(serve, settings, key, render, postgres):
    relay = Relay(postgres.port)
    url = settings.database_url.replace(f":{postgres.port}/", f":{relay.port}/")
    client = serve(settings.model_copy(update={"database_url": url}), key=key)
    path = f"/v1/renders/{render['id']}"
    # More requests than the server has threads, from a client with a connection for each.
    more = httpx.Client(base_url=client.base_url, headers=client.headers, timeout=60, limits=httpx.Limits())
    with contextlib.closing(relay), more, ThreadPoolExecutor(60) as threads:
        assert client.get(path).status_code == 200
        relay.pause()
        try:
            reads = [threads.submit(more.get, path) for _ in range(10)]
            writes = [threads.submit(more.post, f"{path}/cancel") for _ in range(50)]
            for write in writes:
                assert_unavailable(write.result())
            assert max(write.result().elapsed.total_seconds() for write in writes) < PROMISED_SECONDS + 3
            late = client.post(f"{path}/cancel")
            assert_unavailable(late)
            assert late.elapsed.total_seconds() < PROMISED_SECONDS
            assert client.get("/healthz").elapsed.total_seconds() < PROMISED_SECONDS
            assert not any(read.done() for read in reads), "readers wait"
        finally:
            relay.resume()
        assert {read.result().status_code for read in reads} == {200}
        assert client.post(f"{path}/cancel").status_code == 200
