"""What does one user's attack cost another? Each attack that once stopped a server, beside what it cost then.

    python -m bench.neighbours [--only 2,9]

A neighbour's request is timed alone and beside the attack, each the median of three. Everything is on this machine.
"""

import argparse
import re
import socket
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from bench.hostile_files import jumping_sound, long_title, make, many_chapters, single_key_frame
from bench.laptop import Laptop
from bench.process_facts import children_of, command_of, resident_bytes
from tests.servers.receiver import receiving

MIB = 1024**2
WAIT_SECONDS = 300.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.neighbours")
    parser.add_argument("--only", default="")
    chosen = [int(number) for number in parser.parse_args().only.split(",") if number]
    print("| # | attack | before | now |\n|---|---|---|---|", flush=True)
    for number, (attack, before, measure) in ROWS.items():
        if not chosen or number in chosen:
            with tempfile.TemporaryDirectory(prefix="regen-bench-") as directory:
                print(f"| {number} | {attack} | {before} | {measure(Path(directory))} |", flush=True)


def timed(work: Callable[[], Any], times: int = 3) -> float:
    seconds = []
    for _ in range(times):
        started = time.monotonic()
        work()
        seconds.append(time.monotonic() - started)
    return statistics.median(seconds)


@contextmanager
def attacking(attack: Callable[[], Any], at_once: int) -> Iterator[list[Any]]:
    """Runs `attack` over and over in so many threads. Gives what it returned or raised."""
    results: list[Any] = []
    ended = threading.Event()

    def go_on() -> None:
        while not ended.is_set():
            try:
                results.append(attack())
            except (OSError, httpx.HTTPError) as error:
                results.append(type(error).__name__)
                ended.wait(0.2)

    for _ in range(at_once):
        threading.Thread(target=go_on, daemon=True).start()
    time.sleep(3)
    try:
        yield results
    finally:
        ended.set()


def upload(client: httpx.Client, path: Path, route: str = "/v1/files") -> httpx.Response:
    return client.post(route, files={"file": (path.name, path.read_bytes())})


def rendered(client: httpx.Client, path: Path) -> str:
    """The status with which a render of the file ends, or that of a refusal."""
    answer = upload(client, path, "/v1/upscale")
    if answer.status_code != httpx.codes.OK:
        return str(answer.status_code)
    return ended_status(client, answer.json()["render"]["id"])


def ended_status(client: httpx.Client, render_id: str) -> str:
    ends_at = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < ends_at:
        status: str = client.get(f"/v1/renders/{render_id}").json()["render"]["status"]
        if status in ("completed", "failed"):
            return status
        time.sleep(0.1)
    return "unfinished"


def beside(alone: float, attacked: float, more: str = "") -> str:
    return f"neighbour {alone:.1f} s alone, {attacked:.1f} s beside it{more}"


def starving_renders(directory: Path) -> str:
    title, clip = long_title(directory, 140_000), make(directory / "clip.mp4")
    with Laptop(with_worker=True, stand_in_network="1") as server:
        neighbour, attacker = server.client(server.make_key("bob")), server.client()
        rendered(neighbour, clip)
        alone = timed(lambda: rendered(neighbour, clip))
        ids = [upload(attacker, title, "/v1/upscale").json()["render"]["id"] for _ in range(10)]
        attacked = timed(lambda: rendered(neighbour, clip), 1)
        ends = sorted({ended_status(attacker, one) for one in ids})
        return beside(alone, attacked, f"; the ten end as {', '.join(ends)}")


def slow_probes(directory: Path) -> str:
    chapters, clip = many_chapters(directory, 300_000), make(directory / "clip.mp4")
    with Laptop() as server:
        neighbour = server.client(server.make_key("bob"))
        alone = timed(lambda: upload(neighbour, clip))
        with (
            server.client() as attacker,
            attacking(lambda: upload(attacker, chapters).status_code, 8) as seen,
        ):
            attacked = timed(lambda: upload(neighbour, clip))
        return beside(alone, attacked, f"; the attacker's answers: {sorted(map(str, set(seen)))}")


def silent_connections(_directory: Path) -> str:
    with Laptop(open_files=256) as server, ExitStack() as stack:
        ask = lambda: httpx.get(f"{server.url}/healthz", timeout=60).raise_for_status()  # noqa: E731
        alone, logged = timed(ask), server.api.log.stat().st_size
        for _ in range(300):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
        attacked = timed(ask, 9)
        time.sleep(10)
        logged = server.api.log.stat().st_size - logged
        return beside(alone, attacked, f"; {logged / 1024:.0f} KiB of log")


