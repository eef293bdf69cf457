"""A start with a bucket: what is wrong is told in a sentence that helps, and no secret with it."""

import datetime
import json

import botocore.auth
import httpx
import pytest
from typer.testing import CliRunner

from app.cli.application import application
from app.cli.doctor.findings import FindingState
from app.cli.doctor.services import check_storage
from app.http.resources import open_resources
from app.platform.errors import StorageError
from app.platform.secrets import Secrets
from app.platform.settings import Settings
from app.platform.storage import open_storage
from tests.servers.broker import make_certificates
from tests.servers.process import free_port
from tests.servers.relay import http_answer, relay_to

WRONG_REGION = http_answer(
    "400 Bad Request", code="AuthorizationHeaderMalformed", extra="<Region>eu-central-1</Region>"
)
MOVED = http_answer(
    "301 Moved Permanently", code="PermanentRedirect", headers="x-amz-bucket-region: eu-central-1\r\n"
)


@pytest.fixture
def fault(s3_bucket, tmp_path):
    """What opening the storage says, with those settings replaced."""

    def fault(**replaced) -> str:
        settings = Settings(data_dir=tmp_path / "data", **{**s3_bucket.settings, **replaced})
        with pytest.raises(StorageError) as error:
            open_storage(settings, Secrets.load(settings))
        said = f"{error.value} {error.value.detail}"
        for secret in (settings.s3_access_key, settings.s3_secret_key):
            assert secret is not None
            assert secret.get_secret_value() not in said
        return error.value.message

    return fault


class TestWhatIsWrong:
    def test_the_bucket(self, fault):
        assert "There is no bucket 'not-made'" in (sentence := fault(s3_bucket="not-made"))
        assert "regen storage create-bucket" in sentence

    def test_the_access_key(self, fault):
        assert "does not know the access key" in fault(s3_access_key="not-a-key")

    def test_the_secret_key(self, fault):
        assert "refuses the secret key" in fault(s3_secret_key="not-the-secret")

    def test_the_right_to_write(self, fault, s3_bucket):
        server = s3_bucket.server
        replaced = dict(zip(("s3_access_key", "s3_secret_key"), server.stranger, strict=True))
        with relay_to(server.port) as relay:
            if not server.is_complete:
                relay.answers = [http_answer("403 Forbidden", code="AccessDenied")]
            sentence = fault(s3_endpoint_url=f"http://127.0.0.1:{relay.port}", **replaced)
        assert f"may not write to the bucket '{s3_bucket.name}'" in sentence

    def test_the_right_to_list(self, fault, s3_bucket):
        server = s3_bucket.server
        if server.is_complete:
            rights = ["s3:PutObject", "s3:GetObject", "s3:DeleteObject"]
            statement = {"Effect": "Allow", "Principal": "*", "Action": rights, "Resource": "arn:aws:s3:::*"}
            policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
            server.client.put_bucket_policy(Bucket=s3_bucket.name, Policy=policy)
            sentence = fault(**dict(zip(("s3_access_key", "s3_secret_key"), server.stranger, strict=True)))
            assert f"may not list the bucket '{s3_bucket.name}'" in sentence
        assert s3_bucket.keys() == []

    @pytest.mark.parametrize("answer", [WRONG_REGION, MOVED], ids=["malformed", "moved"])
    def test_the_region(self, fault, s3_server, answer):
        with relay_to(s3_server.port) as relay:
            relay.answers = [answer]
            sentence = fault(s3_endpoint_url=f"http://127.0.0.1:{relay.port}")
        assert sentence.endswith(
            "is not in the region us-east-1, but in eu-central-1. Set REGEN_S3_REGION=eu-central-1."
        )

    def test_the_clock(self, fault, monkeypatch):
        now = botocore.auth.get_current_datetime
        monkeypatch.setattr(
            botocore.auth,
            "get_current_datetime",
            lambda *arguments: now(*arguments) - datetime.timedelta(hours=1),
        )
        assert "too far apart" in fault()

    def test_the_port(self, fault):
        assert "Nothing answers" in fault(s3_endpoint_url=f"http://127.0.0.1:{free_port()}")

    def test_the_host_name(self, fault):
        assert "host name" in fault(s3_endpoint_url="http://nowhere.invalid:9000")

    def test_the_scheme(self, fault, s3_server):
        assert "is it http?" in fault(s3_endpoint_url=f"https://127.0.0.1:{s3_server.port}")

    def test_the_certificate(self, fault, s3_server, tmp_path):
        make_certificates(tmp_path)
        certificate, key = tmp_path / "server.crt", tmp_path / "server.key"
        with relay_to(s3_server.port, certificate=certificate, key=key) as relay:
            assert "REGEN_S3_CA_FILE" in fault(s3_endpoint_url=f"https://localhost:{relay.port}")

    def test_a_server_that_is_overrun(self, fault, s3_server):
        with relay_to(s3_server.port) as relay:
            relay.answers = [http_answer("503 Slow Down", code="SlowDown")] * 10
            assert "(SlowDown)" in fault(s3_endpoint_url=f"http://127.0.0.1:{relay.port}")


