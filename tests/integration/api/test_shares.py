"""What one user does with a shared pool costs another next to nothing."""

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path

import httpx
import pytest

from app.http.resources import MOST_FETCHES_PER_USER, SQLITE_TURNS_PER_USER
from app.usage import routes as usage_routes
from tests.servers.process import wait_until

# In a file: examining it takes for ever.
HOLD = b"HOLD THE PROBE"
MOST_TIMES_AS_LONG = 3.0
SLACK_SECONDS = 2.0


@pytest.fixture
def slow_probe(tmp_path: Path) -> Path:
    """An ffprobe that a file may stop."""
    program = tmp_path / "ffprobe"
    program.write_text(
        "#!/bin/sh\n"
        'for word; do path="${word#file:}"; done\n'
        f'grep -q "{HOLD.decode()}" "$path" && exec sleep 77\n'
        f'exec {shutil.which("ffprobe")} "$@"\n'
    )
    program.chmod(0o755)
    return program


def held_probes() -> int:
    children = subprocess.run(
        ["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=False
    )
    return children.stdout.count("sleep 77")


def test_files_that_take_for_ever_to_examine_hold_up_nobody_else(
    serve, settings, make_key, key, clip, slow_probe
) -> None:
    client = serve(settings.model_copy(update={"ffprobe": str(slow_probe), "sandbox": "off"}), key=key)
    other = {"Authorization": f"Bearer {make_key('bob')}"}

    def upload(headers: dict[str, str]) -> float:
        started = time.monotonic()
        with clip.open("rb") as file:
            answer = client.post("/v1/files", files={"file": file}, headers=headers)
        assert answer.status_code == 200, answer.text
        return time.monotonic() - started

    def attack() -> None:
        headers = dict(client.headers)
        with httpx.Client(base_url=client.base_url, headers=headers, timeout=httpx.Timeout(60)) as attacker:
            attackers.append(attacker)
            try:
                attacker.post("/v1/files", files={"file": ("a.mp4", HOLD)})
            except httpx.HTTPError:
                left.append(attacker)

    alone_seconds = upload(other)
    attackers: list[httpx.Client] = []
    left: list[httpx.Client] = []
    processors = os.cpu_count() or 1
    threads = [threading.Thread(target=attack) for _ in range(3 * processors)]
    for thread in threads:
        thread.start()
    wait_until(lambda: held_probes() == processors, what="the attacker's share is used up")
    assert upload(other) < MOST_TIMES_AS_LONG * alone_seconds + SLACK_SECONDS
    assert held_probes() == processors

    # Who leaves gives the slot back at once, and the next one in line finds that its client has left too.
    for attacker in attackers:
        for connection in attacker._transport._pool.connections:  # type: ignore[attr-defined]
            connection._connection._network_stream._sock.shutdown(2)
    for thread in threads:
        thread.join(30)
    assert len(left) == len(threads)
    wait_until(lambda: held_probes() == 0, what="what was begun for them is ended")


def seconds_of(work: Callable[[], httpx.Response]) -> float:
    started = time.monotonic()
    answer = work()
    assert answer.status_code == 200, answer.text
    return time.monotonic() - started


def test_servers_that_never_answer_hold_up_neither_fetching_nor_completing_of_others(
    serve, settings, make_key, key, clip
) -> None:
    """Both take from one pool."""
    networks = (ip_network("127.0.0.0/8"),)
    changes = {"allow_file_urls": True, "outbound_allowed_networks": networks}
    client = serve(settings.model_copy(update=changes), key=key)
    other = {"Authorization": f"Bearer {make_key('bob')}"}
    handler = partial(SimpleHTTPRequestHandler, directory=str(clip.parent))
    quick = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=quick.serve_forever, args=(0.05,), daemon=True).start()

    def fetch() -> httpx.Response:
        url = f"http://127.0.0.1:{quick.server_address[1]}/{clip.name}"
        return client.post("/v1/estimates", json={"file_url": url}, headers=other)

    def complete() -> httpx.Response:
        asked = {"name": "a.mp4", "size_bytes": clip.stat().st_size}
        upload = client.post("/v1/uploads", json=asked, headers=other).json()["upload"]
        sent = httpx.put(upload["parts"][0]["url"], content=clip.read_bytes(), timeout=60)
        parts = [{"number": 1, "etag": sent.headers["ETag"]}]
        return client.post(f"/v1/uploads/{upload['id']}/complete", json={"parts": parts}, headers=other)

    alone_seconds = [seconds_of(fetch), seconds_of(complete)]
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        silent.settimeout(30)
        asked = {"file_url": f"http://127.0.0.1:{silent.getsockname()[1]}/a.mp4"}

        def attack() -> None:
            with httpx.Client(base_url=client.base_url, headers=dict(client.headers), timeout=60) as attacker:
                statuses.append(attacker.post("/v1/estimates", json=asked).status_code)

        statuses: list[int] = []
        threads = [threading.Thread(target=attack) for _ in range(2 * MOST_FETCHES_PER_USER)]
        for thread in threads:
            thread.start()
        held = [silent.accept()[0] for _ in range(MOST_FETCHES_PER_USER)]
        for alone, work in zip(alone_seconds, (fetch, complete), strict=True):
            assert seconds_of(work) < MOST_TIMES_AS_LONG * alone + SLACK_SECONDS
        silent.settimeout(0.2)
        with pytest.raises(TimeoutError):
            held.append(silent.accept()[0])
        # They end, and the attacker's others have their turns.
        silent.settimeout(30)
        for _ in range(MOST_FETCHES_PER_USER):
            held.pop(0).close()
            held.append(silent.accept()[0])
        for one in held:
            one.close()
        for thread in threads:
            thread.join(30)
    quick.shutdown()
    quick.server_close()
    assert statuses == [400] * len(threads)


def test_one_users_requests_take_turns_in_threads(serve, settings, make_key, key, monkeypatch) -> None:
    """Another's request, and the user's own that wait for something, need none of these turns."""
    client = serve(settings, key=key)
    other = {"Authorization": f"Bearer {make_key('bob')}"}
    usage_of, go_on, began = usage_routes.usage_of, threading.Event(), []

    def held_usage_of(*arguments, user_id, **options):
        if user_id == attacker_id:
            began.append(user_id)
            assert go_on.wait(30)
        return usage_of(*arguments, user_id=user_id, **options)

    def attack() -> None:
        with httpx.Client(base_url=client.base_url, headers=dict(client.headers), timeout=60) as attacker:
            statuses.append(attacker.get("/v1/usage").status_code)

    seen = []
    monkeypatch.setattr(
        usage_routes,
        "usage_of",
        lambda *a, user_id, **o: seen.append(user_id) or usage_of(*a, user_id=user_id, **o),
    )
    client.get("/v1/usage").raise_for_status()
    [attacker_id] = seen
    monkeypatch.setattr(usage_routes, "usage_of", held_usage_of)
    statuses: list[int] = []
    threads = [threading.Thread(target=attack) for _ in range(3 * SQLITE_TURNS_PER_USER)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(began) == SQLITE_TURNS_PER_USER, what="the attacker's turns are taken")
        for headers, path, status in ((other, "/v1/usage", 200), ({}, "/v1/renders/none", 404)):
            assert client.get(path, headers=headers).status_code == status
        assert len(began) == SQLITE_TURNS_PER_USER
    finally:
        go_on.set()
        for thread in threads:
            thread.join(30)
    assert statuses == [200] * len(threads)
