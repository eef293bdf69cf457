"""`regen serve --api-processes 2` on one machine: one server, whichever process answers."""

import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from array import array
from contextlib import ExitStack, contextmanager
from functools import partial
from urllib.parse import urlsplit

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.accounts import service as accounts
from app.accounts.limits import Limits
from app.accounts.scopes import Scope
from app.platform.database import Database
from app.platform.secrets import Secrets
from app.platform.settings import Settings
from app.serving.api_processes import new_run_directory
from app.serving.listener import listen
from tests.integration.cli.conftest import serving
from tests.servers.process import is_alive, wait_until
from tests.servers.receiver import Receiver

pytestmark = pytest.mark.slow

# 64 x 36, 5 frames.
SOURCE = ("-f", "lavfi", "-i", "testsrc=size=64x36:rate=25", "-frames:v", "5", "-pix_fmt", "yuv420p")
MOST_TIMES_AS_LONG = 3.0
SLACK_SECONDS = 0.1


class TwoProcesses:
    """The server, and requests that one of its processes answers: each has a connection of its own."""

    def __init__(self, server, clip):
        self.server = server
        self.clip = clip
        self.ready = server.wait_until_ready()
        self.key = self.ready["key"]
        self.client = httpx.Client(
            base_url=self.ready["url"],
            headers={"Authorization": f"Bearer {self.key}", "Connection": "close"},
            timeout=30,
        )

    @property
    def processes(self):
        return [pid for pid, command in self.server.descendants().items() if " api-process " in command]

    @contextmanager
    def only(self, process):
        """The others accept nothing meanwhile."""
        others = [pid for pid in self.processes if pid != process]
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)

    def at_each(self, ask):
        """The answers to `ask()` of each process, one after the other."""
        answers = []
        for process in self.processes:
            with self.only(process):
                answers.append(ask())
        return answers

    def make_key(self, user_name, **limits):
        settings = Settings(data_dir=self.server.data_directory)
        database = Database.from_settings(settings)
        try:
            with database.write() as session:
                user = accounts.create_user(session, name=user_name)
                made = accounts.create_key_of(
                    session,
                    user,
                    key_name="test",
                    keys=Secrets.load(settings),
                    scopes=[Scope.READ, Scope.WRITE],
                    limits=Limits(**limits),
                )
                return {"Authorization": f"Bearer {made.key}"}
        finally:
            database.close()

    def submit(self, **headers):
        files = {"file": ("clip.mp4", self.clip, "video/mp4")}
        answer = self.client.post("/v1/upscale", files=files, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()["render"]["id"]

    def status_of(self, render_id):
        return self.client.get(f"/v1/renders/{render_id}").json()["render"]["status"]

    def figures(self):
        families = text_string_to_metric_families(self.client.get("/metrics").text)
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in families
            for sample in family.samples
        }


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    environment = {"REGEN_STAND_IN_NETWORK": "1", "REGEN_OUTBOUND_ALLOWED_NETWORKS": "127.0.0.0/8"}
    directory = tmp_path_factory.mktemp("two")
    subprocess.run(["ffmpeg", "-v", "error", *SOURCE, directory / "clip.mp4"], check=True)
    with serving(directory) as serve:
        server = serve("--api-processes", "2", environment=environment)
        found = TwoProcesses(server, (directory / "clip.mp4").read_bytes())
        with found.client:
            yield found


def test_it_is_ready_when_each_process_answers_and_tells_once(two):
    assert len(two.processes) == 2
    assert two.ready["pid"] == two.server.process.pid
    assert [answer.status_code for answer in two.at_each(lambda: two.client.get("/v1/engines"))] == [200, 200]
    wait_until(lambda: "signed in once" in two.server.output)
    for told in (two.key, "Regen is serving", "signed in once"):
        assert two.server.output.count(told) == 1