def jumps(directory: Path) -> str:
    path = jumping_sound(directory, 6_000)
    with Laptop(with_worker=True, stand_in_network="1") as server, server.client() as client:
        most = [0]

        def watch() -> None:
            while server.api.status is None:
                programs = [one for one in children_of(server.api.pid) if command_of(one).startswith("ff")]
                for one in programs:
                    try:
                        most[0] = max(most[0], resident_bytes(one))
                    except (ProcessLookupError, FileNotFoundError):
                        continue
                time.sleep(0.05)

        threading.Thread(target=watch, daemon=True).start()
        rendered(client, make(directory / "clip.mp4"))
        started = time.monotonic()
        ended = rendered(client, path)
        seconds = time.monotonic() - started
        size = f"{path.stat().st_size / 1000:.0f} kB"
        return f"{size}: {ended} in {seconds:.1f} s, ffmpeg at most {most[0] / MIB:.0f} MiB"


def slow_fetches(directory: Path) -> str:
    clip = make(directory / "clip.mp4")
    with (
        Laptop(allow_file_urls="1", outbound_allowed_networks="127.0.0.0/8") as server,
        socket.create_server(("127.0.0.1", 0), backlog=200) as silent,
    ):
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.mp4"
        neighbour, attacker = server.client(server.make_key("bob")), server.client()
        alone = timed(lambda: complete(neighbour, clip))
        fetch = lambda: attacker.post("/v1/upscale", json={"file_url": url}).status_code  # noqa: E731
        with attacking(fetch, 30):
            attacked = timed(lambda: complete(neighbour, clip))
        return beside(alone, attacked)


def complete(client: httpx.Client, path: Path) -> None:
    content = path.read_bytes()
    asked = {"name": path.name, "size_bytes": len(content)}
    opened = client.post("/v1/uploads", json=asked).raise_for_status().json()["upload"]
    etag = httpx.put(opened["parts"][0]["url"], content=content, timeout=60).headers["ETag"]
    parts = {"parts": [{"number": 1, "etag": etag}]}
    client.post(f"/v1/uploads/{opened['id']}/complete", json=parts).raise_for_status()


def black_holes(_directory: Path) -> str:
    with (
        socket.create_server(("127.0.0.1", 0), backlog=500) as hole,
        receiving() as receiver,
        Laptop(outbound_allowed_networks="127.0.0.0/8") as server,
    ):
        neighbour = server.client(server.make_key("bob"))
        own = webhook(neighbour, f"http://127.0.0.1:{receiver.server.server_address[1]}/")
        alone = timed(lambda: deliver(neighbour, own, receiver.received))
        for user in ("eve", "mallory"):
            attacker = server.client(server.make_key(user))
            for number in range(20):
                made = webhook(attacker, f"http://127.0.0.1:{hole.getsockname()[1]}/{number}")
                while attacker.post(f"/v1/webhooks/{made}/test").is_success:
                    pass
        attacked = timed(lambda: deliver(neighbour, own, receiver.received))
        return beside(alone, attacked)


def webhook(client: httpx.Client, url: str) -> str:
    made: str = client.post("/v1/webhooks", json={"url": url}).raise_for_status().json()["webhook"]["id"]
    return made


def deliver(client: httpx.Client, webhook_id: str, received: list[Any]) -> None:
    had, ends_at = len(received), time.monotonic() + WAIT_SECONDS
    client.post(f"/v1/webhooks/{webhook_id}/test").raise_for_status()
    while len(received) == had and time.monotonic() < ends_at:
        time.sleep(0.02)


