"""What is made of the S3 settings and credentials, without a server."""

from datetime import UTC, datetime, timedelta

import pytest
from botocore.credentials import Credentials, DeferredRefreshableCredentials, RefreshableCredentials
from structlog.testing import capture_logs

from app.platform.errors import ConfigurationError
from app.platform.settings import Settings
from app.platform.storage.s3_connection import connect, warn_of_short_credentials

DAY = 24 * 3600
GOOD = {
    "storage": "s3",
    "s3_bucket": "a-bucket",
    "s3_endpoint_url": "http://127.0.0.1:9000",
    "s3_access_key": "the-access-key",
    "s3_secret_key": "the-secret-key",
}


@pytest.mark.parametrize(
    ("replaced", "variable"),
    [
        ({"s3_bucket": None}, "REGEN_S3_BUCKET"),
        ({"s3_bucket": ""}, "REGEN_S3_BUCKET"),
        ({"s3_secret_key": None}, "REGEN_S3_SECRET_KEY"),
        ({"s3_access_key": None}, "REGEN_S3_ACCESS_KEY"),
        (
            {"s3_access_key": None, "s3_secret_key": None, "s3_session_token": "token"},
            "REGEN_S3_SESSION_TOKEN",
        ),
        ({"s3_endpoint_url": "s3.example.org:9000"}, "REGEN_S3_ENDPOINT_URL"),
        ({"s3_endpoint_url": "ftp://s3.example.org"}, "REGEN_S3_ENDPOINT_URL"),
        ({"s3_endpoint_url": "https://"}, "REGEN_S3_ENDPOINT_URL"),
        ({"s3_endpoint_url": "https://host:port"}, "REGEN_S3_ENDPOINT_URL"),
        ({"s3_endpoint_url": "https://the-access-key:the-secret-key@host"}, "REGEN_S3_ENDPOINT_URL"),
        ({"s3_public_endpoint_url": "https://host/?x=1"}, "REGEN_S3_PUBLIC_ENDPOINT_URL"),
        ({"s3_region": "not a region"}, "region"),
        ({"url_lifetime_seconds": 7 * DAY + 1}, "REGEN_URL_LIFETIME_SECONDS"),
    ],
)
def test_settings_that_do_not_add_up(replaced, variable):
    with pytest.raises(ConfigurationError, match=variable) as error:
        connect(Settings(**{**GOOD, **replaced}))

    assert "the-secret-key" not in str(error.value)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_certificate_file_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)

    with pytest.raises(ConfigurationError, match="REGEN_S3_CA_FILE"):
        connect(Settings(**GOOD, s3_ca_file=path))


def test_no_credentials_at_all(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ROLE_ARN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))

    with pytest.raises(ConfigurationError, match="REGEN_S3_ACCESS_KEY"):
        connect(Settings(**{**GOOD, "s3_access_key": None, "s3_secret_key": None}))


def test_an_empty_address_is_none():
    settings = Settings(**{**GOOD, "s3_endpoint_url": "", "s3_public_endpoint_url": ""})

    assert connect(settings).endpoint_url is None


def test_seven_days_are_allowed():
    assert connect(Settings(**GOOD, url_lifetime_seconds=7 * DAY)).bucket == "a-bucket"


class TestShortCredentials:
    @staticmethod
    def lasting(kind: type, hours: float):
        moment = datetime.now(UTC) + timedelta(hours=hours)
        keys = {"access_key": "a", "secret_key": "b", "token": "c", "expiry_time": moment.isoformat()}
        if kind is DeferredRefreshableCredentials:
            return kind(lambda: keys, "assume-role")
        return kind.create_from_metadata(keys, lambda: keys, "iam-role")

    @pytest.mark.parametrize("kind", [RefreshableCredentials, DeferredRefreshableCredentials])
    @pytest.mark.parametrize(("hours", "is_told"), [(6, True), (23.9, True), (24.1, False), (48, False)])
    def test_of_a_role(self, kind, hours, is_told):
        with capture_logs() as lines:
            warn_of_short_credentials(self.lasting(kind, hours), url_lifetime_seconds=DAY)

        assert [line["event"] for line in lines] == (["signed_urls_end_early"] if is_told else [])

    @pytest.mark.parametrize(("token", "is_told"), [(None, False), ("token", True)])
    def test_of_a_token(self, token, is_told):
        with capture_logs() as lines:
            warn_of_short_credentials(Credentials("key", "the-secret-key", token), url_lifetime_seconds=DAY)

        assert [line["log_level"] for line in lines] == (["warning"] if is_told else [])
        assert "the-secret-key" not in repr(lines)

    def test_of_the_settings(self):
        with capture_logs() as lines:
            connect(Settings(**GOOD, s3_session_token="token"))

        assert [line["event"] for line in lines] == ["signed_urls_end_early"]
