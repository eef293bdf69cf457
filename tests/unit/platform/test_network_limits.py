import pytest

from app.platform.byte_sizes import GIB
from app.platform.network_limits import is_on_network, network_limits
from app.platform.settings import Settings

NAMES = {"rate_limit", "max_queued_renders_per_user", "max_storage_bytes_per_user"}


@pytest.mark.parametrize(
    ("address", "settings", "expected"),
    [
        ("127.0.0.1", {}, False),
        ("::1", {}, False),
        ("127.0.0.1", {"public_url": "http://localhost:8000"}, False),
        ("127.0.0.1", {"allowed_hosts": ("localhost",)}, False),
        ("0.0.0.0", {}, True),
        ("::", {}, True),
        ("192.168.1.5", {}, True),
        ("127.0.0.1", {"public_url": "https://regen.example.com"}, True),
        ("127.0.0.1", {"allowed_hosts": ("*",)}, True),
    ],
)
def test_who_reaches_the_server(address, settings, expected):
    assert is_on_network(Settings(**settings), address) is expected


def test_on_a_network_what_is_unset_is_limited_and_what_is_said_holds(monkeypatch, tmp_path):
    limits = network_limits(Settings(data_dir=tmp_path / "none" / "yet"))
    assert limits.keys() == NAMES and all(limits.values())
    assert network_limits(Settings(storage="s3"))["max_storage_bytes_per_user"] == 1024 * GIB
    for name, said in zip(sorted(NAMES), ("7", "UNLIMITED", "5/minute"), strict=True):
        monkeypatch.setenv(f"REGEN_{name.upper()}", said)
    settings = Settings()
    assert network_limits(settings) == {}
    assert [getattr(settings, name) for name in sorted(NAMES)] == [7, None, "5/minute"]
    monkeypatch.setenv("REGEN_MAX_QUEUED_RENDERS_PER_USER", "-1")
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        Settings()
