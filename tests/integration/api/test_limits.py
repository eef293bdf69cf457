"""Limits on what a user, or a key, may send and have."""

import contextlib
import re
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.accounts import queries as account_queries
from app.accounts import service as account_service
from app.accounts.limits import Limits
from app.platform.secrets import Secrets
from app.work.ledger import WorkLedger
from tests.documentation.samples import text_of
from tests.servers.process import free_port, wait_until


@pytest.fixture
def limited(database, settings):
    """Sets limits of ann, or of her newest key, in place of those there were."""

    def set_limits(*, key: str | None = None, **limits: Any) -> None:
        with database.write() as session:
            row: Any
            if key is None:
                row = account_queries.list_keys(session, user_name="ann")[0][1]
            else:
                stored = account_service.authenticate(session, key=key, keys=Secrets.load(settings))
                row = account_service.get_key(session, key_id=stored.id)
            row.limits = Limits(**limits).model_dump(exclude_none=True)

    return set_limits


@pytest.fixture
def file_id(client, clip) -> str:
    with clip.open("rb") as content:
        return client.post("/v1/files", files={"file": content}).json()["file"]["id"]


def sentence(answer: httpx.Response) -> str:
    (error,) = answer.json()["errors"]
    return error["message"]


def test_requests_are_counted_for_users_and_keys_and_every_answer_says_so(client, key, limited, make_key):
    assert "RateLimit" not in client.get("/v1/engines").headers
    limited(requests="4/hour")
    limited(key=key, requests="3/hour")

    answers = [client.get(path) for path in ("/v1/engines", "/v1/files/nope", "/v1/files?limit=x")]
    assert [answer.status_code for answer in answers] == [200, 404, 400]
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {
        '"user";q=4;w=3600, "key";q=3;w=3600'
    }
    assert [answer.headers["RateLimit"] for answer in answers] == [
        f'"user";r={3 - number};t=3600, "key";r={2 - number};t=3600' for number in range(3)
    ]
    # Those of the page, which are of a user without limits for keys.
    shown = dict(line.split(": ", 1) for line in text_of("docs/limits.md", "RateLimit-Policy").splitlines())
    for name, value in shown.items():
        assert re.sub(r"\d+", "#", answers[0].headers[name].partition(", ")[0]) == re.sub(r"\d+", "#", value)
    refused = client.get("/v1/engines")
    assert refused.status_code == 429
    assert 3590 <= int(refused.headers["Retry-After"]) <= 3600
    assert '"key";r=0;' in refused.headers["RateLimit"]
    assert "RateLimit" not in client.get("/healthz").headers
    bob = client.get("/v1/engines", headers={"Authorization": f"Bearer {make_key('bob')}"})
    assert bob.status_code == 200 and "RateLimit" not in bob.headers


def test_api_processes_share_a_count_and_each_goes_on_alone_without_redis(serve, settings, key, clip):
    limit = {"rate_limit": "2/hour"}
    one, other = (serve(settings.model_copy(update=limit), key=key) for _ in range(2))
    statuses = [server.get("/v1/engines").status_code for server in (one, other, one, other)]
    assert statuses == [200, 200, 429, 429]

    away = settings.model_copy(update={**limit, "broker_url": f"redis://127.0.0.1:{free_port()}/0"})
    alone = serve(away, key=key)
    assert [alone.get("/v1/engines").status_code for _ in range(3)] == [200, 200, 429]


