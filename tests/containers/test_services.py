"""The compose file's services at work: from empty servers to a downloaded result.

The S3 server is the compose file's own, SeaweedFS, where its program is installed, else the one of the other tests.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from psycopg import sql

from tests.containers.compose import configuration
from tests.containers.processes import Services, seaweedfs_program
from tests.containers.test_secrets import make_secrets
from tests.servers.postgres import OWNER, PostgresServer
from tests.servers.process import ServerProcess, free_port, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Compose is installed for Linux only")

CLIP = Path(__file__).parents[1] / "media" / "short" / "bunny-240x136-25fps.mp4"
RENDER_SECONDS = 120.0
DATABASE = "regen"


@pytest.fixture(scope="module")
def services(
    request: pytest.FixtureRequest, postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Services]:
    """The servers that the project's own containers need, running; the database empty and no bucket made."""
    directory = tmp_path_factory.mktemp("services")
    secrets = directory / "secrets"
    assert make_secrets(secrets).returncode == 0
    ports = {5432: postgres_server.port}
    replace(secrets / "regen_database_password", postgres_server.password)
    has_seaweedfs = seaweedfs_program() is not None
    if not has_seaweedfs:
        s3_server = request.getfixturevalue("s3_server")
        ports[8333] = s3_server.port
        replace(secrets / "regen_s3_access_key", s3_server.access_key)
        replace(secrets / "regen_s3_secret_key", s3_server.secret_key)
    services = Services(directory, secrets=secrets, ports=ports)
    with postgres_server.administration() as connection:
        names = {"name": sql.Identifier(DATABASE), "owner": sql.Identifier(OWNER)}
        connection.execute(sql.SQL("CREATE DATABASE {name} OWNER {owner}").format(**names))
    try:
        services.start("redis")
        if has_seaweedfs:
            services.start("s3")
        yield services
    finally:
        services.kill_all()
        with postgres_server.administration() as connection:
            connection.execute(sql.SQL("DROP DATABASE {name} WITH (FORCE)").format(**names))


@pytest.fixture(scope="module")
def running(services: Services) -> dict[str, ServerProcess]:
    """The project's own services, started in the compose file's order. The network is a stand-in, for speed."""
    for name in ("migrate", "bucket"):
        done = services.run(name)
        assert done.returncode == 0, done.stdout + done.stderr
    return {
        "api": services.start("api"),
        "worker-cpu": services.start("worker-cpu", REGEN_STAND_IN_NETWORK="true"),
    }


def test_a_clip_goes_through(services: Services, running: dict[str, ServerProcess]) -> None:
    log = services.log("api").read_text()
    key = re.search(r"^API key .*: (regen_\S+)$", log, re.MULTILINE)
    assert key, log
    url = f"http://127.0.0.1:{services.port('api', 8000)}"
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key[1]}"}, timeout=60) as client:
        with CLIP.open("rb") as body:
            answer = client.post("/v1/upscale", files={"file": (CLIP.name, body)})
        assert answer.status_code == 200, answer.text
        render = answer.json()["render"]

        def has_ended() -> bool:
            nonlocal render
            assert running["worker-cpu"].status is None, running["worker-cpu"].tail()
            render = client.get(f"/v1/renders/{render['id']}").json()["render"]
            return render["status"] in ("completed", "failed")

        wait_until(has_ended, seconds=RENDER_SECONDS, what="the render ends")
    assert render["status"] == "completed", running["worker-cpu"].tail()
    assert (render["output"]["width"], render["output"]["height"]) == (960, 544)
    public = services.environment("api")["REGEN_S3_PUBLIC_ENDPOINT_URL"]
    for signed in (render["outputFileURL"], render["inputFileURL"], render["thumbnailURL"]):
        assert signed.startswith(f"{public}/")
    output = httpx.get(render["outputFileURL"])  # without a key, as anybody with the URL would
    assert output.status_code == 200 and output.content[4:8] == b"ftyp"
    assert httpx.get(render["inputFileURL"]).content == CLIP.read_bytes()


def test_only_prometheus_reads_the_metrics(services: Services, running: dict[str, ServerProcess]) -> None:
    url = f"http://127.0.0.1:{services.port('api', 8000)}/metrics"
    token = (services.secrets_of("api") / "regen_metrics_token").read_text()
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_logs_are_json_without_secrets(services: Services, running: dict[str, ServerProcess]) -> None:
    secrets = {path.read_text() for path in services.secrets_of("api").iterdir()}
    for name in running:
        text = services.log(name).read_text()
        assert not [secret for secret in secrets if secret in text]
        lines = [line for line in text.splitlines() if line.startswith("{")]
        assert lines and all(json.loads(line)["event"] for line in lines)


def test_the_store_refuses_strangers(services: Services, running: dict[str, ServerProcess]) -> None:
    environment = services.environment("api")
    bucket = f"{environment['REGEN_S3_ENDPOINT_URL']}/{environment['REGEN_S3_BUCKET']}"
    assert httpx.get(bucket).status_code == 403


@pytest.mark.parametrize("name", ["postgres", "redis", "s3"])
def test_health_checks_of_the_servers(name: str, services: Services) -> None:
    """The others' have passed, or they would not count as running."""
    if not services.can_check(name):
        pytest.skip(f"what {name}'s health check needs is not installed")
    assert services.is_healthy(name)


def test_the_store_is_of_the_version_of_the_image(services: Services) -> None:
    program = seaweedfs_program()
    if program is None:
        pytest.skip("SeaweedFS is not installed")
    image = configuration()["services"]["s3"]["image"]
    told = subprocess.run([program, "version"], capture_output=True, text=True, check=True).stdout
    assert image.partition("@")[0].rpartition(":")[2] in told.split()


@pytest.mark.parametrize("name", ["api", "worker-cpu", "worker-gpu", "redis", "postgres", "s3"])
def test_health_checks_fail_where_nobody_answers(name: str, services: Services, tmp_path: Path) -> None:
    nobody = {port: free_port() for port in (8000, 6379, 8333, 5432)}
    elsewhere = Services(tmp_path, secrets=services.secrets_of(name).parent / "secrets", ports=nobody)
    if not elsewhere.can_check(name):
        pytest.skip(f"what {name}'s health check needs is not installed")
    assert not elsewhere.is_healthy(name)


def test_a_gpu_worker_says_that_there_is_no_gpu(services: Services) -> None:
    ended = services.run("worker-gpu", CUDA_VISIBLE_DEVICES="")
    assert ended.returncode == os.EX_CONFIG
    assert "There is no GPU" in ended.stderr and "Traceback" not in ended.stderr


def test_migrating_again_changes_nothing(services: Services, running: dict[str, ServerProcess]) -> None:
    for name in ("migrate", "bucket"):
        assert services.run(name).returncode == 0


def test_sigterm_ends_them_within_their_grace(services: Services, running: dict[str, ServerProcess]) -> None:
    """The last one of the file: it ends them."""
    for name, process in running.items():
        began = time.monotonic()
        try:
            status = process.stop(with_signal=signal.SIGTERM, seconds=services.grace_seconds(name))
        except subprocess.TimeoutExpired:
            pytest.fail(f"{name} was still running after {time.monotonic() - began:.0f} s")
        assert status == 0, process.tail()


def replace(path: Path, content: str) -> None:
    """Another secret, for a server that has one already."""
    path.unlink()
    path.write_text(content)
