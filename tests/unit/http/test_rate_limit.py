import asyncio
import time
from collections.abc import Iterator

import pytest

from app.http import rate_limit
from app.http.rate_limit import RateLimitDecision, RateLimiter, RateLimitPolicy, SharedRateLimiter
from app.platform.errors import ConfigurationError
from app.platform.settings import Settings
from tests.servers.broker import BrokerServer


def spend(limit: RateLimiter, *rules: RateLimitPolicy) -> RateLimitDecision:
    return asyncio.run(limit.spend(rules))


def rule(who: str, text: str, *, policy: str = "user") -> RateLimitPolicy:
    return RateLimitPolicy(policy=policy, who=who, text=text)


def test_each_user_has_the_whole_limit():
    limit, ann, bob = RateLimiter(), rule("ann", "2/minute"), rule("bob", "2/minute")
    for one in (ann, bob, ann):
        assert spend(limit, one).refusal is None
    refused = spend(limit, ann).refusal
    assert spend(limit, bob).refusal is None
    assert refused is not None and 1 <= refused.retry_after_seconds <= 60


def test_the_parts_of_a_rule_hold_together_and_a_keys_rule_beside_its_users():
    limit, user = RateLimiter(), rule("ann", "5/second;6/hour")
    spent = [spend(limit, user) for _ in range(6)][-1]
    assert spent.refusal is not None and "5 per 1 second" in spent.refusal.message
    assert spent.headers["RateLimit-Policy"] == '"user";q=5;w=1', "nothing after it was asked"

    limit, key = RateLimiter(), rule("key", "2/hour", policy="key")
    spent = spend(limit, user, key)
    assert spent.headers["RateLimit-Policy"] == '"user";q=5;w=1, "user-2";q=6;w=3600, "key";q=2;w=3600'
    assert spent.headers["RateLimit"] == '"user";r=4;t=1, "user-2";r=5;t=3600, "key";r=1;t=3600'
    assert spend(limit, user, key).refusal is None
    refused = spend(limit, user, key)
    assert refused.refusal is not None and refused.headers["RateLimit"].endswith('"key";r=0;t=3600')


def test_without_rules_nothing_is_counted():
    assert spend(RateLimiter()) == RateLimitDecision(headers={})


@pytest.mark.parametrize("text", ["often", "0/minute", "5", "1/1000 years", "9999999/minute"])
def test_rules_that_make_no_sense(text):
    with pytest.raises(ConfigurationError, match="REGEN_RATE_LIMIT"):
        RateLimiter.from_settings(Settings(rate_limit=text, broker_url=None))


@pytest.fixture
def broker(tmp_path) -> Iterator[BrokerServer]:
    server = BrokerServer(tmp_path, password="p@ss/w:rd")
    server.start()
    yield server
    server.close()


def test_processes_count_together_and_apart_while_redis_is_away(broker, monkeypatch):
    monkeypatch.setattr(rate_limit, "SHARED_RETRY_SECONDS", 0.2)
    monkeypatch.setattr(rate_limit, "SHARED_TIMEOUT_SECONDS", 5.0)  # the machine may be busy
    settings = Settings(broker_url=broker.url, broker_password=broker.password)
    ann = rule("ann", "2/hour")

    async def ask() -> None:
        one, other = RateLimiter.from_settings(settings), RateLimiter.from_settings(settings)

        async def refused(limit: RateLimiter) -> bool:
            return (await limit.spend([ann])).refusal is not None

        assert [await refused(one), await refused(other), await refused(one)] == [False, False, True]
        await asyncio.to_thread(broker.kill)
        assert [await refused(one), await refused(one), await refused(one)] == [False, False, True]
        assert not await refused(other)
        await asyncio.to_thread(broker.start)
        deadline = time.monotonic() + 20
        while await refused(one):  # until it finds the server again, which has forgotten everything
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        newcomer = RateLimiter.from_settings(settings)
        assert [await refused(newcomer), await refused(newcomer), await refused(one)] == [False, True, True]
        for limit in (one, other, newcomer):
            await limit.close()

    asyncio.run(ask())


def test_a_redis_that_hangs_delays_one_request_in_a_while(black_hole):
    async def ask() -> None:
        counts, ann = SharedRateLimiter(f"redis://127.0.0.1:{black_hole}/0"), rule("ann", "100/hour")
        limit = RateLimiter(counts)
        for _ in range(50):
            assert (await limit.spend([ann])).refusal is None
        await limit.close()

    async def in_time() -> None:
        async with asyncio.timeout(20 * rate_limit.SHARED_TIMEOUT_SECONDS):
            await ask()

    asyncio.run(in_time())


@pytest.mark.parametrize(
    ("broker_url", "expected"),
    [
        ("redis://u:p%40@here:6379/2", "redis://u:p%40@here:6379/2"),
        (
            "rediss://here/0?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs=/a.pem",
            "rediss://here/0?ssl_cert_reqs=required&ssl_ca_certs=%2Fa.pem",
        ),
        ("redis+socket:///run/broker.sock?virtual_host=1", "unix:///run/broker.sock?db=1"),
    ],
)
def test_the_brokers_address_as_the_redis_client_writes_it(broker_url, expected):
    assert rate_limit._redis_url(broker_url) == expected
