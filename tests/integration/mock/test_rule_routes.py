"""Routes of rules that can match a request, and such that never do."""

import pytest

from app.mock.fault_rules import FaultRule
from app.mock.rule_routes import require_routes
from app.platform.errors import InvalidRequest

KNOWN = [
    ("GET", "/v1/renders"),
    ("GET", "/v1/renders/{render_id}"),
    ("POST", "/v1/renders/{render_id}/cancel"),
    ("GET", "/storage/{key:path}"),
]


@pytest.mark.parametrize(
    "route",
    [
        "*",
        "GET *",
        "get /v1/renders",
        "/v1/renders/abc",
        "GET /v1/renders/*",
        "* /v1/*/cancel",
        "POST /v1/renders/a*c/cancel",
        "POST */cancel",
        "GET /v1/render?",
        "GET /v?/renders",
        "GET /storage/a/b/c*.mp4",
        "GET /storage/",
    ],
)
def test_those_that_can(route):
    require_routes([FaultRule(route=route, action={"status": 500})], KNOWN)


@pytest.mark.parametrize(
    "route",
    [
        "POST /v1/renders",
        "GET /v1/render",
        "GET /v1/renders/",
        "GET /v1/renders/a/b",
        "GET /v1/renders/*/cancel",
        "* /v1/renders/*/cancel/*",
        "PSOT *",
        "/V1/renders",
        "GET v1/renders",
        "GET /storage",
        "GET  /v1/renders",
    ],
)
def test_those_that_never_do(route):
    with pytest.raises(InvalidRequest, match="Nothing ever matches"):
        require_routes([FaultRule(route=route, action={"status": 500})], KNOWN)


def test_events_of_webhooks():
    def rule(route: str) -> FaultRule:
        return FaultRule(route=route, action={"webhook": "lost"})

    require_routes(
        [rule("WEBHOOK *"), rule("WEBHOOK render.*"), rule("WEBHOOK webhook.test"), rule("*")], KNOWN
    )
    with pytest.raises(InvalidRequest) as refusal:
        require_routes([rule("*"), rule("WEBHOOK render.complete"), rule("WEBHOOK render")], KNOWN)
    assert [message.partition(":")[0] for message in refusal.value.messages] == [
        "`rules.1.route`",
        "`rules.2.route`",
    ]
    assert "The nearest is `WEBHOOK render.completed`." in refusal.value.messages[0]
