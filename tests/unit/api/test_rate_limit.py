import pytest

from app.api.rate_limit import RateLimit
from app.core.errors import ConfigurationError, TooManyRequests


def test_each_user_has_the_whole_limit():
    limit = RateLimit("2/minute")

    limit.spend("ann")
    limit.spend("bob")
    limit.spend("ann")
    with pytest.raises(TooManyRequests) as error:
        limit.spend("ann")
    limit.spend("bob")

    assert 1 <= error.value.retry_after_seconds <= 60


def test_several_rules_hold_together():
    limit = RateLimit("5/second;6/hour")

    for _number in range(5):
        limit.spend("ann")
    with pytest.raises(TooManyRequests, match="5 per 1 second"):
        limit.spend("ann")


@pytest.mark.parametrize("rule", ["", "often", "0/minute", "5"])
def test_rules_that_make_no_sense(rule):
    with pytest.raises(ConfigurationError, match="REGEN_RATE_LIMIT"):
        RateLimit(rule)
