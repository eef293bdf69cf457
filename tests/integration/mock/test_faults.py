"""Faults on request: what a client meets is what the rules say, as often as they say."""

import json
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from tests.servers.process import wait_until
from tests.servers.receiver import Received, Receiver, receiving

ENGINES = "/v1/engines"
ON_ENGINES = "GET /v1/engines"


@pytest.fixture
def submit(regen_mock, clip) -> Callable[..., dict]:
    def submit(**options) -> dict:
        with clip.open("rb") as video:
            answer = regen_mock.client.post("/v1/upscale", files={"file": video}, **options)
        return answer.json()["render"]

    return submit


class Hooks:
    """A receiver of webhooks that a client of the mock subscribed."""

    def __init__(self, receiver: Receiver, client: httpx.Client) -> None:
        self.receiver = receiver
        self._client = client
        self._secret = client.get("/v1/webhooks/secret").json()["secret"]["current"]

    def subscribe(self, *events: str) -> None:
        hook = {"url": self.receiver.url, "events": events}
        self._client.post("/v1/webhooks", json=hook).raise_for_status()

    def wait(self, count: int) -> list[Received]:
        wait_until(lambda: len(self.receiver.received) >= count, seconds=30, what=f"{count} webhooks came")
        return self.receiver.received

    def fault(self, received: Received) -> str | None:
        """What is wrong with its signature or date; None if nothing."""
        try:
            Webhook(self._secret).verify(received.body, dict(received.headers))
        except WebhookVerificationError as error:
            return str(error)
        return None


@pytest.fixture
def hooks(regen_mock) -> Iterator[Hooks]:
    with receiving() as receiver:
        yield Hooks(receiver, regen_mock.client)


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
            {"route": "POST /v1/upscal", "action": {"status": 500}},
            {"route": "GET /v1/upscale", "action": {"status": 500}},
            {"route": "GET /v1/renders/*/thumbnail", "action": {"status": 500}},
            {"route": "GET /healthz", "action": {"status": 500}},
            {"route": "WEBHOOK render.complete", "action": {"webhook": "lost"}},
            {"route": "WEBHOOK *", "action": {"status": 500}},
            {"route": "WEBHOOK *", "action": {"latency_seconds": 31}},
            {"action": {"upload": {"stall_seconds": 1}}},
        ],
    )
    def test_rules_that_mean_nothing_are_refused(self, regen_mock, rule):
        answer = regen_mock.client.post("/_mock/faults", json=rule)

        assert answer.status_code == 400
        assert len(answer.json()["errors"]) == 1
        assert regen_mock.rules == []

    def test_what_is_near_to_a_route_that_matches_nothing(self, regen_mock):
        answer = regen_mock.client.post(
            "/_mock/faults", json={"route": "POST /v1/upscal", "action": {"status": 500}}
        )

        assert answer.json()["errors"] == [
            {
                "message": "`rules.0.route`: Nothing ever matches `POST /v1/upscal`. The nearest is `POST /v1/upscale`."
            }
        ]

    @pytest.mark.parametrize("patience_seconds", [0.05, 3])
    def test_a_client_that_gives_up_and_asks_again_without_a_key_has_two_renders(
        self, regen_mock, submit, patience_seconds
    ):
        """Also one that gives up while the work is done."""
        regen_mock.faults({"route": "POST /v1/upscale", "times": 1, "action": {"answer_latency_seconds": 20}})

        with pytest.raises(httpx.ReadTimeout):
            submit(timeout=httpx.Timeout(30, read=patience_seconds))
        wait_until(
            lambda: len(regen_mock.client.get("/v1/renders").json()["renders"]) == 1,
            seconds=20,
            what="the first request is carried out",
        )
        submit()
        assert len(regen_mock.client.get("/v1/renders").json()["renders"]) == 2


class TestTransfers:
    def test_a_throttled_upload_and_download(self, regen_mock, submit, clip):
        slow = {"bytes_per_second": 2 * clip.stat().st_size}
        regen_mock.faults({"route": "POST /v1/upscale", "times": 1, "action": {"upload": slow}})
        began = time.monotonic()
        render = regen_mock.client.get(f"/v1/renders/{submit()['id']}").json()["render"]
        assert time.monotonic() - began >= 0.5

        content = httpx.get(render["outputFileURL"]).content
        slow = {"bytes_per_second": 2 * len(content)}
        regen_mock.faults({"route": "GET /storage/*", "action": {"download": slow}})
        began = time.monotonic()
        assert httpx.get(render["outputFileURL"]).content == content
        assert time.monotonic() - began >= 0.5

    def test_a_stalled_upload(self, regen_mock, submit):
        stall = {"stall_after_bytes": 1000, "stall_seconds": 0.3}
        regen_mock.faults({"route": "POST /v1/upscale", "times": 1, "action": {"upload": stall}})
        began = time.monotonic()
        assert submit()["status"] == "queued"
        assert time.monotonic() - began >= 0.3

    def test_a_stalled_download(self, regen_mock, submit):
        render = regen_mock.client.get(f"/v1/renders/{submit()['id']}").json()["render"]
        stall = {"stall_after_bytes": 1000, "stall_seconds": 30}
        regen_mock.faults({"route": "GET /storage/*", "times": 1, "action": {"download": stall}})

        got = 0
        with (
            pytest.raises(httpx.ReadTimeout),
            httpx.stream("GET", render["outputFileURL"], timeout=0.5) as answer,
        ):
            for piece in answer.iter_raw():
                got += len(piece)
        assert got == 1000
        # A client that resumes has the rest.
        rest = httpx.get(render["outputFileURL"], headers={"Range": f"bytes={got}-"})
        assert rest.status_code == 206
        assert len(rest.content) == int(answer.headers["Content-Length"]) - got


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
        assert [look.get("requestId") is None for look in looks] == [False, True, True]
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


