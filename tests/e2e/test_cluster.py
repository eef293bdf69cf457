"""Two API processes, three workers, PostgreSQL, Redis and S3: what goes in through one comes out through the other."""

import json
import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import psycopg
import pytest

from tests.e2e.client import RegenClient
from tests.e2e.reading import decode, duration, probe, stream, timestamps
from tests.servers.broker import BrokerServer
from tests.servers.forked import ForkedServerProcess
from tests.servers.postgres import PostgresServer
from tests.servers.process import ServerProcess, wait_until
from tests.servers.s3 import S3Bucket, S3Server

CLIP = Path(__file__).parents[1] / "media" / "short" / "bunny-240x136-25fps.mp4"
START_SECONDS = 60
STOP_SECONDS = 30
URL_LIFETIME_SECONDS = 6


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The processes, and one client for each API process; both hold the same key."""

    clients: list[RegenClient]
    apis: dict[str, ServerProcess]
    database_url: str
    bucket: S3Bucket
    directory: Path


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: PostgresServer,
    postgres_template: str,
    s3_server: S3Server,
) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("cluster")
    database_url = postgres_server.create_database(template=postgres_template)
    bucket = S3Bucket(server=s3_server, name=s3_server.create_bucket())
    broker = BrokerServer(directory, password=secrets.token_hex())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REGEN_")}
    environment |= bucket.environment | {
        "REGEN_DATABASE_URL": database_url,
        "REGEN_BROKER_URL": broker.url,
        "REGEN_BROKER_PASSWORD": broker.password or "",
        "REGEN_SECRET_KEY": "a secret that every machine of this test knows",
        "REGEN_STAND_IN_NETWORK": "true",
        "REGEN_SEGMENT_SECONDS": "0.2",
        "REGEN_URL_LIFETIME_SECONDS": str(URL_LIFETIME_SECONDS),
        "REGEN_LOG_FORMAT": "json",
    }

    def start(name: str, *arguments: str) -> ServerProcess:
        # Every process is a machine of its own: nothing on disk is shared.
        (directory / name).mkdir()
        return ForkedServerProcess(
            [*arguments, "--data-dir", directory / name],
            log=directory / f"{name}.log",
            environment=environment,
        )

    with ExitStack() as stack:
        broker.start()
        stack.callback(broker.stop)
        # Side by side, as after a power cut: one makes the first key, neither gets into the other's way.
        apis = {
            name: start(
                name, "serve", "--no-worker", "--port", "0", "--ready-file", str(directory / f"{name}.json")
            )
            for name in ("api-1", "api-2")
        }
        workers = {
            name: start(name, "worker", "--queues", queues)
            for name, queues in (("reader", "cpu"), ("gpu-1", "gpu"), ("gpu-2", "gpu"))
        }
        for process in (*workers.values(), *apis.values()):
            stack.callback(process.stop)
        ready = {}
        for name, process in apis.items():
            file = directory / f"{name}.json"
            process.wait_until(file.exists, seconds=START_SECONDS, what=f"{name} is ready")
            ready[name] = json.loads(file.read_text())
        for name, process in workers.items():
            process.wait_until(
                lambda process=process: '"worker_ready"' in process.tail(),
                seconds=START_SECONDS,
                what=f"{name} is ready",
            )
        (key,) = [facts["key"] for facts in ready.values() if "key" in facts]
        headers = {"Authorization": f"Bearer {key}"}
        clients = [
            RegenClient(
                client=stack.enter_context(httpx.Client(base_url=facts["url"], headers=headers, timeout=60))
            )
            for facts in ready.values()
        ]
        yield Cluster(
            directory=directory, clients=clients, apis=apis, database_url=database_url, bucket=bucket
        )
        processes = {**workers, **apis}
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        wait_until(
            lambda: all(process.status is not None for process in processes.values()),
            seconds=STOP_SECONDS,
            what="every process ends",
        )
        for name, process in processes.items():
            assert process.status == os.EX_OK, f"{name}:\n{process.tail()}"


def test_a_cluster_renders_and_every_process_does_its_part(cluster: Cluster, tmp_path: Path) -> None:
    first, second = cluster.clients
    # In through the one, watched through the other.
    submitted = [
        (inward.submit(CLIP)["id"], outward) for inward, outward in ((first, second), (second, first))
    ]
    for render_id, outward in submitted:
        render = outward.wait(render_id)
        assert render["status"] == "completed", render
        assert render["outputFileURL"].startswith(cluster.bucket.server.endpoint_url)
        output = outward.download(render["outputFileURL"], tmp_path / f"{render_id}.mp4")
        _check(before=CLIP, after=output)
        picture = httpx.get(render["thumbnailURL"])
        assert picture.headers["content-type"] == "image/jpeg"
        assert httpx.get(render["inputFileURL"]).content == CLIP.read_bytes()

    with psycopg.connect(cluster.database_url) as connection:
        hands = {row[0] for row in connection.execute("SELECT DISTINCT worker FROM segments")}
        assert connection.execute("SELECT max(attempt) FROM segments").fetchone() == (1,)
    assert len(hands) == 2, "both GPU workers had a part in it"
    stored = cluster.bucket.keys()
    assert not [key for key in stored if "/segments/" in key]
    for name, client in zip(cluster.apis, cluster.clients, strict=True):
        assert not list((cluster.directory / name / "spool").iterdir())
        assert client.client.get("/readyz").status_code == 200


def test_signed_urls_end_to_the_second(cluster: Cluster) -> None:
    user = cluster.clients[0]
    render_id = user.submit(CLIP)["id"]
    url = user.get(render_id)["inputFileURL"]
    query = parse_qs(urlsplit(url).query)
    assert query["X-Amz-Expires"] == [str(URL_LIFETIME_SECONDS)]
    signed_at = datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    expires_at = signed_at + timedelta(seconds=URL_LIFETIME_SECONDS)

    statuses: list[tuple[datetime, datetime, int]] = []
    while datetime.now(UTC) < expires_at + timedelta(seconds=2):
        asked_at = datetime.now(UTC)
        status = httpx.get(url).status_code
        statuses.append((asked_at, datetime.now(UTC), status))
        time.sleep(0.1)
    before = [status for _asked_at, answered_at, status in statuses if answered_at < expires_at]
    after = [
        status for asked_at, _answered_at, status in statuses if asked_at > expires_at + timedelta(seconds=1)
    ]
    assert before and set(before) == {200}
    assert after and set(after) == {403}
    assert httpx.get(user.get(render_id)["inputFileURL"]).status_code == 200, "each poll signs afresh"


def _check(*, before: Path, after: Path) -> None:
    facts_before, facts_after = probe(before), probe(after)
    size = (stream(facts_before, "video")["width"], stream(facts_before, "video")["height"])
    assert (stream(facts_after, "video")["width"], stream(facts_after, "video")["height"]) == (
        4 * size[0],
        4 * size[1],
    )
    assert timestamps(facts_after, "video") == timestamps(facts_before, "video")
    assert duration(facts_after, "video") == duration(facts_before, "video")
    assert len(decode(after, width=size[0], height=size[1])) == len(timestamps(facts_before, "video"))
