"""When a delivery is tried again, and the addresses that deliveries may have."""

from functools import partial

import pytest

from app.platform import deliveries
from app.platform.deliveries import LONGEST_RETRY_AFTER_SECONDS
from app.platform.errors import InvalidRequest
from app.platform.retry_policies import WEBHOOK_DELIVERY
from app.webhooks.dispatcher import _retry_after_seconds
from app.webhooks.urls import host_of, parse_webhook_url

PAUSES_SECONDS = WEBHOOK_DELIVERY.steps_seconds
pause_after = partial(deliveries.pause_after, WEBHOOK_DELIVERY)


def test_pauses_grow_for_days_and_end():
    pauses = [pause_after(failures) for failures in range(len(PAUSES_SECONDS))]

    assert all(least <= pause <= 1.1 * least for least, pause in zip(PAUSES_SECONDS, pauses, strict=True))
    assert sum(PAUSES_SECONDS) > 3 * 86_400
    assert pause_after(len(PAUSES_SECONDS)) is None
    assert pause_after(len(PAUSES_SECONDS), 60.0) is None


def test_a_receiver_that_restarts_is_asked_again_within_two_minutes():
    pauses = [pause_after(failures) for failures in range(2)]

    assert pauses[0] < 10 and 30 <= pauses[1] <= 60


def test_a_receiver_may_ask_for_a_longer_pause_within_bounds():
    assert pause_after(0, 120.0) == 120.0
    assert pause_after(3, 120.0) >= PAUSES_SECONDS[3]
    assert pause_after(0, 1e9) == LONGEST_RETRY_AFTER_SECONDS


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(None, None), ("120", 120.0), (" 7 ", 7.0), ("soon", None), ("-1", None), ("٣", None),
     ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("9" * 500, float("inf"))],
)  # fmt: skip
def test_retry_after(text, seconds):
    assert _retry_after_seconds(text) == seconds


def test_a_date_in_the_future():
    assert _retry_after_seconds("Fri, 31 Dec 2099 23:59:59 GMT") > 86_400


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "https://example.com:8443/a?b=c#d",
        "HTTPS://EXAMPLE.com/",
        "http://[2001:db8::1]/",
    ],
)
def test_addresses(url):
    assert parse_webhook_url(url) == url
    assert host_of(url) in ("example.com", "2001:db8::1")


@pytest.mark.parametrize(
    "url",
    ["", "example.com", "//example.com/", "http://", "http:///path", "file:///etc/passwd", "http://a b/",
     "http://example.com/\n", "http://example.com:0/", "http://example.com:99999/", "http://user@example.com/",
     "http://" + "a" * 300 + ".com/", "https://example.com/" + "a" * 2048, "http://exa\0mple.com/", "http://é.com/"],
)  # fmt: skip
def test_what_is_no_address(url):
    with pytest.raises(InvalidRequest, match=r"^`webhook_url`: "):
        parse_webhook_url(url)
