"""Signed URLs of stored files: range requests, conditions, names, and links that are altered or too old."""

import contextlib
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import httpx
import pytest

from app.platform.secrets import Secrets
from app.platform.storage.local import LocalStorage
from tests.servers.process import wait_until

CONTENT = bytes(range(256)) * 5000  # 1,280,000 bytes: more than one chunk
SIZE = len(CONTENT)
KEY = "renders/abc/output-1.mp4"

# Without a key, and patient: a machine under test may be slow.
get = partial(httpx.get, timeout=60)
head = partial(httpx.head, timeout=60)


@pytest.fixture
def storage(settings, server) -> LocalStorage:
    return LocalStorage(root=settings.storage_dir, url_key=Secrets.load(settings).url_key)


@pytest.fixture
def sign(storage: LocalStorage, server: str, tmp_path: Path) -> Callable[..., str]:
    def make(key: str = KEY, *, name: str = "clip-4x.mp4", lifetime_seconds: int = 60) -> str:
        (tmp_path / "file").write_bytes(CONTENT)
        storage.put_file(key, tmp_path / "file", content_type="video/mp4")
        return storage.signed_url(key, base_url=server, file_name=name, lifetime_seconds=lifetime_seconds)

    return make


def altered(url: str, **changes: str) -> str:
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()} | changes
    return urlunsplit(parts._replace(query=urlencode(query)))


def test_the_whole(sign):
    response = get(sign())

    assert (response.status_code, response.content) == (200, CONTENT)
    assert response.headers["Content-Type"] == "video/mp4"
    assert response.headers["Content-Length"] == str(SIZE)
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Content-Disposition"] == 'attachment; filename="clip-4x.mp4"'


def test_head(sign):
    url = sign()
    # Range is defined for GET alone.
    whole, part = head(url), head(url, headers={"Range": "bytes=5-9"})

    assert whole.content == part.content == b""
    assert (whole.status_code, whole.headers["Content-Length"]) == (200, str(SIZE))
    assert (part.status_code, part.headers["Content-Length"]) == (200, str(SIZE))
    changing = {"date": "", "x-request-id": ""}
    assert dict(whole.headers) | changing == dict(get(url).headers) | changing


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-", 0, SIZE - 1),
        ("bytes=100-199", 100, 199),
        ("bytes=1048570-1048590", 1048570, 1048590),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE - 1),
        ("bytes=1000000-99999999999", 1000000, SIZE - 1),
        ("bytes=-500", SIZE - 500, SIZE - 1),
        ("bytes=-99999999999", 0, SIZE - 1),
        ("BYTES = 1-2", 1, 2),
    ],
)
def test_a_range(sign, asked, first, last):
    response = get(sign(), headers={"Range": asked})

    assert response.status_code == 206
    assert response.content == CONTENT[first : last + 1]
    assert response.headers["Content-Range"] == f"bytes {first}-{last}/{SIZE}"
    assert response.headers["Content-Length"] == str(last - first + 1)
    assert response.headers["Content-Type"] == "video/mp4"


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", "bytes=-0", f"bytes={SIZE + 5}-{SIZE + 9}"])
def test_a_range_outside(sign, asked):
    response = get(sign(), headers={"Range": asked})

    assert response.status_code == 416
    assert response.headers["Content-Range"] == f"bytes */{SIZE}"
    message = "The file is shorter than the requested range."
    assert response.json() == {"errors": [{"message": message}]}


def test_ranges_that_may_be_ignored(sign):
    url = sign()
    for asked in (
        "bytes=5-4",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "lines=1-2",
        "bytes=0-1,5-6",
        "bytes=٣-٤".encode(),
    ):
        response = get(url, headers={"Range": asked})
        assert (response.status_code, response.content) == (200, CONTENT), asked


def test_a_range_of_what_has_changed_meanwhile(sign):
    url = sign()
    facts = head(url).headers
    for condition, status in (
        (facts["ETag"], 206),
        (facts["Last-Modified"], 206),
        ('"another"', 200),
        ("W/" + facts["ETag"], 200),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 200),
    ):
        response = get(url, headers={"Range": "bytes=0-9", "If-Range": condition})
        assert (response.status_code, len(response.content)) == (status, 10 if status == 206 else SIZE)


def test_what_the_client_already_has(sign):
    url = sign()
    tag = head(url).headers["ETag"]

    response = get(url, headers={"If-None-Match": f'"x", W/{tag}'})

    assert (response.status_code, response.content) == (304, b"")
    assert get(url, headers={"If-None-Match": '"x"'}).status_code == 200


OLD, NEW = "Sun, 06 Nov 1994 08:49:37 GMT", "Fri, 31 Dec 2100 23:59:59 GMT"