def test_uploads_are_refused_before_they_are_read_and_videos_by_their_size(client, key, limited, clip):
    size = clip.stat().st_size

    def send() -> httpx.Response:
        with clip.open("rb") as content:
            return client.post("/v1/upscale", files={"file": content})

    for limits, words in (
        ({"max_upload_bytes": size - 1}, "larger than the limit"),
        ({"max_input_pixels": 240 * 136 - 1}, "240 x 136"),
        ({"max_duration_seconds": 1}, "seconds or more"),
        ({"max_output_pixels": 960 * 544 - 1}, "960 x 544"),
        ({"max_output_frames": 49}, "50 frames"),
        ({"max_storage_bytes": size - 1}, "in storage"),
    ):
        limited(key=key, **limits)
        refused = send()
        assert (refused.status_code, words in sentence(refused)) == (413, True), refused.text
    # Nothing of the body is sent: what the header says is enough.
    limited(max_upload_bytes=1000)
    limited(key=key)
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=30) as connection:
        head = (
            "POST /v1/files HTTP/1.1",
            f"Host: {client.base_url.host}",
            f"Authorization: Bearer {key}",
            "Content-Type: multipart/form-data; boundary=x",
            f"Content-Length: {10**9}",
        )
        connection.sendall("\r\n".join([*head, "", ""]).encode())
        assert connection.recv(12) == b"HTTP/1.1 413"
    limited(max_upload_bytes=size, max_storage_bytes=size, max_output_frames=50)
    assert send().status_code == 200
    assert send().status_code == 413, "there is no room for two"


def test_uploads_on_their_way_count_against_the_limit_of_storage(client, make_key, limited, clip):
    """Sixty at once would hold sixty times the limit, each below it."""
    size = clip.stat().st_size
    limited(max_storage_bytes=4 * 1024**2)

    def head(size_bytes: int) -> bytes:
        lines = ("POST /v1/files HTTP/1.1", f"Host: {client.base_url.host}", f"Content-Length: {size_bytes}")
        key = f"Authorization: {client.headers['Authorization']}"
        return "\r\n".join([*lines, key, "Content-Type: multipart/form-data; boundary=x", "", ""]).encode()

    def send(**headers: str) -> httpx.Response:
        return client.post("/v1/files", files={"file": clip.read_bytes()}, headers=headers)

    with contextlib.ExitStack() as stack:
        statuses = []
        for _number in range(5):
            connection = socket.create_connection((client.base_url.host, client.base_url.port), timeout=30)
            stack.enter_context(connection)
            connection.sendall(head(2 * 1024**2) + b"--x\r\n")
            connection.settimeout(1 if len(statuses) < 2 else 30)
            try:
                statuses.append(connection.recv(12))
            except TimeoutError:
                statuses.append(b"")
        assert statuses == [b"", b""] + [b"HTTP/1.1 413"] * 3
        large = {"file": clip.read_bytes() + bytes(1024**2)}
        assert "storage limit leaves" in sentence(client.post("/v1/files", files=large))
        bob = {"Authorization": f"Bearer {make_key('bob')}"}
        assert client.post("/v1/files", files=large, headers=bob).status_code == 200

    limited(max_storage_bytes=size)
    wait_until(lambda: send(**{"Idempotency-Key": "once"}).status_code == 200)
    assert send(**{"Idempotency-Key": "once"}).status_code == 200, (
        "what it made is stored, and not made again"
    )


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """The path of a file without which `held_probe` waits, for half a minute at most."""
    return tmp_path / "gate"


@pytest.fixture
def held_probe(tmp_path: Path, gate: Path) -> Path:
    program = tmp_path / "ffprobe"
    program.write_text(
        "#!/bin/sh\n"
        f'for turn in $(seq 300); do [ -e "{gate}" ] && break; sleep 0.1; done\n'
        f'exec {shutil.which("ffprobe")} "$@"\n'
    )
    program.chmod(0o755)
    return program


