"""Faults on request: what a client meets is what the rules say, as often as they say."""

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from tests.servers.process import wait_until

ENGINES = "/v1/engines"
ON_ENGINES = "GET /v1/engines"


@pytest.fixture
def submit(regen_mock, clip) -> Callable[..., dict]:
    def submit(**options) -> dict:
        with clip.open("rb") as video:
            answer = regen_mock.client.post("/v1/upscale", files={"file": video}, **options)
        return answer.json()["render"]

    return submit


@pytest.fixture
def received() -> Iterator[tuple[str, list[bytes]]]:
    """A receiver of webhooks: its address, and the ids of what came."""
    ids: list[str] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            ids.append(self.headers["webhook-id"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", ids
    server.shutdown()
    thread.join()


class TestAnswers:
    def test_a_status_so_many_times_after_so_many_requests(self, regen_mock):
        regen_mock.faults(
            {
                **{"route": ON_ENGINES, "after": 1, "times": 2},
                "action": {"status": 429, "headers": {"Retry-After": "3"}},
            }
        )

        answers = [regen_mock.client.get(ENGINES) for _request in range(5)]

        assert [answer.status_code for answer in answers] == [200, 429, 429, 200, 200]
        assert answers[1].headers["Retry-After"] == "3"
        assert list(answers[1].json()) == ["errors"]
        assert [(rule["seen"], rule["hits"]) for rule in regen_mock.rules] == [(5, 2)]
        regen_mock.clear_faults()
        assert regen_mock.rules == []

    def test_a_body_of_ones_own_and_routes_with_a_star(self, regen_mock):
        regen_mock.faults(
            {"route": "/v1/eng*", "action": {"status": 200, "body": {"engines": []}}},
            {"route": "* /v1/renders*", "action": {"status": 502, "body": "<html>Bad Gateway</html>"}},
        )

        regen_mock.faults({"route": "POST /v1/upscale", "action": {"status": 507}})

        assert regen_mock.client.get(ENGINES).json() == {"engines": []}
        large = regen_mock.client.post("/v1/upscale", files={"file": bytes(3 * 1024**2)})
        assert large.status_code == 507
        answer = regen_mock.client.get("/v1/renders/abc")
        assert (answer.status_code, answer.text) == (502, "<html>Bad Gateway</html>")

    def test_chance_follows_the_seed(self, regen_mock):
        def draw(seed: int) -> list[int]:
            regen_mock.seed(seed=seed)
            regen_mock.faults({"route": ON_ENGINES, "probability": 0.5, "action": {"status": 500}})
            return [regen_mock.client.get(ENGINES).status_code for _request in range(12)]

        first = draw(1)
        assert set(first) == {200, 500}
        assert draw(1) == first
        assert draw(2) != first

    def test_latency(self, regen_mock):
        regen_mock.faults({"route": ON_ENGINES, "times": 1, "action": {"latency_seconds": 0.3}})

        began = time.monotonic()
        assert regen_mock.client.get(ENGINES).status_code == 200
        assert time.monotonic() - began >= 0.3
        regen_mock.faults({"route": ON_ENGINES, "action": {"latency_seconds": 2}})
        with pytest.raises(httpx.ReadTimeout):
            regen_mock.client.get(ENGINES, timeout=0.2)

    @pytest.mark.parametrize(
        "rule",
        [
            {"action": {}},
            {"action": {"status": 500, "cut": "before"}},
            {"action": {"stauts": 500}},
            {"route": "GET /", "action": {"webhook": "lost"}},
            {"action": {"status": 500}, "times": 0},
        ],
    )
    def test_rules_that_mean_nothing_are_refused(self, regen_mock, rule):
        answer = regen_mock.client.post("/_mock/faults", json=rule)

        assert answer.status_code == 400
        assert len(answer.json()["errors"]) == 1
        assert regen_mock.rules == []


class TestCutConnections:
    @pytest.mark.parametrize(("cut", "made"), [("before", 0), ("after", 1)])
    def test_without_an_answer(self, regen_mock, submit, cut, made):
        regen_mock.faults({"route": "POST /v1/upscale", "times": 1, "action": {"cut": cut}})

        with pytest.raises(httpx.TransportError):
            submit(headers={"Idempotency-Key": "order-17"})

        assert len(regen_mock.client.get("/v1/renders").json()["renders"]) == made
        # Whoever asks again has one render, whatever became of the first request.
        render = submit(headers={"Idempotency-Key": "order-17"})
        assert [one["id"] for one in regen_mock.client.get("/v1/renders").json()["renders"]] == [render["id"]]

    def test_half_way_through_a_download(self, regen_mock, submit):
        render = regen_mock.client.get(f"/v1/renders/{submit()['id']}").json()["render"]
        regen_mock.faults({"route": "GET /storage/*", "times": 1, "action": {"cut": "mid-body"}})

        with pytest.raises(httpx.RemoteProtocolError, match="complete message body"):
            httpx.get(render["outputFileURL"])
        assert httpx.get(render["outputFileURL"]).status_code == 200


class TestRenders:
    def test_one_that_fails_and_one_that_is_stuck(self, regen_mock, submit):
        regen_mock.faults(
            {"route": "POST /v1/upscale", "times": 1, "action": {"render": {"fail": "The film tore."}}},
            {"route": "POST /v1/upscale", "times": 1, "action": {"render": {"stuck_in": "processing"}}},
        )

        renders = [submit()["id"] for _render in range(3)]

        looks = [regen_mock.client.get(f"/v1/renders/{render}").json()["render"] for render in renders]
        assert [look["status"] for look in looks] == ["failed", "processing", "completed"]
        assert looks[0]["error"] == "The film tore."
        canceled = regen_mock.client.post(f"/v1/renders/{renders[1]}/cancel")
        assert canceled.json()["render"]["status"] == "failed"

    def test_one_that_failed_is_queued_again_by_an_administrator(self, regen_mock, submit):
        regen_mock.faults({"route": "POST /v1/upscale", "action": {"render": {"fail": "The film tore."}}})
        path = f"/v1/renders/{submit()['id']}"
        assert regen_mock.client.get(path).json()["render"]["status"] == "failed"

        admin = {"Authorization": "Bearer regen_mock_admin_key"}
        asked = regen_mock.client.post(path.replace("/v1", "/v1/admin") + "/retry", headers=admin)

        assert asked.status_code == 200, asked.text
        again = asked.json()["render"]["id"]
        assert regen_mock.client.get(f"/v1/renders/{again}").json()["render"]["status"] == "completed"

    def test_a_refused_request_leaves_its_fault_to_nobody(self, regen_mock, submit):
        regen_mock.faults({"route": "POST /v1/upscale", "times": 1, "action": {"render": {"fail": "Torn."}}})
        same_id = {"X-Request-ID": "one-for-all"}

        assert regen_mock.client.post("/v1/upscale", headers=same_id).status_code == 400

        render = submit(headers=same_id)
        assert regen_mock.client.get(f"/v1/renders/{render['id']}").json()["render"]["status"] == "completed"

    def test_expired_urls(self, regen_mock, submit):
        path = f"/v1/renders/{submit()['id']}"
        regen_mock.faults({"route": "GET /v1/renders/*", "times": 1, "action": {"expired_urls": True}})

        expired = regen_mock.client.get(path).json()["render"]["outputFileURL"]
        assert httpx.get(expired).status_code == 403
        assert httpx.get(regen_mock.client.get(path).json()["render"]["outputFileURL"]).status_code == 200


def test_lost_and_doubled_webhooks(regen_mock, submit, received):
    url, ids = received
    regen_mock.faults(
        {"route": "WEBHOOK render.completed", "times": 1, "action": {"webhook": "lost"}},
        {"route": "WEBHOOK render.completed", "times": 1, "action": {"webhook": "doubled"}},
    )
    events = {"url": url, "events": ["render.completed"]}
    assert regen_mock.client.post("/v1/webhooks", json=events).status_code == 200

    submit()
    wait_until(lambda: regen_mock.rules[0]["hits"] == 1, seconds=30, what="the first webhook is lost")
    assert ids == []
    submit()
    wait_until(lambda: len(ids) == 2, seconds=30, what="the second webhook comes twice")
    assert len(set(ids)) == 1
    submit()
    wait_until(lambda: len(ids) == 3, seconds=30, what="the third webhook comes once")
    assert len(set(ids)) == 2