CONDITIONS: list[tuple[dict[str, str], int]] = [
    ({"If-Match": "{etag}"}, 200),
    ({"If-Match": '"x", {etag}'}, 200),
    ({"If-Match": "*"}, 200),
    ({"If-Match": '"x"'}, 412),
    ({"If-Match": "W/{etag}"}, 412),
    ({"If-Match": '"x"', "If-None-Match": "{etag}"}, 412),
    ({"If-Unmodified-Since": "{modified}"}, 200),
    ({"If-Unmodified-Since": NEW}, 200),
    ({"If-Unmodified-Since": OLD}, 412),
    ({"If-Unmodified-Since": "yesterday"}, 200),
    ({"If-Unmodified-Since": OLD, "If-Match": "{etag}"}, 200),
    ({"If-None-Match": "*"}, 304),
    ({"If-None-Match": "{etag}", "Range": "bytes=0-1"}, 304),
    ({"If-Modified-Since": "{modified}"}, 304),
    ({"If-Modified-Since": NEW}, 304),
    ({"If-Modified-Since": OLD}, 200),
    ({"If-Modified-Since": "Mon, 99 Nov 99999 99:99:99 GMT"}, 200),
    ({"If-Modified-Since": NEW, "If-None-Match": '"x"'}, 200),
    ({"If-Match": "{etag}", "Range": "bytes=0-1"}, 206),
    ({"If-Match": '"x"', "Range": f"bytes={SIZE}-"}, 412),
    ({"If-Range": '"x"', "Range": f"bytes={SIZE}-"}, 200),
]


def test_conditions(sign):
    """RFC 9110, section 13; the same for HEAD, but for ranges."""
    url = sign()
    facts = head(url).headers
    for conditions, status in CONDITIONS:
        headers = {
            name: value.format(etag=facts["ETag"], modified=facts["Last-Modified"])
            for name, value in conditions.items()
        }

        response = get(url, headers=headers)

        assert response.status_code == status, conditions
        assert response.content == {200: CONTENT, 206: CONTENT[:2], 304: b""}.get(status, response.content)
        assert status == 412 or response.headers["ETag"] == facts["ETag"]
        assert (status == 412) == ("errors" in response.text[:20])
        assert head(url, headers=headers).status_code == (200 if status == 206 else status)


def test_files_are_closed_when_their_readers_leave(sign, settings):
    """Also when they took nothing."""
    url = urlsplit(sign())
    readers = [socket.create_connection((url.hostname, url.port)) for _ in range(5)]
    for reader in readers:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.sendall(f"GET {url.path}?{url.query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    path = settings.storage_dir / KEY

    wait_until(lambda: open_count(path) == 5)
    for reader in readers:
        reader.close()
    wait_until(lambda: open_count(path) == 0)


def open_count(path: Path) -> int:
    """How often this process has the file open."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            count += link.readlink() == path
    return count


def test_the_tag_changes_with_the_content(sign):
    first = head(sign()).headers["ETag"]

    assert head(sign()).headers["ETag"] != first
    assert head(sign("renders/abc/output-2.mp4")).headers["ETag"] != first


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("clip.mp4", 'attachment; filename="clip.mp4"'),
        ("Größe 1.mp4", "attachment; filename=\"Grosse 1-597867.mp4\"; filename*=UTF-8''Gr%C3%B6%C3%9Fe%201.mp4"),
        ('a"b;c\\d.mp4', "attachment; filename=\"a_b_c_d-1442a3.mp4\"; filename*=UTF-8''a%22b%3Bc%5Cd.mp4"),
        ("a\r\nSet-Cookie: x.mp4", "attachment; filename=\"a_Set-Cookie_ x-8faf53.mp4\"; "
         "filename*=UTF-8''a%0D%0ASet-Cookie%3A%20x.mp4"),
        ("映画.mp4", "attachment; filename=\"YingHua-18cb31.mp4\"; filename*=UTF-8''%E6%98%A0%E7%94%BB.mp4"),
        ("映画", "attachment; filename=\"YingHua-d626ec\"; filename*=UTF-8''%E6%98%A0%E7%94%BB"),
    ],
)  # fmt: skip
def test_names_for_downloads(sign, name, header):
    response = head(sign(name=name))

    assert response.headers["Content-Disposition"] == header
    assert "Set-Cookie" not in response.headers


def test_an_altered_link(sign, storage, server, tmp_path):
    url = sign()
    sign("renders/abc/secret.mp4")
    signature = parse_qs(urlsplit(url).query)["signature"][0]
    for wrong in (
        url.replace("output-1.mp4", "secret.mp4"),
        altered(url, expires="99999999999"),
        altered(url, expires="soon"),
        altered(url, name="invoice.exe"),
        altered(url, signature=signature[:-1]),
        altered(url, signature=signature.swapcase()),
        altered(url, signature="ü"),
        url.split("?")[0],
        url.split("&signature")[0],
        f"{server}/storage/../regen.db?{urlsplit(url).query}",
        f"{server}/storage/%2e%2e/regen.db?{urlsplit(url).query}",
        f"{server}/storage/?{urlsplit(url).query}",
    ):
        response = get(wrong)
        assert (response.status_code, response.json()) == (
            404,
            {"errors": [{"message": "There is nothing at this address."}]},
        ), wrong


def test_a_link_signed_with_another_secret(sign, settings, server):
    sign()
    stranger = LocalStorage(root=settings.storage_dir, url_key=b"another")

    url = stranger.signed_url(KEY, base_url=server, file_name="a", lifetime_seconds=60)

    assert get(url).status_code == 404


def test_an_expired_link(sign):
    url = sign(lifetime_seconds=-1)

    response = get(url)

    assert (response.status_code, response.json()) == (
        403,
        {"errors": [{"message": "This link has expired."}]},
    )
    assert get(altered(url, expires="99999999999")).status_code == 404


def test_a_file_that_was_deleted(sign, storage):
    url = sign()
    storage.delete(KEY)

    response = get(url)

    assert response.status_code == 404
    assert response.json() == {"errors": [{"message": "This file is no longer here."}]}
