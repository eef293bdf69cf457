"""`file_url` of POST /v1/upscale: videos that the server fetches from a real server on loopback."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from app.platform.settings import Settings
from tests.servers.process import wait_until


class Origin(ThreadingHTTPServer):
    """Answers with `content`; the query says what is odd about it. `asked` are the paths, `left` is set when a client
    went away in the middle of `/endless`."""

    daemon_threads = True
    content = b""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.begun, self.left = threading.Event(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Origin
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        content = self.server.content
        time.sleep(float(query.get("after", ["0"])[0]))
        self.send_response(int(query.get("status", ["200"])[0]))
        for name in ("Location", "Content-Disposition", "Content-Encoding"):
            if name in query:
                self.send_header(name, query[name][0])
        if path in ("/endless", "/chunked"):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.server.begun.set()
            self.send_chunks(endless=path == "/endless")
            return
        self.send_header("Content-Length", str(len(content) + int(query.get("more", ["0"])[0])))
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = "more" in query

    def send_chunks(self, *, endless: bool) -> None:
        content = bytes(1000) if endless else self.server.content
        try:
            while True:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))
                if not endless:
                    self.wfile.write(b"0\r\n\r\n")
                    return
        except OSError:
            self.server.left.set()

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def origin(clip: Path) -> Iterator[Origin]:
    server = Origin()
    server.content = clip.read_bytes()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return Settings(
        data_dir=settings.data_dir,
        broker_url=settings.broker_url,
        broker_password=settings.broker_password,
        allow_file_urls=True,
        outbound_allowed_networks="127.0.0.0/8",
        max_upload_bytes=1_000_000,
    )


def upscale(client: httpx.Client, url: str, **more: str) -> httpx.Response:
    return client.post("/v1/upscale", json={"file_url": url, **more}, timeout=60)


def messages(answer: httpx.Response) -> list[str]:
    return [error["message"] for error in answer.json()["errors"]]


class TestFetching:
    def test_it_becomes_a_file_alone(self, client, origin, spool_files):
        asked = {"file_url": f"{origin.url}/my%20film.mp4"}
        answers = [
            client.post("/v1/files", **body, headers={"Idempotency-Key": "one"}, timeout=60)
            for body in ({"json": asked}, {"json": asked})
        ]
        first, again = (answer.raise_for_status().json()["file"] for answer in answers)
        assert first == again
        assert (first["name"], first["width"], len(origin.asked)) == ("my film.mp4", 240, 1)
        contents = client.get(f"/v1/files/{first['id']}/contents").json()["contents"]
        assert (contents["codec"], contents["pixelFormat"], contents["sound"]) == ("h264", "yuv420p", ["aac"])
        assert client.get("/v1/renders").json()["renders"] == []
        both = client.post("/v1/files", data=asked, files={"file": b"x"})
        assert messages(both) == [
            f'Exactly one of `file` and `file_url` is needed; given: `file` and `file_url` "{asked["file_url"]}".'
        ]
        assert "file_url" in client.post("/v1/files", json={"file_url": "ftp://x/y"}).text
        assert spool_files() == []

    def test_it_becomes_a_file_and_a_render(self, client, origin, spool_files):
        answer = upscale(client, f"{origin.url}/my%20film.mp4?token=1", engine="regen-4x")

        assert answer.status_code == 200, answer.text
        render = answer.json()["render"]
        assert (render["engine"], render["input"]["width"]) == ("regen-4x", 240)
        file = client.get(f"/v1/files/{render['fileId']}").json()["file"]
        assert (file["name"], file["sizeBytes"]) == ("my film.mp4", len(origin.content))
        assert httpx.get(render["inputFileURL"]).content == origin.content
        assert origin.asked == ["/my%20film.mp4?token=1"]
        assert spool_files() == []

    @pytest.mark.parametrize("body", ["data", "files"])
    def test_in_forms(self, client, origin, body):
        if body == "files":
            answer = client.post("/v1/upscale", files={"file_url": (None, f"{origin.url}/a.mp4")})
        else:
            answer = client.post("/v1/upscale", data={"file_url": f"{origin.url}/a.mp4"})

        assert answer.status_code == 200, answer.text

    def test_redirects_and_names(self, client, origin):
        named = "/b?Content-Disposition=attachment%3B+filename%3D%22../x/other.mov%22"

        answer = upscale(client, f"{origin.url}/a.mp4?status=302&Location={named.replace('%', '%25')}")

        assert answer.status_code == 200, answer.text
        file = client.get(f"/v1/files/{answer.json()['render']['fileId']}").json()["file"]
        assert file["name"] == "other.mov"

    def test_a_body_in_chunks(self, client, origin):
        assert upscale(client, f"{origin.url}/chunked").status_code == 200

    def test_an_estimate_looks_at_it_and_keeps_nothing(self, client, origin, spool_files, stored_files):
        answer = client.post("/v1/estimates", json={"file_url": f"{origin.url}/a.mp4"})

        assert answer.status_code == 200, answer.text
        assert answer.json()["estimate"]["input"]["frames"] == 50
        assert spool_files() == stored_files() == []

    def test_once_with_an_idempotency_key(self, client, origin):
        client.headers["Idempotency-Key"] = "one"
        answers = [upscale(client, f"{origin.url}/a.mp4") for _ in range(2)]

        assert answers[0].json()["render"]["id"] == answers[1].json()["render"]["id"]
        assert origin.asked == ["/a.mp4"]
        assert upscale(client, f"{origin.url}/b.mp4").status_code == 409


class TestRefusals:
    def check(self, answer: httpx.Response, status: int, *words: str) -> None:
        assert answer.status_code == status, answer.text
        (message,) = messages(answer)
        assert all(word in message for word in words), message

    def test_not_unless_the_operator_allows_it(self, serve, settings, key, origin):
        client = serve(settings.model_copy(update={"allow_file_urls": False}), key=key)

        self.check(upscale(client, f"{origin.url}/a.mp4"), 400, "not allowed on this server")
        assert origin.asked == []

    def test_no_internal_addresses(self, serve, settings, key, origin):
        client = serve(settings.model_copy(update={"outbound_allowed_networks": ()}), key=key)

        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "nobody.invalid"):
            answer = upscale(client, f"http://{host}:{origin.server_port}/a.mp4")
            self.check(answer, 400, "This server may not connect to that address")
        assert origin.asked == []

    @pytest.mark.parametrize(
        "url", ["file:///etc/passwd", "ftp://a.example/b", "http://a:b@c.example/", "no"]
    )
    def test_what_is_no_such_url(self, client, url):
        self.check(upscale(client, url), 400, "`file_url` cannot be fetched.")

    def test_what_the_other_side_does_wrong(self, client, origin, spool_files, stored_files):
        more = "Content-Encoding=gzip"
        self.check(upscale(client, f"{origin.url}/a?status=404"), 400, "status 404")
        self.check(upscale(client, f"{origin.url}/a?{more}"), 400, "compressed")
        self.check(upscale(client, f"{origin.url}/a?more=5"), 400, "closed the connection early")
        self.check(
            upscale(client, f"{origin.url}/a?status=302&Location=http://[::1]:1/"), 400, "may not connect"
        )
        self.check(upscale(client, "http://127.0.0.1:1/"), 400, "cannot be reached")
        origin.content = b"no video at all"
        self.check(upscale(client, f"{origin.url}/a"), 415)
        origin.content = b""
        self.check(upscale(client, f"{origin.url}/a"), 400, "empty")

        assert spool_files() == stored_files() == []

    def test_too_much(self, client, origin, spool_files):
        self.check(upscale(client, f"{origin.url}/endless"), 413, "1000000 bytes")
        self.check(upscale(client, f"{origin.url}/a?more=2000000"), 413, "1000000 bytes")

        assert spool_files() == []

    def test_too_slow(self, serve, settings, key, origin):
        limits = {"fetch_timeout_seconds": 0.5, "max_upload_bytes": 10**12}
        client = serve(settings.model_copy(update=limits), key=key)

        self.check(upscale(client, f"{origin.url}/endless"), 400, "took too long")
        again_and_again = f"{origin.url}/a?status=302&after=0.3&Location=/a%3Fstatus%3D302%26after%3D0.3"
        self.check(upscale(client, again_and_again), 400, "took too long")

    def test_exactly_one_source(self, client, origin, clip):
        with clip.open("rb") as file:
            answer = client.post(
                "/v1/upscale", files={"file": file}, data={"file_url": f"{origin.url}/a.mp4"}
            )

        self.check(answer, 400, "Exactly one of", "`file` and `file_url`")


def test_fetching_ends_when_the_client_leaves(serve, settings, key, origin, spool_files):
    client = serve(settings.model_copy(update={"max_upload_bytes": 10**12}), key=key)
    with pytest.raises(httpx.ReadTimeout):
        client.post("/v1/upscale", json={"file_url": f"{origin.url}/endless"}, timeout=3.0)

    assert origin.begun.is_set()
    wait_until(origin.left.is_set, seconds=30, what="the server stops fetching")
    wait_until(lambda: spool_files() == [], seconds=30, what="the spool file is removed")