def test_received_uploads_that_do_not_fit_are_refused_before_they_wait_to_be_examined(
    serve, settings, key, limited, ffmpeg, gate, held_probe
):
    """Their announced sizes are below the 1 MiB that is allowed for forms. What still arrives does not count."""
    content = ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x36:duration=0.2", "tiny.mp4").read_bytes()
    client = serve(settings.model_copy(update={"ffprobe": str(held_probe), "sandbox": "off"}), key=key)
    limited(max_storage_bytes=4 * len(content))

    def send(number: int) -> httpx.Response:
        path = "/v1/upscale" if number % 2 else "/v1/files"
        return client.post(path, files={"file": content})

    with (
        socket.create_connection((client.base_url.host, client.base_url.port), timeout=30) as receiving,
        ThreadPoolExecutor(12) as threads,
    ):
        lines = (
            "POST /v1/files HTTP/1.1",
            "Host: regen",
            f"Authorization: Bearer {key}",
            "Content-Length: 500000",
        )
        head = "\r\n".join([*lines, "Content-Type: multipart/form-data; boundary=x", "", "--x\r\n"])
        receiving.sendall(head.encode())
        sent = [threads.submit(send, number) for number in range(12)]
        try:
            wait_until(lambda: sum(one.done() for one in sent) >= 8, seconds=15, what="what does not fit")
        finally:
            gate.touch()
        answers = [one.result() for one in sent]
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [413] * 8
    for answer in answers:
        assert answer.is_success or "your uploads in progress would exceed the" in sentence(answer)
    limited(max_storage_bytes=5 * len(content))
    assert [send(0).status_code for _ in range(2)] == [200, 413], "what is stored counts once"


def test_queued_renders_and_cost(client, key, limited, file_id):
    limited(max_queued_renders=5)

    def post(_number: int) -> httpx.Response:
        return client.post("/v1/upscale", json={"file_id": file_id})

    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(post, range(20)))
    statuses = [answer.status_code for answer in answers]
    assert (statuses.count(200), statuses.count(429)) == (5, 15)
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert "5 renders are queued; at most 5 may be" in sentence(refused)
    assert int(refused.headers["Retry-After"]) > 0

    render = next(answer for answer in answers if answer.status_code == 200).json()["render"]
    assert client.post(f"/v1/renders/{render['id']}/cancel").status_code == 200
    limited(key=key, max_cost_per_month=4.5 * render["cost"])
    refused = post(0)
    assert refused.status_code == 429
    assert "allowed in a month" in sentence(refused)
    assert 0 < int(refused.headers["Retry-After"]) <= 31 * 24 * 3600
    limited(key=key, max_cost_per_month=5 * render["cost"])
    assert post(0).status_code == 200


def test_an_administrator_is_never_kept_from_lifting_their_own_limit(
    client, database, settings, key, limited
):
    limited(requests="1/hour")
    with database.write() as session:
        admin = account_service.create_key(
            session, user_name="ann", key_name="2", keys=Secrets.load(settings), scopes={"admin"}
        ).key
    limited(key=admin, requests="1/hour")
    headers = {"Authorization": f"Bearer {admin}"}
    user_id = client.get("/v1/admin/users", headers=headers).json()["users"][0]["id"]
    for _ in range(5):
        assert client.get("/v1/workers", headers=headers).status_code == 200
    assert [client.get("/v1/engines").status_code for _ in range(2)] == [200, 429]
    lifted = client.patch(f"/v1/admin/users/{user_id}", json={"limits": {"requests": None}}, headers=headers)
    assert (lifted.status_code, lifted.json()["user"]["limits"]) == (200, {})
    assert client.get("/v1/engines").status_code == 200


def test_a_users_renders_are_worked_on_in_their_numbers(client, database, file_id, settings):
    with database.write() as session:
        account_queries.list_keys(session, user_name="ann")[0][1].max_running_renders = 2
    for _ in range(4):
        client.post("/v1/upscale", json={"file_id": file_id}).raise_for_status()
    ledger = WorkLedger(database=database, worker="one", lease_seconds=30, max_attempts=3)
    assert [ledger.claim() is None for _ in range(3)] == [False, False, True]
    wait_until(
        lambda: client.get("/v1/usage").json()["usage"]["totals"]["runningRenders"] == 2,
        seconds=5,
        what="both are seen",
    )