def test_connections_that_are_kept_are_spread_over_the_processes(two):
    counts = Settings(data_dir=two.server.data_directory).run_dir / "connections"
    address = urlsplit(two.ready["url"])
    with ExitStack() as stack:
        for _number in range(12):
            kept = stack.enter_context(socket.create_connection((address.hostname, address.port), timeout=30))
            kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert kept.recv(1000).startswith(b"HTTP/1.1 200")
        spread = array("i", counts.read_bytes())
        # Six each, unless one of them was too busy to be waited for.
        assert sum(spread) == 12 and min(spread) >= 3
    wait_until(lambda: list(array("i", counts.read_bytes())) == [0, 0])


def test_the_link_signs_in_once_at_whichever_process(two):
    code = two.server.output.partition("/#/sign-in/")[2].split()[0]
    sign_in = partial(two.client.post, "/console/sign-in", json={"code": code})
    assert [answer.status_code for answer in two.at_each(sign_in)] == [200, 401]


def test_one_render_of_a_repeated_request_and_its_webhook_come_once(two):
    receiver = Receiver("127.0.0.1")
    threading.Thread(target=receiver.server.serve_forever, args=(0.05,), daemon=True).start()
    asked = {"url": receiver.url, "events": ["render.completed"]}
    two.client.post("/v1/webhooks", json=asked).raise_for_status()
    ids = two.at_each(lambda: two.submit(**{"Idempotency-Key": "once"}))
    together = []
    threads = [
        threading.Thread(target=lambda: together.append(two.submit(**{"Idempotency-Key": "once"})))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {*ids, *together} == {ids[0]}
    told = two.client.get(f"/v1/renders/{ids[0]}/events", headers={"Accept": "text/event-stream"}).text
    assert "event: end" in told
    assert two.at_each(lambda: two.status_of(ids[0])) == ["completed"] * 2
    wait_until(lambda: receiver.received, what="the webhook arrives")
    receiver.server.shutdown()
    receiver.server.server_close()
    assert len(receiver.received) == 1


def test_an_upload_goes_on_at_the_other_process(two):
    asked = {"name": "a.mp4", "size_bytes": len(two.clip)}
    opened, seen_later = two.at_each(lambda: two.client.post("/v1/uploads", json=asked).json()["upload"])
    put = partial(httpx.put, opened["parts"][0]["url"], content=two.clip, timeout=30)
    sent = two.at_each(lambda: put().headers["ETag"])
    parts = [{"number": 1, "etag": sent[1]}]
    done = two.at_each(
        lambda: two.client.post(f"/v1/uploads/{opened['id']}/complete", json={"parts": parts}).json()["file"][
            "id"
        ]
    )
    assert done[0] == done[1]
    assert two.client.delete(f"/v1/uploads/{seen_later['id']}").status_code == 204


def test_a_part_that_is_sent_again_at_the_other_process_has_one_writer(two):
    asked = {"name": "a.mp4", "size_bytes": len(two.clip)}
    upload = two.client.post("/v1/uploads", json=asked).json()["upload"]
    url, content = urlsplit(upload["parts"][0]["url"]), two.clip
    storage = Settings(data_dir=two.server.data_directory).storage_dir
    first, second = two.processes
    with ExitStack() as stack:
        with two.only(first):
            slow = stack.enter_context(socket.create_connection((url.hostname, url.port), timeout=30))
            head = f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
            slow.sendall(head.encode() + content[:500])
            wait_until(lambda: list(storage.rglob("last-*")), what="the first process has begun")
        with two.only(second):
            assert httpx.put(url.geturl(), content=content, timeout=30).status_code == 200
        slow.sendall(content[500:])
        assert slow.recv(1000).startswith(b"HTTP/1.1 409")
    assert two.client.delete(f"/v1/uploads/{upload['id']}").status_code == 204


def test_both_count_a_users_requests_together(two):
    headers = two.make_key("counted", requests="3/hour")
    ask = partial(two.client.get, "/v1/engines", headers=headers)
    statuses = [answer.status_code for _round in range(2) for answer in two.at_each(ask)]
    assert statuses == [200, 200, 200, 429]


def test_each_shows_the_metrics_of_both(two):
    name = ("regen_http_requests_total", "GET", "/v1/key", "200")
    before = two.figures().get(name, 0)
    two.at_each(lambda: two.client.get("/v1/key"))
    for shown in two.at_each(two.figures):
        assert shown[name] == before + 2
        assert shown["regen_http_requests_in_progress",] == 1
        assert [value for labels, value in shown.items() if labels[0] == "regen_build_info"] == [1]
        assert shown["process_resident_memory_bytes",] > 0
        assert shown["process_cpu_seconds_total",] > 0


def test_one_users_flood_does_not_delay_another(two):
    other, flooding = two.make_key("patient"), threading.Event()

    def seconds():
        started = time.monotonic()
        assert two.client.get("/v1/renders", headers=other).status_code == 200
        return time.monotonic() - started

    def flood():
        headers = {"Authorization": f"Bearer {two.key}"}
        with httpx.Client(base_url=two.ready["url"], headers=headers, timeout=30) as attacker:
            while flooding.is_set():
                attacker.get("/v1/renders?limit=100")

    alone = statistics.median(seconds() for _ in range(5))
    flooding.set()
    threads = [threading.Thread(target=flood) for _ in range(8)]
    for thread in threads:
        thread.start()
    beside = statistics.median(seconds() for _ in range(5))
    flooding.clear()
    for thread in threads:
        thread.join(30)
    assert beside < MOST_TIMES_AS_LONG * alone + SLACK_SECONDS


def test_a_killed_process_loses_no_render_and_is_replaced_while_the_other_answers(two):
    before = two.figures()
    counted = ("regen_http_requests_total", "POST", "/v1/upscale", "200")
    killed, other = two.processes
    with two.only(killed):
        render_id = two.submit()
        # A request is counted once it has been answered.
        wait_until(
            lambda: two.figures().get(counted, 0) > before.get(counted, 0),
            what="it is counted",
            pause_seconds=0.3,
        )
    os.kill(killed, signal.SIGKILL)
    assert two.status_of(render_id) in ("queued", "pending", "processing", "completed")
    wait_until(lambda: len({*two.processes} - {killed}) == 2, what="there is another one", pause_seconds=0.3)
    assert other in two.processes
    wait_until(lambda: two.status_of(render_id) == "completed", what="it is completed", pause_seconds=0.3)
    after = two.figures()
    assert after[counted] == before.get(counted, 0) + 1
    assert after["regen_http_requests_in_progress",] == 1


def test_all_of_them_end_with_the_server(two):
    everything = two.server.descendants()
    two.server.process.send_signal(signal.SIGTERM)
    assert two.server.process.wait(timeout=60) == 0
    assert not any(map(is_alive, everything))
    assert not two.server.ready_file.exists()
    assert not Settings(data_dir=two.server.data_directory).run_dir.exists()
    with pytest.raises(httpx.ConnectError):
        two.client.get("/healthz")


def test_one_that_cannot_start_says_why_in_a_sentence(tmp_path):
    settings = Settings(data_dir=tmp_path, api_processes=2)
    with new_run_directory(settings), listen("127.0.0.1", 0) as listener:
        numbers = ("--number", "1", "--of", "2", "--parent-pid", str(os.getpid()))
        place = ("--data-dir", str(tmp_path), "--descriptor", str(listener.fileno()))
        ended = subprocess.run(
            [sys.executable, "-m", "app.cli", "api-process", *numbers, *place],
            env={**os.environ, "REGEN_FFMPEG": "/no/such/ffmpeg"},
            pass_fds=[listener.fileno()],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert ended.returncode == os.EX_CONFIG
    assert "REGEN_FFMPEG" in ended.stderr
    assert "Traceback" not in ended.stderr
