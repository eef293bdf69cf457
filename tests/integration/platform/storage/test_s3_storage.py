"""What is particular to a bucket of an S3 server: addresses, large files, and other people's things."""

import json
import socket
import ssl
import time
from urllib.parse import urlsplit

import httpx
import pytest

from app.platform.byte_sizes import MIB
from app.platform.errors import AccessRefused, KeyNotFound, StorageError
from app.platform.settings import Settings
from app.platform.storage.contract import attachment
from app.platform.storage.s3 import S3Storage
from app.platform.storage.s3_connection import S3Options, connect
from app.work.outage_retry import OutageRetry
from tests.servers.broker import make_certificates
from tests.servers.process import free_port
from tests.servers.relay import http_answer, relay_to
from worker.transfers import StorageTransfers

OUTPUT = "renders/a/output-1.mp4"


@pytest.fixture
def every_name_is_loopback(monkeypatch):
    """As if a wildcard in the DNS pointed all of *.localhost to this machine."""
    resolve = socket.getaddrinfo

    def loopback(host, *arguments, **options):
        name = host.decode() if isinstance(host, bytes) else host
        return resolve("127.0.0.1" if name and name.endswith(".localhost") else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", loopback)


def sign(storage: S3Storage, *, key: str = OUTPUT, name: str = "clip.mp4", lifetime_seconds: int = 60) -> str:
    return storage.signed_url(key, base_url="", file_name=name, lifetime_seconds=lifetime_seconds)


def by_single_request(storage: S3Storage, name: str) -> bytes | None:
    """The object of that name in the bucket; None if boto3 would have to be asked."""
    assert storage.connection.single_requests is not None
    answer = storage.connection.single_requests.get(name)
    if answer is None:
        return None
    with answer as body:
        return b"".join(body.stream())


class TestSignedUrls:
    def test_they_end_when_they_say(self, open_bucket, make_file):
        storage = open_bucket()
        storage.put_file(OUTPUT, make_file(b"x"), content_type="video/mp4")
        lifetime = 2
        signed_at = time.time()
        url = sign(storage, lifetime_seconds=lifetime)

        worked_at = None
        while True:
            asked_at = time.time()
            status = httpx.get(url).status_code
            if status != 200:
                break
            worked_at = asked_at
            time.sleep(0.05)

        assert worked_at is not None
        assert status == 403
        # The beginning is signed in whole seconds, rounded down.
        assert worked_at <= signed_at + lifetime + 1
        assert time.time() >= signed_at + lifetime - 1

    @pytest.mark.parametrize(
        "name", ["my clip-4x.mp4", 'Größe "ü" 日本.mp4', "a+b&c=d;e%20f.mp4", "💾" * 120]
    )
    def test_the_name_to_save_as(self, open_bucket, s3_server, make_file, name):
        storage = open_bucket()
        storage.put_file(OUTPUT, make_file(b"0123456789"), content_type="video/mp4")

        response = httpx.get(sign(storage, name=name))

        assert (response.status_code, response.content) == (200, b"0123456789")
        if s3_server.is_complete:
            assert response.headers["Content-Disposition"] == attachment(name)

    def test_they_are_signed_for_the_address_that_clients_use(self, open_bucket, s3_server, make_file):
        storage = open_bucket(s3_public_endpoint_url=f"http://localhost:{s3_server.port}")
        storage.put_file(OUTPUT, make_file(b"x"), content_type="video/mp4")
        url = sign(storage)

        assert url.startswith(f"http://localhost:{s3_server.port}/{storage.connection.bucket}/{OUTPUT}?")
        assert httpx.get(url).content == b"x"
        assert httpx.get(url.replace("//localhost:", "//127.0.0.1:")).status_code == 403

    def test_nobody_is_asked(self, open_bucket):
        address = f"https://127.0.0.1:{free_port()}"
        url = sign(open_bucket(s3_endpoint_url=address))

        assert url.startswith(address)
        assert "X-Amz-Expires=60&" in url

    def test_no_credentials_but_the_access_key_are_in_them(self, open_bucket, s3_server):
        assert s3_server.secret_key not in sign(open_bucket())


class TestAddressing:
    def test_the_bucket_in_the_host_name(
        self, open_bucket, s3_server, make_file, tmp_path, every_name_is_loopback
    ):
        endpoint = f"http://localhost:{s3_server.port}"
        storage = open_bucket(s3_endpoint_url=endpoint, s3_addressing="virtual")
        url = sign(storage)

        assert url.startswith(f"http://{storage.connection.bucket}.localhost:{s3_server.port}/{OUTPUT}?")
        if s3_server.is_complete:
            storage.check()
            storage.put_file(OUTPUT, make_file(b"x"), content_type="video/mp4")
            storage.fetch(OUTPUT, tmp_path / "fetched")
            assert (tmp_path / "fetched").read_bytes() == by_single_request(storage, OUTPUT) == b"x"
            assert httpx.get(url).content == b"x"

    @pytest.mark.parametrize(
        ("settings", "host", "path"),
        [
            ({}, "a-bucket.s3.amazonaws.com", "/a"),
            ({"s3_region": "eu-central-1"}, "a-bucket.s3.eu-central-1.amazonaws.com", "/a"),
            ({"s3_endpoint_url": "https://s3.example.org"}, "s3.example.org", "/a-bucket/a"),
            (
                {"s3_endpoint_url": "https://s3.example.org", "s3_addressing": "virtual"},
                "a-bucket.s3.example.org",
                "/a",
            ),
            (
                {"s3_endpoint_url": "http://s3:9000", "s3_public_endpoint_url": "https://cdn.example.org"},
                "cdn.example.org",
                "/a-bucket/a",
            ),
        ],
    )
    def test_where_urls_point(self, settings, host, path):
        keys = {"s3_access_key": "key", "s3_secret_key": "secret"}
        storage = S3Storage(connect(Settings(storage="s3", s3_bucket="a-bucket", **keys, **settings)))
        parts = urlsplit(sign(storage, key="a"))

        assert (parts.hostname, parts.path) == (host, path)


def test_whether_one_object_is_refused_or_its_whole_folder(
    open_bucket, s3_bucket, s3_server, make_file, tmp_path
):
    open_bucket().put_file(OUTPUT, make_file(b"x"), content_type="video/mp4")

    with relay_to(s3_server.port) as relay:

        def refused(pattern: str) -> S3Storage:
            """The bucket of one who may read everything else."""
            keys = {}
            if s3_server.is_complete:
                everything = f"arn:aws:s3:::{s3_bucket.name}"
                allow = {"Action": "s3:*", "Resource": [everything, f"{everything}/*"]}
                deny = {"Action": "s3:GetObject", "Resource": f"{everything}/{pattern}"}
                policy = {
                    "Version": "2012-10-17",
                    "Statement": [
                        {"Effect": "Allow", "Principal": "*", **allow},
                        {"Effect": "Deny", "Principal": "*", **deny},
                    ],
                }
                s3_server.client.put_bucket_policy(Bucket=s3_bucket.name, Policy=json.dumps(policy))
                keys = dict(zip(("s3_access_key", "s3_secret_key"), s3_server.stranger, strict=True))
            else:
                relay.answers = [http_answer("403 Forbidden", code="AccessDenied")]
            return open_bucket(s3_endpoint_url=f"http://127.0.0.1:{relay.port}", **keys)

        storage = refused(OUTPUT)
        with pytest.raises(AccessRefused):
            storage.fetch(OUTPUT, tmp_path / "fetched")
        storage.check(beside=OUTPUT)
        with pytest.raises(StorageError, match="may not"):
            refused("renders/a/*").check(beside=OUTPUT)
    assert s3_bucket.keys() == [OUTPUT]


def test_tls_with_an_authority_of_ones_own(open_bucket, s3_server, make_file, tmp_path):
    authority = make_certificates(tmp_path)
    certificate, key = tmp_path / "server.crt", tmp_path / "server.key"
    with relay_to(s3_server.port, certificate=certificate, key=key) as relay:
        storage = open_bucket(s3_endpoint_url=f"https://localhost:{relay.port}", s3_ca_file=authority)
        storage.check()
        storage.put_file(OUTPUT, make_file(b"x" * MIB), content_type="video/mp4")
        storage.fetch(OUTPUT, tmp_path / "fetched")
        assert by_single_request(storage, OUTPUT) == b"x" * MIB
        response = httpx.get(sign(storage), verify=ssl.create_default_context(cafile=authority))

    assert (tmp_path / "fetched").read_bytes() == response.content == b"x" * MIB


@pytest.mark.parametrize(
    ("settings", "base_url", "region"),
    [
        ({}, "https://a-bucket.s3.eu-west-3.amazonaws.com/", "eu-west-3"),
        ({"s3_endpoint_url": "http://s3:9000"}, "http://s3:9000/a-bucket/", "eu-west-3"),
        ({"s3_bucket": "a.bucket"}, "https://s3.eu-west-3.amazonaws.com/a.bucket/", "eu-west-3"),
        ({"s3_bucket": "a-bucket--euw3-az1--x-s3"}, None, None),
        ({"s3_bucket": "arn:aws:s3::123456789012:accesspoint:mfzwi23gnjvgw.mrap"}, None, None),
    ],
)
def test_what_single_requests_are_made_for(settings, base_url, region):
    keys = {"s3_access_key": "key", "s3_secret_key": "secret", "s3_region": "eu-west-3"}
    single = connect(Settings(**{"s3_bucket": "a-bucket", **keys, **settings})).single_requests

    assert (single and single.base_url, single and single.region) == (base_url, region)


def test_single_requests_do_not_go_around_a_proxy(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    keys = {"s3_bucket": "a-bucket", "s3_access_key": "key", "s3_secret_key": "secret"}

    assert connect(Settings(**keys, s3_endpoint_url="http://s3:9000")).single_requests is None


def test_many_files_are_fetched_in_runs(open_bucket, make_file, tmp_path):
    storage = open_bucket()
    keys = [f"key-{number}" for number in range(40)]
    for key in keys:
        storage.put_file(key, make_file(key.encode()), content_type="video/mp4")
    transfers = StorageTransfers(storage=storage, outage_retry=OutageRetry(seconds=0))
    files = {key: tmp_path / key for key in keys}
    transfers.fetch_all(files, cancelled=lambda: False)
    assert [path.read_text() for path in files.values()] == keys

    with pytest.raises(KeyNotFound):
        transfers.fetch_all({**files, "none": tmp_path / "none"}, cancelled=lambda: False)
    assert not (tmp_path / "none").exists()


class TestLargeFiles:
    CONTENT = bytes(range(256)) * (12 * 4096)  # 12 MiB

    def test_in_parts_and_back(self, open_bucket, s3_bucket, make_file, tmp_path):
        storage = open_bucket(options=S3Options(part_bytes=5 * MIB))
        path = make_file(self.CONTENT)
        storage.put_file(OUTPUT, path, content_type="video/mp4")
        storage.fetch(OUTPUT, tmp_path / "fetched")

        found = s3_bucket.server.client.head_object(Bucket=s3_bucket.name, Key=OUTPUT)
        assert found["ETag"].endswith('-3"')
        assert found["ContentType"] == "video/mp4"
        assert not path.exists()
        assert (tmp_path / "fetched").read_bytes() == self.CONTENT
        assert [path.name for path in tmp_path.iterdir()] == ["fetched"]
        assert s3_bucket.incomplete_uploads() == []


class TestSharedBuckets:
    def test_each_prefix_is_a_storage_of_its_own(self, open_bucket, s3_bucket, make_file):
        ours, theirs = open_bucket(s3_prefix="ours/"), open_bucket(s3_prefix="theirs/of/theirs/")
        ours.put_file("a", make_file(b"1"), content_type="video/mp4")
        theirs.put_file("a", make_file(b"22"), content_type="video/mp4")

        assert s3_bucket.keys() == ["ours/a", "theirs/of/theirs/a"]
        assert [(found.key, found.size_bytes) for found in theirs.list("")] == [("a", 2)]
        ours.delete("a")
        assert theirs.stat("a").size_bytes == 2
        assert by_single_request(theirs, "theirs/of/theirs/a") == b"22"
        with pytest.raises(KeyNotFound):
            ours.stat("a")

    def test_listing_goes_on_after_the_first_page(self, open_bucket, make_file):
        storage = open_bucket(options=S3Options(page_keys=2))
        keys = [f"renders/a/{number}" for number in range(5)]
        for key in keys:
            storage.put_file(key, make_file(b"x"), content_type="video/mp4")

        assert sorted(found.key for found in storage.list("renders/")) == keys

    def test_what_is_not_ours_is_not_listed(self, open_bucket, s3_bucket, make_file):
        storage = open_bucket(s3_prefix="regen/")
        storage.put_file("a", make_file(b"x"), content_type="video/mp4")
        for name in ("regen/.check-left-behind", "regen/b c", "regen/ü", "elsewhere"):
            s3_bucket.server.client.put_object(Bucket=s3_bucket.name, Key=name, Body=b"")

        assert [found.key for found in storage.list("")] == ["a"]

    def test_a_check_leaves_nothing(self, open_bucket, s3_bucket):
        open_bucket(s3_prefix="regen/").check()

        assert s3_bucket.keys() == []
