"""What one user does with a shared pool costs another next to nothing."""

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest

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
