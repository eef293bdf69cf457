"""What the console says when something is missing or refused, and what a render was found to be."""

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.browser.conftest import administrators_key, key_of, url_of
from tests.browser.test_console import CLIP
from tests.servers.process import wait_until
from tests.servers.receiver import receiving

NO_WORKER = "No worker is running, so renders wait until one is started."


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[str]]]:
    """The address of a receiver of webhooks, and the ids of the events that it received."""
    received: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            received.append(self.headers["webhook-id"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hook", received
        server.shutdown()
        thread.join()


def test_a_delivery_is_sent_again(idle_server, sign_in, receiver):
    address, received = receiver
    page = sign_in(url_of(idle_server), key_of(idle_server))
    page.get_by_role("link", name="Webhooks").click()
    page.get_by_label("Address").fill(address)
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_role("button", name="Send a test").click()
    row = page.get_by_role("region", name="Deliveries").get_by_role("row").filter(has_text=address)
    row.get_by_text("delivered").wait_for()
    assert len(received) == 1
    row.get_by_role("button", name="1 attempt of").click()
    page.get_by_text("1. ").get_by_text("204").wait_for()

    with page.expect_response(lambda response: response.url.endswith("/replay")) as replay:
        row.get_by_role("button", name="Send again").click()
    assert replay.value.ok
    # What is open grows.
    page.get_by_text("2. ").get_by_text("204").wait_for()
    assert received == [received[0]] * 2, "the same event"


def test_a_result_is_sent_to_its_destination_again(server, sign_in):
    with receiving() as destination:
        destination.answer = lambda _put: 200 if len(destination.received) > 1 else 403
        with CLIP.open("rb") as clip:
            data = {"end": "0.4", "destination": destination.url}
            asked = server.client.post("/v1/upscale", files={"file": clip}, data=data)
        render = asked.raise_for_status().json()["render"]
        page = sign_in(url_of(server), key_of(server))
        wait_until(lambda: len(destination.received) == 1, seconds=60, what="the result is sent")
        page.goto(f"{url_of(server)}/#/renders/{render['id']}")
        page.get_by_text("It answered 403.").wait_for()
        page.get_by_role("button", name="Send again").click()
        page.get_by_text("It is sent again.").wait_for()
        wait_until(lambda: len(destination.received) == 2, seconds=30, what="it is sent again")


def test_nobody_is_there_to_render(idle_server, sign_in):
    with CLIP.open("rb") as clip:
        asked = idle_server.client.post("/v1/upscale", files={"file": clip})
    render = asked.raise_for_status().json()["render"]
    page = sign_in(url_of(idle_server), key_of(idle_server))
    page.goto(f"{url_of(idle_server)}/#/renders/{render['id']}")
    page.get_by_text("in the queue").wait_for()
    page.get_by_role("list", name="Warnings").get_by_text(NO_WORKER).wait_for()

    page = sign_in(url_of(idle_server), administrators_key(idle_server))
    page.get_by_role("link", name="Operations").click()
    page.get_by_role("alert").get_by_text(NO_WORKER).wait_for()
    page.get_by_role("list", name="Warnings").get_by_text(NO_WORKER).wait_for()


def test_the_disk_is_full(full_server, sign_in):
    page = sign_in(url_of(full_server), key_of(full_server), expected=("503",))
    page.set_input_files("input[type=file]", CLIP)
    page.get_by_text(
        "There is no room for uploads just now. Try again later; it goes on by itself"
    ).wait_for()
    page.get_by_role("button", name="Pause").click()


def test_what_is_not_a_video_is_refused_with_a_reason(idle_server, sign_in, tmp_path):
    notes = tmp_path / "notes.mp4"
    notes.write_text("This is not a video. " * 100)
    page = sign_in(url_of(idle_server), key_of(idle_server), expected=("415",))
    page.set_input_files("input[type=file]", notes)
    card = page.get_by_role("article", name="notes.mp4")
    said = card.get_by_role("alert")
    said.wait_for()
    assert "video" in said.inner_text()
    assert said.inner_text().endswith("otherwise choose another file.")
    # The same would be refused again.
    assert card.get_by_role("button", name="Try again").count() == 0
    assert card.get_by_role("button", name="Choose another video").is_visible()
    page.get_by_role("button", name="Remove notes.mp4").click()
    said.wait_for(state="detached")


def test_the_network_is_away(idle_server, sign_in):
    page = sign_in(url_of(idle_server), key_of(idle_server), expected=("ERR_INTERNET_DISCONNECTED",))
    # The other views are loaded one after the other once nothing else is to be done, this one last.
    loaded = "performance.getEntriesByType('resource').some(entry => entry.name.includes('render_again'))"
    wait_until(lambda: page.evaluate(loaded), what="all views are loaded")
    page.context.set_offline(True)
    page.get_by_role("alert").get_by_text(
        "There is no network. What was begun goes on when it is back."
    ).wait_for()
    # Views that were not opened before are there all the same.
    page.get_by_role("link", name="Usage").click()
    page.get_by_role("heading", name="Usage").wait_for()
    page.get_by_role("alert").get_by_text("The server cannot be reached.").wait_for()
    page.context.set_offline(False)
    page.get_by_role("heading", name="Limits").wait_for()


def received_parts(server, upload):
    return server.client.get(f"/v1/uploads/{upload['id']}").json()["upload"]["receivedParts"]


def test_an_upload_that_is_cut_goes_on(server, sign_in, tmp_path):
    """300 MB, of which a part is refused in mid-way, then the page is loaded anew: what arrived is not sent again."""
    large = tmp_path / "large.mp4"
    content = CLIP.read_bytes()
    with large.open("wb") as file:
        file.write(content)
        file.write((300_000_000 - len(content)).to_bytes(4, "big") + b"free")
        file.truncate(300_000_000)
    page = sign_in(url_of(server), key_of(server), expected=("ERR_INTERNET_DISCONNECTED", "ERR_FAILED"))
    page.set_input_files("input[type=file]", large)
    # More than what is under way at once: some parts have arrived.
    page.get_by_text(re.compile("[1-9][0-9]% sent")).wait_for()
    page.context.set_offline(True)
    page.get_by_text("There is no network.").wait_for()
    page.get_by_text("it goes on by itself").wait_for()
    page.context.set_offline(False)
    page.get_by_text(re.compile("[0-9]% sent")).wait_for()
    page.get_by_role("button", name="Pause").click()
    page.get_by_text("Paused at").wait_for()
    page.on("dialog", lambda dialog: dialog.accept())
    page.reload()
    page.get_by_role("heading", name="New renders").wait_for()
    (upload,) = server.client.get("/v1/uploads").json()["uploads"]
    # Parts that were under way may still arrive for a moment.
    arrived = -1
    while (now := len(received_parts(server, upload))) != arrived:
        arrived = now
        page.wait_for_timeout(1500)
    assert arrived > 0
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "PUT" else None)
    page.set_input_files("input[type=file]", large)
    page.get_by_text("Resumed.").wait_for()
    page.get_by_text("240 × 136, 25 fps").wait_for(timeout=60_000)
    assert len(sent) == upload["partCount"] - arrived


def test_the_server_goes_away_and_comes_back(server, sign_in):
    page = sign_in(url_of(server), key_of(server), expected=("ERR_FAILED", "503"))
    page.get_by_role("link", name="Renders").click()
    page.get_by_role("heading", name="Renders").wait_for()
    page.route("**/v1/**", lambda route: route.abort())
    page.get_by_label("Show").select_option("failed")
    page.get_by_role("alert").get_by_text("The server cannot be reached.").wait_for()
    page.unroute("**/v1/**")
    page.get_by_role("alert").wait_for(state="detached")


def test_measured_quality_and_warnings(server, sign_in):
    """For a reader who writes decimals with a comma."""
    data = {"quality": "true", "end": "0.4", "Codec": "av1", "stabilise": "2"}
    with CLIP.open("rb") as clip:
        asked = server.client.post("/v1/upscale", files={"file": clip}, data=data)
    render = asked.raise_for_status().json()["render"]
    page = sign_in(url_of(server), key_of(server), locale="de-DE")
    page.goto(f"{url_of(server)}/#/renders/{render['id']}")
    page.get_by_role("list", name="Warnings").get_by_text("was ignored: did you mean").wait_for()
    page.get_by_role("heading", name="Measured quality").wait_for()
    measured = server.client.get(f"/v1/renders/{render['id']}").json()["render"]["quality"]
    ssim = f"{measured['ssim']:.4f}".replace(".", ",")
    bar = page.get_by_role("meter", name=f"SSIM: {ssim}")
    assert bar.get_attribute("value") == str(measured["ssim"])
    page.get_by_role("meter", name="PSNR: ").wait_for()
    effect = measured["stabiliseEffect"]
    left = effect["warpingErrorAfter"] / effect["warpingErrorBefore"]
    page.get_by_role("heading", name="What stabilise did").wait_for()
    assert page.get_by_role("meter", name="Flicker Before: ").get_attribute("value") == "1"
    after = page.get_by_role("meter", name="Flicker After: ").get_attribute("value")
    assert float(after or 0) == pytest.approx(left, abs=1e-6)
    page.get_by_text(f"{100 * (1 - left):.0f}\u00a0% less flicker; ").wait_for()


def test_a_page_that_is_looked_at_again_asks_at_once(idle_server, sign_in):
    page = sign_in(url_of(idle_server), key_of(idle_server))
    page.get_by_role("link", name="Usage").click()
    page.get_by_role("heading", name="Limits").wait_for()

    def hide(hidden: bool) -> None:
        page.evaluate(
            """(hidden) => {
              Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
              document.dispatchEvent(new Event("visibilitychange"));
            }""",
            hidden,
        )

    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    hide(True)
    assert not [url for url in asked if url.endswith("/v1/usage")]
    # By itself it asks every 30 s.
    with page.expect_response("**/v1/usage", timeout=15_000):
        hide(False)
