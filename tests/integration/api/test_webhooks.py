"""Webhooks as their users set them up, and what becomes of a render's events in a server at work."""

import json
import re
from ipaddress import ip_network

import pytest
from standardwebhooks import Webhook

from app.accounts import service as account_service
from app.accounts.scopes import Scope
from app.platform.secrets import Secrets
from tests.servers.process import wait_until
from tests.servers.receiver import receiving

URL = "https://studio.example.com/hook"
RENDER_CHANGES = ["render.queued", "render.processing", "render.completed", "render.failed"]
ALL_EVENTS = [*RENDER_CHANGES, "render.delivered", "render.delivery_failed"]
WAIT_SECONDS = 30.0


@pytest.fixture
def settings(settings):
    # To what `receiving` listens on, and to nothing else that is private.
    networks = (ip_network("127.0.0.1/32"),)
    return settings.model_copy(update={"outbound_allowed_networks": networks, "max_webhooks_per_user": 3})


@pytest.fixture
def receiver():
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def file_id(client, clip):
    with clip.open("rb") as content:
        return client.post("/v1/files", files={"file": content}).json()["file"]["id"]


def created(client, url=URL, **fields):
    answer = client.post("/v1/webhooks", json={"url": url, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()["webhook"]


def messages(answer, status):
    assert answer.status_code == status, answer.text
    return [error["message"] for error in answer.json()["errors"]]


def delivered(client, delivery_id):
    """The delivery, once it was."""

    def get():
        return client.get(f"/v1/webhook-deliveries/{delivery_id}").json()["delivery"]

    wait_until(lambda: get()["status"] == "delivered", seconds=WAIT_SECONDS, what="it is delivered")
    return get()


def test_set_up_and_removed(client):
    first = client.post("/v1/webhooks", json={"url": URL})
    webhook = first.json()["webhook"]
    assert webhook == {
        "id": webhook["id"], "url": URL, "events": ALL_EVENTS, "enabled": True, "createdAt": webhook["createdAt"]
    }  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", webhook["createdAt"])
    assert client.get(first.headers["Location"]).json() == first.json()
    second = created(client, events=["render.failed", "render.completed", "render.failed"], enabled=False)
    assert second["events"] == ["render.completed", "render.failed"]
    assert second["enabled"] is False and "disabledAt" in second and "disabledReason" not in second

    page = client.get("/v1/webhooks", params={"limit": 1}).json()
    assert page["webhooks"] == [second]
    rest = client.get("/v1/webhooks", params={"cursor": page["nextCursor"]}).json()
    assert rest == {"webhooks": [webhook]}

    path = f"/v1/webhooks/{webhook['id']}"
    changed = client.patch(path, json={"url": f"{URL}/2", "events": ["render.failed"]}).json()["webhook"]
    assert changed == webhook | {"url": f"{URL}/2", "events": ["render.failed"]}
    assert client.patch(path, json={"enabled": False}).json()["webhook"]["enabled"] is False
    assert client.patch(path, json={"enabled": True}).json()["webhook"] == changed
    assert client.patch(path, json={}).json()["webhook"] == changed
    assert client.delete(path).status_code == 204
    assert messages(client.get(path), 404) == ["Webhook not found"]
    assert messages(client.delete(path), 404) == ["Webhook not found"]
    assert created(client, events=[])["events"] == ALL_EVENTS


def test_what_cannot_be_set_up(client):
    def refused(**fields):
        return messages(client.post("/v1/webhooks", json=fields), 400)

    assert refused() == ["`url` is required."]
    assert len(refused(url=7, events=["render.exploded"], enabled="yes")) == 3
    assert refused(url="ftp://example.com/") == ["`url`: The URL must begin with http:// or https://."]
    assert refused(url="https://ann:secret@example.com/") == [
        "`url`: The URL must not carry a user name or password."
    ]
    assert len(refused(url="https://example.com/" + "x" * 2048)) == 1
    assert len(refused(url="https://exämple.com/ a")) == 1
    sentence = (
        "`url`: This server may not connect to that address, or the address does not exist. Its operator can allow "
        "non-public networks with REGEN_OUTBOUND_ALLOWED_NETWORKS."
    )
    private = (
        "127.0.0.2",
        "10.1.2.3",
        "169.254.169.254",
        "[::1]",
        "[::ffff:10.0.0.1]",
        "0.0.0.0",
        "127.2",
        "0xa000001",
    )
    for host in private:
        assert refused(url=f"http://{host}:9000/") == [sentence], host
    webhook = created(client, url="http://127.0.0.1:9000/")
    path = f"/v1/webhooks/{webhook['id']}"
    assert messages(client.patch(path, json={"url": "http://10.0.0.1/"}), 400) == [sentence]
    created(client)
    created(client)
    assert messages(client.post("/v1/webhooks", json={"url": URL}), 409) == [
        "You have 3 webhooks, which is the maximum: remove one first."
    ]


def test_nobody_sees_anothers(client, make_key, file_id):
    webhook = created(client)
    client.post("/v1/upscale", json={"file_id": file_id})
    delivery = client.get("/v1/webhook-deliveries").json()["deliveries"][0]
    ann = client.headers["Authorization"]
    client.headers["Authorization"] = f"Bearer {make_key('bob')}"
    assert client.get("/v1/webhooks").json() == {"webhooks": []}
    assert client.get("/v1/webhook-deliveries").json() == {"deliveries": []}
    path, sent = f"/v1/webhooks/{webhook['id']}", f"/v1/webhook-deliveries/{delivery['id']}"
    answers = [
        *(client.request(method, path, json={}) for method in ("GET", "PATCH", "DELETE")),
        client.post(f"{path}/test"),
        client.get(sent),
        client.post(f"{sent}/replay"),
    ]
    assert [answer.status_code for answer in answers] == [404] * 6
    secret = client.get("/v1/webhooks/secret").json()
    client.headers["Authorization"] = ann
    assert client.get("/v1/webhooks/secret").json() != secret
    # Sending may have failed meanwhile, which is noted beside.
    assert client.get(path).json()["webhook"].items() >= webhook.items()


def test_what_is_sent_twice_makes_one(client):
    once = {"Idempotency-Key": "set up"}
    answers = [client.post("/v1/webhooks", json={"url": URL}, headers=once) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["Idempotent-Replayed"] == "true"
    assert len(client.get("/v1/webhooks").json()["webhooks"]) == 1
    assert len(messages(client.post("/v1/webhooks", json={"url": f"{URL}/2"}, headers=once), 409)) == 1
    rotate = {"Idempotency-Key": "rotate"}
    secrets = [client.post("/v1/webhooks/secret/rotate", headers=rotate).json() for _ in range(2)]
    assert secrets[0] == secrets[1]


def test_the_secret(client, database, settings, key):
    secret = client.get("/v1/webhooks/secret").json()["secret"]
    assert list(secret) == ["current"]
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", secret["current"])

    rotated = client.post("/v1/webhooks/secret/rotate").json()["secret"]
    assert rotated["previous"] == secret["current"] != rotated["current"]
    assert "previousUntil" in rotated
    assert client.get("/v1/webhooks/secret").json()["secret"] == rotated

    with database.write() as session:
        looking = account_service.create_key(
            session, user_name="ann", key_name="looks", keys=Secrets.load(settings), scopes={Scope.READ}
        ).key
    client.headers["Authorization"] = f"Bearer {looking}"
    assert client.get("/v1/webhooks").status_code == 200
    assert len(messages(client.get("/v1/webhooks/secret"), 403)) == 1


def test_a_render_is_told_of_from_its_first_move_on(client, receiver, file_id):
    webhook = created(client, url=receiver.url, events=["render.failed"])
    asked = {"file_id": file_id, "webhook_url": f"{receiver.url}/own"}
    render = client.post("/v1/upscale", json=asked).json()["render"]
    assert render["webhookUrl"] == asked["webhook_url"]
    assert client.post(f"/v1/renders/{render['id']}/cancel").status_code == 200
    wait_until(lambda: len(receiver.received) == 3, seconds=WAIT_SECONDS, what="all three are told")

    secret = Webhook(client.get("/v1/webhooks/secret").json()["secret"]["current"])
    told = [
        (received.path, secret.verify(received.body, dict(received.headers)))
        for received in receiver.received
    ]
    assert sorted((path, event["type"]) for path, event in told) == [
        ("/hook", "render.failed"),
        ("/hook/own", "render.failed"),
        ("/hook/own", "render.queued"),
    ]
    failed = next(event["data"]["render"] for path, event in told if path == "/hook")
    shown = client.get(f"/v1/renders/{render['id']}").json()["render"]
    # In this test nobody told the server its own address.
    assert failed == {name: value for name, value in shown.items() if not name.endswith("FileURL")}
    assert all(event["timestamp"] >= failed["createdAt"] for _path, event in told)

    page = client.get("/v1/webhook-deliveries", params={"render_id": render["id"], "limit": 2}).json()
    rest = client.get(
        "/v1/webhook-deliveries", params={"render_id": render["id"], "cursor": page["nextCursor"]}
    ).json()
    assert len(page["deliveries"]) == 2 and len(rest["deliveries"]) == 1
    for row in page["deliveries"] + rest["deliveries"]:
        delivered(client, row["id"])
    own = [row for row in page["deliveries"] + rest["deliveries"] if row.get("webhookId") == webhook["id"]]
    assert [row["event"] for row in own] == ["render.failed"]
    shown = delivered(client, own[0]["id"])
    assert [(attempt["number"], attempt["statusCode"]) for attempt in shown["attempts"]] == [(1, 204)]
    assert client.get("/v1/webhook-deliveries", params={"render_id": "none"}).json() == {"deliveries": []}
    listed = client.get("/v1/webhook-deliveries", params={"status": "delivered"}).json()["deliveries"]
    assert len(listed) == 3 and all("attempts" not in row for row in listed)

    retried = client.post(f"/v1/renders/{render['id']}/retry").json()["render"]
    assert retried["webhookUrl"] == asked["webhook_url"]


def test_a_webhook_url_that_is_none_is_refused(client, file_id):
    for url in ("null", "nonsense", "ftp://example.com/", "http://10.0.0.1/", "http://ann@example.com/"):
        answer = client.post("/v1/upscale", json={"file_id": file_id, "webhook_url": url})
        assert [message.startswith("`webhook_url`: ") for message in messages(answer, 400)] == [True], url


def test_empty_fields_are_not_given_and_unknown_names_are_refused(client):
    webhook = created(client, events=None, enabled="")
    assert (webhook["events"], webhook["enabled"]) == (ALL_EVENTS, True)
    path = f"/v1/webhooks/{webhook['id']}"
    assert client.patch(path, json={"url": "", "events": None}).json()["webhook"] == webhook
    told = "`Enabled` is not a field of this request: did you mean `enabled`?"
    for method, address in (("POST", "/v1/webhooks"), ("PATCH", path)):
        assert messages(client.request(method, address, json={"url": URL, "Enabled": False}), 400) == [told]
    answer = client.post("/v1/webhooks", data={"url": URL})
    assert messages(answer, 400)[0].endswith("send `Content-Type: application/json`.")
    assert messages(client.post("/v1/webhooks", json=[URL]), 400) == [
        f'The JSON body must be an object; received ["{URL}"].'
    ]
    assert client.get("/v1/webhook-deliveries?render_id=&status=&cursor=").json() == {"deliveries": []}


def test_tests_and_replays(client, receiver):
    webhook = created(client, url=receiver.url, events=["render.failed"])
    path = f"/v1/webhooks/{webhook['id']}"
    once = {"Idempotency-Key": "try it"}
    answers = [client.post(f"{path}/test", headers=once) for _ in range(2)]
    delivery = answers[0].json()["delivery"]
    assert (delivery["event"], delivery["status"], delivery["webhookId"]) == (
        "webhook.test",
        "pending",
        webhook["id"],
    )
    assert answers[1].json()["delivery"]["id"] == delivery["id"]
    delivered(client, delivery["id"])
    assert json.loads(receiver.received[0].body)["data"] == {"webhook": {"id": webhook["id"]}}
    assert client.get(answers[0].headers["Location"]).json()["delivery"]["attemptCount"] == 1

    replay = f"/v1/webhook-deliveries/{delivery['id']}/replay"
    assert client.post(replay).json()["delivery"]["status"] == "pending"
    wait_until(lambda: len(receiver.received) == 2, seconds=WAIT_SECONDS, what="it is sent again")
    assert receiver.ids == [delivery["id"], delivery["id"]]
    shown = delivered(client, delivery["id"])
    assert [attempt["number"] for attempt in shown["attempts"]] == [1, 2]

    client.patch(path, json={"enabled": False})
    disabled = "The webhook is disabled: enable it first."
    assert messages(client.post(f"{path}/test"), 409) == [disabled]
    assert messages(client.post(replay), 409) == [disabled]
    client.delete(path)
    assert messages(client.post(replay), 409) == ["The delivery's webhook has been removed."]
    assert delivered(client, delivery["id"])["attemptCount"] == 2


def test_a_process_that_is_to_send_none_leaves_them_to_others(serve, settings, key, receiver):
    silent = serve(settings.model_copy(update={"webhook_concurrency": 0}), key=key)
    webhook = created(silent, url=receiver.url)
    delivery = silent.post(f"/v1/webhooks/{webhook['id']}/test").json()["delivery"]
    # Tests that nothing has taken yet are not piled up.
    statuses = [silent.post(f"/v1/webhooks/{webhook['id']}/test").status_code for _ in range(6)]
    assert statuses == [200] * 4 + [429] * 2
    assert delivery["status"] == "pending" and not receiver.received
    other = serve(settings, key=key)
    assert delivered(other, delivery["id"])["attemptCount"] == 1
    shown = silent.get("/metrics").text
    assert 'regen_webhook_attempts_total{outcome="delivered"}' in shown
