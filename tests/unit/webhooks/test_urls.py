"""Where webhooks may go, as far as it is known before anything is looked up."""

from ipaddress import ip_network

import pytest

from app.platform.errors import InvalidRequest
from app.webhooks.urls import require_permitted

LOOPBACK = (ip_network("127.0.0.0/8"),)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.", "hooks.localhost", "127.0.0.1", "127.1", "[::1]"]
)
def test_this_machine_is_refused_at_once_with_the_setting_that_allows_it(host):
    with pytest.raises(InvalidRequest, match=r"^`url`: .*REGEN_OUTBOUND_ALLOWED_NETWORKS"):
        require_permitted(f"http://{host}:8080/", allowed_networks=(), field="url")
    if host != "[::1]":
        require_permitted(f"http://{host}:8080/", allowed_networks=LOOPBACK)


@pytest.mark.parametrize("host", ["example.com", "localhost.example.com", "1.1.1.1", "intranet"])
def test_other_names_are_left_to_the_attempt(host):
    require_permitted(f"https://{host}/", allowed_networks=())