def quotas(directory: Path) -> str:
    clip = make(directory / "clip.mp4")
    size = 5 * MIB
    limits = {"max_storage_bytes_per_user": str(6 * MIB), "public_url": "https://regen.example.com"}
    with Laptop(**limits) as server, server.client() as client:  # type: ignore[arg-type]
        asked = {"name": "a.mp4", "size_bytes": size}
        part = client.post("/v1/uploads", json=asked).raise_for_status().json()["upload"]["parts"][0]
        url = part["url"].replace("https://regen.example.com", server.url)

        def slowly() -> Iterator[bytes]:
            for _ in range(size // MIB):
                yield bytes(MIB)
                time.sleep(1)

        def send() -> int:
            return httpx.put(
                url, content=slowly(), headers={"Content-Length": str(size)}, timeout=60
            ).status_code

        most = 0
        with attacking(send, 60):
            for _ in range(40):
                most = max(most, _stored(server.root / "data"))
                time.sleep(0.1)
        client.delete(client.get("/v1/uploads").json()["uploads"][0]["id"].join(("/v1/uploads/", "")))
        file_id = upload(client, clip).raise_for_status().json()["file"]["id"]
        statuses = [client.post("/v1/upscale", json={"file_id": file_id}).status_code for _ in range(150)]
        return f"at most {most / MIB:.0f} MiB; of 150 renders {statuses.count(200)} queued, then 429"


def _stored(directory: Path) -> int:
    total = 0
    for place in ("storage", "spool"):
        for path in (directory / place).rglob("*"):
            try:
                total += path.stat().st_size if path.is_file() else 0
            except FileNotFoundError:
                continue
    return total


def slow_readers(directory: Path) -> str:
    clip = make(directory / "clip.avi", "-c:v", "rawvideo", source="testsrc2=size=640x360:rate=25:duration=3")
    with Laptop(max_connections_per_peer="4000") as server, server.client() as client:
        file_id = upload(client, clip).raise_for_status().json()["file"]["id"]
        render = client.post("/v1/upscale", json={"file_id": file_id}).raise_for_status().json()["render"]
        url = client.get(f"/v1/renders/{render['id']}").json()["render"]["inputFileURL"]
        target = url.removeprefix(server.url)
        before, files = resident_bytes(server.api.pid), _open_files(server)
        with ExitStack() as readers:
            for _ in range(400):
                one = readers.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
                one.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            time.sleep(5)
            held, open_files = resident_bytes(server.api.pid), _open_files(server)
        time.sleep(3)
        return (
            f"{(held - before) / MIB:.0f} MiB more; open files {files}, {open_files} with them, "
            f"{_open_files(server)} once they have left"
        )


def _open_files(server: Laptop) -> int:
    return sum(1 for _ in Path(f"/proc/{server.api.pid}/fd").iterdir())


def long_previews(directory: Path) -> str:
    film, clip = single_key_frame(directory, 20), make(directory / "clip.mp4")
    with Laptop(with_worker=True, stand_in_network="1") as server:
        neighbour, attacker = server.client(server.make_key("bob")), server.client()
        own, theirs = (
            upload(who, path).json()["file"]["id"] for who, path in ((neighbour, clip), (attacker, film))
        )
        rendered(neighbour, clip)  # the worker is there
        look = lambda: preview(neighbour, own, 0.5)  # noqa: E731
        alone = timed(look)
        ends: list[str] = []
        film_alone = timed(lambda: ends.append(preview(attacker, theirs, 1190)), 1)
        started = Counter(_preview_events(server))
        with attacking(lambda: preview(attacker, theirs, 1190), 4):
            attacked = timed(look, 9)
        made = Counter(_preview_events(server)) - started
        of_film = made["preview_started"] - 9
        return beside(
            alone,
            attacked,
            f"; the film's take {film_alone:.1f} s alone ({ends[0]}) and were begun {of_film} times beside it, "
            f"gave way {made['preview_gave_way']} times and ended {made['preview_done'] - 9} times",
        )


def _preview_events(server: Laptop) -> list[str]:
    """The names of the log's lines about previews; each begun one has a line, and so has each end."""
    return re.findall(r"\bpreview_(?:started|gave_way|done|failed)\b", server.api.log.read_text())


def preview(client: httpx.Client, file_id: str, at_seconds: float) -> str:
    asked = {"file_id": file_id, "at_seconds": at_seconds}
    answer = client.post("/v1/previews", json=asked, headers={"Prefer": "wait=30"})
    if not answer.is_success:
        time.sleep(0.2)
        return str(answer.status_code)
    status: str = answer.json()["preview"]["status"]
    return status


ROWS: dict[int, tuple[str, str, Callable[[Path], str]]] = {
    1: ("ten renders of files with a title of 140,000 bytes", "neighbour over 300 s", starving_renders),
    2: ("eight uploads with 300,000 chapters, over and over", "neighbour 0.7 s, then 237 s", slow_probes),
    3: ("300 silent connections, 256 open files", "no answer; 110 MB of log a minute", silent_connections),
    4: ("sound that jumps by 6,000 s", "294 kB: 64 s, 3.1 GB", jumps),
    6: ("30 fetches of a silent server", "neighbour's completion: 503 after 30 s", slow_fetches),
    7: ("two users with 20 black holes each", "neighbour over 150 s", black_holes),
    8: ("60 at once send one part of 5 MiB; 1,000 renders", "321 MB; all queued in 25 s", quotas),
    9: ("400 readers that read nothing", "737 MB; files stay open", slow_readers),
    10: ("previews of a film of 20 minutes with one key frame", "neighbour 35 s", long_previews),
}

if __name__ == "__main__":
    main()