class TestWebhooks:
    def test_lost_and_doubled(self, regen_mock, submit, hooks):
        regen_mock.faults(
            {"route": "WEBHOOK render.completed", "times": 1, "action": {"webhook": "lost"}},
            {"route": "WEBHOOK render.completed", "times": 1, "action": {"webhook": "doubled"}},
        )
        hooks.subscribe("render.completed")

        submit()
        wait_until(lambda: regen_mock.rules[0]["hits"] == 1, seconds=30, what="the first webhook is lost")
        assert hooks.receiver.received == []
        submit()
        assert len({hook.id for hook in hooks.wait(2)}) == 1
        submit()
        assert len({hook.id for hook in hooks.wait(3)}) == 2

        wait_until(
            lambda: [one["status"] for one in regen_mock.webhooks] == [None, 204, 204, 204],
            seconds=10,
            what="all four are logged",
        )
        logged = regen_mock.webhooks
        assert [(one["fault"] or {}).get("webhook") for one in logged] == ["lost", "doubled", "doubled", None]
        assert [one["attempt"] for one in logged] == [1, 1, 2, 1]
        assert {one["url"] for one in logged} == {hooks.receiver.url}
        assert logged[3]["body"] == json.loads(hooks.receiver.received[2].body)
        assert regen_mock.client.delete("/_mock/webhooks").status_code == 204
        assert regen_mock.webhooks == []

    def test_forged_stale_and_delayed(self, regen_mock, submit, hooks):
        regen_mock.faults(
            {"route": "WEBHOOK *", "times": 1, "action": {"webhook": "forged"}},
            {"route": "WEBHOOK *", "times": 1, "action": {"webhook": "stale"}},
            {"route": "WEBHOOK *", "times": 1, "action": {"latency_seconds": 0.5}},
        )
        hooks.subscribe("render.completed")
        for count in range(1, 4):
            began = time.monotonic()
            submit()
            hooks.wait(count)
        assert time.monotonic() - began >= 0.5
        faults = [hooks.fault(hook) for hook in hooks.receiver.received]
        assert faults == ["No matching signature found", "Message timestamp too old", None]

    def test_reordered(self, regen_mock, submit, hooks):
        regen_mock.faults({"route": "WEBHOOK render.queued", "action": {"webhook": "reordered"}})
        hooks.subscribe("render.queued", "render.completed")
        submit()
        assert [json.loads(hook.body)["type"] for hook in hooks.wait(2)] == [
            "render.completed",
            "render.queued",
        ]


class TestClock:
    def test_links_expire_and_renders_go_on_without_a_reset(self, regen_mock, submit):
        regen_mock.seed(transitions="seconds:600")
        path = f"/v1/renders/{submit()['id']}"
        assert regen_mock.client.get(path).json()["render"]["status"] == "queued"
        for status in ("pending", "processing", "completed"):
            regen_mock.advance(601)
            render = regen_mock.client.get(path).json()["render"]
            assert render["status"] == status
        assert httpx.get(render["outputFileURL"]).status_code == 200
        regen_mock.advance(25 * 3600)
        assert httpx.get(render["outputFileURL"]).status_code == 403
        again = regen_mock.client.get(path).json()["render"]
        assert httpx.get(again["outputFileURL"]).status_code == 200
        assert again["createdAt"] == render["createdAt"]
        admin = {"Authorization": "Bearer regen_mock_admin_key"}
        workers = regen_mock.client.get("/v1/workers", headers=admin).json()["workers"]
        assert [worker["alive"] for worker in workers] == [True]

    @pytest.mark.parametrize("clock", ["2026-01-01T00:00:00Z", None])
    def test_webhooks_are_tried_again_by_it(self, regen_mock, submit, hooks, clock):
        regen_mock.seed(clock=clock)
        hooks.receiver.answer = lambda _received: 503
        hooks.subscribe("render.completed")
        submit()
        hooks.wait(1)
        for attempt in range(2, 5):
            # The first attempt's end must be written down before the time passes.
            wait_until(
                lambda expected=attempt: self.attempts(regen_mock) == expected - 1,
                seconds=20,
                what="the attempt is over",
            )
            regen_mock.advance(24 * 3600)
            assert len({hook.id for hook in hooks.wait(attempt)}) == 1
        assert [hooks.fault(hook) for hook in hooks.receiver.received] == [None] * 4

    def attempts(self, regen_mock) -> int:
        [delivery] = regen_mock.client.get("/v1/webhook-deliveries").json()["deliveries"]
        answer = regen_mock.client.get(f"/v1/webhook-deliveries/{delivery['id']}")
        return len(answer.json()["delivery"]["attempts"])

    def test_it_moves_forward_alone(self, regen_mock):
        before = regen_mock.client.get("/_mock").json()["now"]
        for seconds in (0, -1, "soon", 1e12):
            assert (
                regen_mock.client.post("/_mock/clock", json={"advance_seconds": seconds}).status_code == 400
            )
        assert regen_mock.client.get("/_mock").json()["now"] == before == "2026-01-01T00:00:00Z"
        regen_mock.advance(90)
        assert regen_mock.client.get("/_mock").json()["now"] == "2026-01-01T00:01:30Z"