class TestTheApi:
    def test_it_serves_no_files_itself(self, s3_bucket, tmp_path, serve):
        with serve(Settings(data_dir=tmp_path, **s3_bucket.settings)) as url:
            response = httpx.get(f"{url}/storage/renders/a/output-1.mp4?expires=1&name=a&signature=b")

        assert response.status_code == 404

    def test_it_does_not_start_without_its_bucket(self, s3_bucket, tmp_path):
        settings = Settings(data_dir=tmp_path, **{**s3_bucket.settings, "s3_bucket": "not-made"})

        with pytest.raises(StorageError, match="no bucket 'not-made'"), open_resources(settings):
            pass


class TestCommands:
    @pytest.fixture
    def regen(self, s3_bucket, monkeypatch, tmp_path):
        """Runs `regen` with the bucket's settings; others may be added."""
        for name, value in (s3_bucket.environment | {"REGEN_DATA_DIR": str(tmp_path / "data")}).items():
            monkeypatch.setenv(name, value)

        def regen(*arguments: str, **settings: str):
            with monkeypatch.context() as patched:
                for name, value in settings.items():
                    patched.setenv(f"REGEN_{name.upper()}", value)
                return CliRunner().invoke(application, arguments)

        return regen

    def test_check(self, regen, s3_bucket, tmp_path):
        answer = regen("storage", "check")

        assert answer.exit_code == 0, answer.output
        assert f"Bucket '{s3_bucket.name}'" in answer.stdout
        assert "signed URLs can be read" in answer.stdout
        assert s3_bucket.keys() == []
        assert not (tmp_path / "data").exists()

    def test_check_tells_of_a_public_address_that_leads_nowhere(self, regen, s3_bucket):
        for address in (f"http://127.0.0.1:{free_port()}", "not a url"):
            answer = regen("storage", "check", s3_public_endpoint_url=address)

            assert answer.exit_code == 1
            assert "REGEN_S3_PUBLIC_ENDPOINT_URL" in answer.stderr
        assert s3_bucket.keys() == []

    def test_check_of_a_directory(self, regen, tmp_path):
        mistyped = regen("storage", "check", storage="local")
        assert mistyped.exit_code != 0 and not (tmp_path / "data").exists()
        (tmp_path / "data").mkdir()
        answer = regen("storage", "check", storage="local")

        assert answer.exit_code == 0
        assert str(tmp_path / "data" / "storage") in answer.stdout

    def test_create_bucket(self, regen, s3_server):
        name = f"{s3_server.create_bucket()}-new"
        first = regen("storage", "create-bucket", s3_bucket=name, s3_prefix="regen/")
        second = regen("storage", "create-bucket", s3_bucket=name, s3_prefix="regen/")

        assert first.exit_code == second.exit_code == 0, first.output + second.output
        assert f"'{name}' was made" in first.stdout
        assert f"'{name}' is there" in second.stdout
        assert regen("storage", "check", s3_bucket=name).exit_code == 0
        if s3_server.is_complete:
            assert "after 2 days" in first.stdout
            (rule,) = s3_server.client.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
            assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 2}
        else:
            assert "Interrupted uploads stay" in first.stdout

    def test_rules_that_are_there_stay(self, regen, s3_bucket):
        if s3_bucket.server.is_complete:
            rule = {
                "ID": "theirs",
                "Status": "Enabled",
                "Filter": {"Prefix": "logs/"},
                "Expiration": {"Days": 9},
            }
            s3_bucket.server.client.put_bucket_lifecycle_configuration(
                Bucket=s3_bucket.name, LifecycleConfiguration={"Rules": [rule]}
            )
        answer = regen("storage", "create-bucket")

        assert answer.exit_code == 0
        if s3_bucket.server.is_complete:
            rules = s3_bucket.server.client.get_bucket_lifecycle_configuration(Bucket=s3_bucket.name)["Rules"]
            assert {rule["ID"] for rule in rules} == {"theirs", "regen-abort-incomplete-uploads"}

    def test_create_bucket_lets_web_pages_in(self, regen, s3_bucket):
        client, origin = s3_bucket.server.client, "https://app.example.com"
        if s3_bucket.server.is_complete:
            rule = {
                "ID": "theirs",
                "AllowedOrigins": ["https://theirs.example.com"],
                "AllowedMethods": ["GET"],
            }
            client.put_bucket_cors(Bucket=s3_bucket.name, CORSConfiguration={"CORSRules": [rule]})
        for _ in range(2):
            answer = regen("storage", "create-bucket", cors_origins=f"{origin},http://localhost:5173")

            assert answer.exit_code == 0
        if not s3_bucket.server.is_complete:
            assert "until you permit them" in answer.stdout
            return
        assert f"Web pages of {origin}, http://localhost:5173 may" in answer.stdout
        rules = client.get_bucket_cors(Bucket=s3_bucket.name)["CORSRules"]
        assert [rule["ID"] for rule in rules] == ["theirs", "regen-web-pages"]
        client.put_object(Bucket=s3_bucket.name, Key="a", Body=b"content")
        url = client.generate_presigned_url("get_object", Params={"Bucket": s3_bucket.name, "Key": "a"})
        page = {"Origin": origin}
        preflight = httpx.options(
            url,
            headers=page
            | {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "range"},
        )
        read = httpx.get(url, headers=page)
        assert (preflight.status_code, read.content) == (200, b"content")
        assert preflight.headers["Access-Control-Allow-Origin"] == origin
        assert read.headers["Access-Control-Allow-Origin"] == origin
        assert "etag" in read.headers["Access-Control-Expose-Headers"].lower()

    def test_create_bucket_without_the_right_key(self, regen):
        answer = regen("storage", "create-bucket", s3_bucket="another-bucket", s3_secret_key="not-the-secret")

        assert answer.exit_code == 1
        assert "may not see the bucket" in answer.stderr or "secret key" in answer.stderr

    def test_create_bucket_without_s3(self, regen):
        answer = regen("storage", "create-bucket", storage="local")

        assert answer.exit_code == 1
        assert "REGEN_STORAGE=s3" in answer.stderr

    def test_the_doctor(self, s3_bucket):
        found = check_storage(Settings(**s3_bucket.settings))
        missing = check_storage(Settings(**{**s3_bucket.settings, "s3_bucket": "not-made"}))

        assert (found.state, missing.state) == (FindingState.OK, FindingState.MISSING)
        assert s3_bucket.name in found.found
        assert "no bucket 'not-made'" in missing.found
