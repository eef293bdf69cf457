"""What people do in the console, in a real browser."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import httpx

from tests.browser.conftest import administrators_key, drop, judge, key_of, sign_in_link, url_of
from tests.browser.pictures import draw, frames_shown
from tests.servers.forked import ForkedProcess
from tests.servers.process import wait_until

CLIP = Path(__file__).parents[1] / "media/short/bunny-240x136-25fps.mp4"
# What each view has once it is loaded.
VIEWS = {
    "": ".drop",
    "renders": "ul[aria-label=Renders] li",
    "usage": ".facts-table",
    "webhooks": "[aria-label=Deliveries], .empty",
    "keys": "ul[aria-label=Keys] li",
    "users": "ul[aria-label=Users] li",
    "operations": "[aria-label='Renders of all users']",
}


def test_the_link_signs_in_once(full_server, open_page):
    page = open_page(sign_in_link(full_server), expected=("503",))
    page.get_by_role("heading", name="New renders").wait_for()
    page.get_by_role("link", name="Operations").wait_for()
    assert page.url == f"{url_of(full_server)}/#/"
    page.get_by_role("link", name="Operations").click()
    why = httpx.get(f"{url_of(full_server)}/readyz").json()["errors"][0]["message"]
    page.get_by_role("listitem").filter(has_text="This process").get_by_text(why).wait_for()
    page = open_page(sign_in_link(full_server), expected=("401",))
    page.get_by_role("alert").get_by_text("This link has been used").wait_for()


def test_a_part_is_compared_with_that_part(server, sign_in, graded_clip):
    with graded_clip.open("rb") as clip:
        asked = server.client.post("/v1/upscale", files={"file": clip}, data={"start": "0.4", "end": "0.8"})
    render = server.wait(asked.raise_for_status().json()["render"]["id"])
    page = sign_in(url_of(server), key_of(server))
    page.goto(f"{url_of(server)}/#/renders/{render['id']}")
    page.get_by_role("figure", name="Before and after").wait_for()
    assert frames_shown(page, seconds=0.2, steps=2) == [[15, 15], [16, 16]]


def test_from_the_video_to_the_result(server, sign_in, graded_clip):
    page = sign_in(url_of(server), key_of(server))

    page.set_input_files("input[type=file]", graded_clip)
    card = page.get_by_role("article", name="graded.mp4")
    card.get_by_text("64 × 48, 25 fps, 1 s").wait_for()
    card.get_by_text("H264, 8 bits, SDR, no sound").wait_for()
    card.get_by_text("256 × 192, 25 fps, 1 s").wait_for()
    card.get_by_text("More options").click()
    card.get_by_label("End", exact=True).fill("0.4")
    card.get_by_label("End", exact=True).blur()
    card.get_by_text("256 × 192, 25 fps, 0.4 s").wait_for()
    card.get_by_label("End", exact=True).fill("")
    card.get_by_label("Metadata").fill("scene: 12")
    # What is typed outlives the estimate that arrives meanwhile.
    card.get_by_text("256 × 192, 25 fps, 1 s").wait_for()
    assert card.get_by_label("Metadata").input_value() == "scene: 12"
    card.get_by_label("Target rate").fill("50")
    card.get_by_label("Target rate").blur()
    card.get_by_text("256 × 192, 50 fps, 1 s").wait_for()
    card.get_by_text("The same as a request").click()
    request = card.get_by_role("tabpanel").inner_text()
    assert "-F 'target_fps=50'" in request
    assert """-F 'metadata={"scene":"12"}'""" in request
    assert "codec" not in request, "only what was chosen"

    card.get_by_role("button", name="Try a moment first").click()
    card.get_by_role("button", name="Choose a part").click()
    card.get_by_label("Left").fill("60")
    card.get_by_label("Left").blur()
    assert card.get_by_label("Left").input_value() == "32", "the part stays in the picture"
    draw(page, card.get_by_label("The video"), (0.25, 0.5), (0.75, 1))
    card.get_by_role("button", name="Show this moment").click()
    after = card.get_by_role("figure", name=re.compile("regen-4x at")).get_by_role(
        "img", name=re.compile("After")
    )
    after.wait_for()
    page.wait_for_function("(image) => image.naturalWidth === 128", arg=after.element_handle())
    (shown, *_) = server.client.get("/v1/previews").json()["previews"]
    assert shown["crop"] == {"x": 16, "y": 24, "width": 32, "height": 24}
    card.get_by_role("button", name="Choose regen-4x", exact=True).click()
    card.get_by_label("Target rate").fill("")
    card.get_by_label("Target rate").blur()
    card.get_by_role("button", name="Render", exact=True).click()

    figure = page.get_by_role("figure", name="Before and after")
    figure.wait_for()
    page.get_by_role("heading", name="graded.mp4").wait_for()
    page.get_by_text(re.compile(r"25 frames.*\d kB", re.S)).last.wait_for()
    assert page.get_by_text("regen-4x", exact=True).is_visible()
    assert frames_shown(page, seconds=0.4, steps=3) == [[10, 10], [11, 11], [12, 12]]

    page.get_by_text("The request that made it").click()
    request = page.get_by_role("tabpanel").inner_text()
    assert "-F 'engine=regen-4x'" in request
    assert """-F 'metadata={"scene":"12"}'""" in request

    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert Path(download.value.path()).read_bytes()[4:8] == b"ftyp"

    page.get_by_role("button", name="Delete").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_role("heading", name="Renders").wait_for()
    page.get_by_text("Nothing here yet.").or_(page.get_by_role("list", name="Renders")).first.wait_for()


def test_a_video_at_an_address_where_that_is_not_allowed(server, sign_in):
    page = sign_in(url_of(server), key_of(server), expected=("400",))
    page.get_by_text("A video at an address").click()
    page.get_by_label("Address of the video").fill("https://example.com/clip.mp4")
    page.get_by_role("button", name="Fetch", exact=True).click()
    page.get_by_role("alert").get_by_text("file_url").wait_for()


def test_a_key_that_is_not_known(server, open_page):
    page = open_page(f"{url_of(server)}/", expected=("401",))
    page.get_by_label("API key").fill("regen_nonsense")
    page.get_by_role("button", name="Sign in").click()
    assert "does not know this key" in page.get_by_role("alert").inner_text()


def test_a_key_that_ends_while_it_is_used(server, sign_in):
    admin = {"Authorization": f"Bearer {administrators_key(server)}"}
    user = server.client.post("/v1/admin/users", json={"name": "short"}, headers=admin).json()["user"]
    made = server.client.post(f"/v1/admin/users/{user['id']}/keys", json={}, headers=admin).json()
    page = sign_in(url_of(server), made["secret"], expected=("401",))
    server.client.delete(f"/v1/admin/keys/{made['key']['id']}", headers=admin).raise_for_status()

    page.get_by_role("link", name="Renders").click()

    page.get_by_text("This key is not valid any more.").wait_for()
    assert page.evaluate("() => sessionStorage.length + localStorage.length") == 0

    own = server.client.post(f"/v1/admin/users/{user['id']}/keys", json={}, headers=admin).json()["secret"]
    page = sign_in(url_of(server), own)
    page.get_by_role("link", name="Keys", exact=True).click()
    page.get_by_role("listitem").filter(has_text="in use here").get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    page.get_by_text("The key that this page used is revoked.").wait_for()
    assert page.evaluate("() => sessionStorage.length + localStorage.length") == 0
    assert server.client.get("/v1/key", headers={"Authorization": f"Bearer {own}"}).status_code == 401


def test_two_users_see_nothing_of_each_other(server, sign_in):
    admin = {"Authorization": f"Bearer {administrators_key(server)}"}
    with CLIP.open("rb") as clip:
        asked = server.client.post("/v1/upscale", files={"file": clip})
    mine = asked.raise_for_status().json()["render"]["id"]
    user = server.client.post("/v1/admin/users", json={"name": "other"}, headers=admin).json()["user"]
    other = server.client.post(f"/v1/admin/users/{user['id']}/keys", json={}, headers=admin).json()["secret"]

    page = sign_in(url_of(server), other, expected=("404",))
    page.get_by_role("link", name="Renders").click()
    page.get_by_text("Nothing here yet.").wait_for()
    page.get_by_role("link", name="Keys", exact=True).click()
    page.get_by_role("list", name="Keys").get_by_text("in use here").wait_for()
    assert page.get_by_role("list", name="Keys").get_by_role("listitem").count() == 1
    assert page.get_by_label("write").is_checked() and page.get_by_label("admin").count() == 0
    page.get_by_label("Name of the new key").fill("second")
    page.get_by_label("write").uncheck()
    page.get_by_role("button", name="Make a key").click()
    second = page.get_by_role("dialog").locator("code").inner_text()
    made = server.client.get("/v1/key", headers={"Authorization": f"Bearer {second}"}).json()["key"]
    assert (made["name"], made["scopes"], made["userId"]) == ("second", ["read"], user["id"])
    page.get_by_role("dialog").get_by_role("button", name="Done").click()
    page.wait_for_function("(key) => !document.documentElement.outerHTML.includes(key)", arg=second)
    assert page.get_by_role("link", name="Operations").count() == 0
    page.goto(f"{url_of(server)}/#/renders/{mine}")
    page.get_by_role("alert").get_by_text("not found").wait_for()

    page = sign_in(url_of(server), second)
    page.get_by_role("link", name="Keys", exact=True).click()
    page.get_by_text("sign in with one that has the scope").wait_for()
    assert page.get_by_role("button", name=re.compile("Make a key|Revoke")).count() == 0

    page = sign_in(url_of(server), key_of(server))
    page.get_by_role("link", name="Renders").click()
    page.locator(f"a[href='#/renders/{mine}']").wait_for()

    with CLIP.open("rb") as clip:
        server.client.post(
            "/v1/upscale", files={"file": clip}, headers={"Authorization": f"Bearer {other}"}
        ).raise_for_status()
    page = sign_in(url_of(server), administrators_key(server))
    page.get_by_role("link", name="Operations").click()
    page.get_by_role("combobox", name="User").select_option("other")
    page.get_by_role("row").filter(has_text="other").get_by_role("link", name=CLIP.name).click()
    page.get_by_role("figure", name="Before and after").wait_for()
    assert page.get_by_role("button", name="Delete").count() == 0, "what is the user's own affair"


def test_cancel_and_render_again(idle_server, sign_in):
    """Without a worker it stays in the queue until it is canceled."""
    page = sign_in(url_of(idle_server), key_of(idle_server))
    page.set_input_files("input[type=file]", CLIP)
    page.get_by_role("button", name="Render", exact=True).click()
    page.get_by_text("in the queue").wait_for()
    with page.expect_request(re.compile("/events$")):
        page.get_by_role("link", name="Renders").first.click()
    page.get_by_role("list", name="Renders").get_by_role("link").first.click()
    page.get_by_role("button", name="Cancel").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Stop it").click()
    page.get_by_text("Canceled", exact=True).wait_for()
    page.get_by_text("This render was canceled").wait_for()
    assert page.get_by_text("Failed").count() == 0
    canceled = idle_server.client.get("/v1/renders").json()["renders"][0]
    page.get_by_text(canceled["requestId"]).wait_for()
    assert page.locator("dt").get_by_text("Cost").count() == 0, "it costs nothing"
    page.get_by_role("link", name="Renders").first.click()
    page.locator(f"a[href='#/renders/{canceled['id']}']").get_by_text("Canceled", exact=True).wait_for()
    page.get_by_label("Show").select_option("Failed or canceled")
    page.locator(f"a[href='#/renders/{canceled['id']}']").click()
    page.get_by_role("button", name="Render again").click()
    page.get_by_role("link", name=canceled["id"]).wait_for()
    page.get_by_text("in the queue").wait_for()


def test_several_videos_are_rendered_at_once(idle_server, sign_in, graded_clip, tmp_path):
    """Dropped beside the field, with the options of one for all, which outlive a look at another view."""
    names = ["several-0", "several-" + "without-a-space-" * 8, "several-2", "several-3"]
    clips = [shutil.copy(graded_clip, tmp_path / f"{name}.mp4") for name in names]
    page = sign_in(url_of(idle_server), key_of(idle_server))
    drop(page, clips, at="h1")
    page.get_by_text("4 videos, 4 ready").wait_for()
    card = page.get_by_role("article", name=clips[1].name)
    card.get_by_label("Target rate").fill("12,5")
    card.get_by_text("256 × 192, 12.5 fps, 1 s").wait_for()
    card.get_by_role("button", name="Use these options for all").click()
    page.get_by_role("article", name=clips[3].name).get_by_text("256 × 192, 12.5 fps, 1 s").wait_for()
    page.get_by_role("link", name="Usage").click()
    page.get_by_role("heading", name="Limits").wait_for()
    page.get_by_role("link", name="New", exact=True).click()
    assert page.get_by_role("article", name=clips[0].name).get_by_label("Target rate").input_value() == "12,5"
    page.get_by_role("button", name="Render all").click()
    page.get_by_role("list", name="Renders").get_by_text(clips[3].name).wait_for()
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), "with the long name"
    made = [
        one for one in idle_server.client.get("/v1/renders").json()["renders"] if "several" in one["fileName"]
    ]
    assert [one["fileName"] for one in reversed(made)] == [clip.name for clip in clips]
    assert {one["targetFps"] for one in made} == {12.5}
    page.get_by_role("link", name="New", exact=True).click()
    page.get_by_text("Drop videos here").wait_for()
    assert page.get_by_role("article").count() == 0


def test_an_administrator_makes_a_key_once(server, sign_in):
    page = sign_in(url_of(server), administrators_key(server))
    page.get_by_role("link", name="Users and keys").click()
    page.get_by_label("Name of the new user").fill("team")
    page.get_by_role("button", name="Add a user").click()
    page.get_by_label("Name of the new key").fill("build")
    page.get_by_role("button", name="Make a key").click()
    key = page.get_by_role("dialog").locator("code").inner_text()
    assert (
        server.client.get("/v1/key", headers={"Authorization": f"Bearer {key}"}).json()["key"]["name"]
        == "build"
    )
    page.get_by_role("dialog").get_by_role("button", name="Done").click()
    page.wait_for_function("(key) => !document.documentElement.outerHTML.includes(key)", arg=key)
    page.get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    page.get_by_text(", revoked").wait_for()
    limit = page.get_by_label("Cost per month")
    for typed, said in (("2,5", "The limits are saved."), ("many", "“many” is no number.")):
        limit.fill(typed)
        page.get_by_role("button", name="Save the limits").click()
        page.get_by_role("status").get_by_text(said).wait_for()
    admin = {"Authorization": f"Bearer {administrators_key(server)}"}
    users = server.client.get("/v1/admin/users", headers=admin).json()["users"]
    (team,) = [user for user in users if user["name"] == "team"]
    assert team["limits"]["maxCostPerMonth"] == 2.5, "what is no number takes no limit away"
    assert server.client.get("/v1/key", headers={"Authorization": f"Bearer {key}"}).status_code == 401

    page.get_by_role("link", name="Operations").click()
    page.get_by_role("region", name="Workers").get_by_text("active").wait_for()
    page.get_by_role("figure").filter(has_text="Age of the oldest in the queue").wait_for()
    page.get_by_role("region", name="Renders of all users").wait_for()


def test_everybody_can_use_it(server, open_page, sign_in, unplayable_clip):
    """On narrow and wide screens, light and dark, axe finds nothing serious and nothing is cut off at the side; Tab
    reaches the first link."""
    page = open_page(f"{url_of(server)}/")
    page.get_by_label("API key").wait_for()
    judge(page, "sign in")
    page = sign_in(url_of(server), administrators_key(server))
    with unplayable_clip.open("rb") as clip:
        asked = server.client.post("/v1/upscale", files={"file": clip}).raise_for_status()
    render_id = asked.json()["render"]["id"]
    of_render = {f"renders/{render_id}": ".compare .over img", f"renders/{render_id}/again": ".estimate"}
    for view, content in (VIEWS | of_render).items():
        page.goto(f"{url_of(server)}/#/{view}")
        page.locator(content).first.wait_for()
        if view == "users":
            page.get_by_role("button", name="Open").first.click()
            page.get_by_role("heading", name="Limits", exact=True).wait_for()
        judge(page, view)
    page.goto(f"{url_of(server)}/#/")
    page.set_input_files("input[type=file]", unplayable_clip)
    page.get_by_text("256 × 192").wait_for()
    for folded in ("More options", "The same as a request"):
        page.get_by_text(folded).click()
    page.get_by_role("button", name="Try a moment first").click()
    page.get_by_role("button", name="Choose a part").click()
    page.get_by_role("img", name="The video").wait_for()
    judge(page, "a video")
    page.reload()
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.textContent") == "Skip to the content"


def test_the_mocks_switches(open_page, tmp_path):
    ready, log = tmp_path / "ready.json", tmp_path / "mock.log"
    log.touch()
    process = ForkedProcess(
        ["mock", "--port", "0", "--ready-file", str(ready)], log=log, environment={**os.environ}
    )
    try:
        wait_until(ready.exists, seconds=60, what="the mock is ready")
        told = json.loads(ready.read_text())
        page = open_page(told["url"], expected=("503", "ERR_CONNECTION_REFUSED"))
        page.get_by_label("API key").fill(told["key"])
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("link", name="Mock").click()
        of_a_program = {"route": "GET /v1/usage", "action": {"latency_seconds": 0.1}}
        httpx.post(f"{told['url']}/_mock/faults", json=of_a_program).raise_for_status()
        page.get_by_role("switch", name="Renders fail").check()
        page.get_by_role("switch", name="Webhooks come twice").check()
        page.wait_for_function(
            """async () => {
              const { rules } = await (await fetch("_mock/faults")).json();
              return rules.map((rule) => rule.route).join() === "GET /v1/usage,POST /v1/upscale,WEBHOOK *";
            }"""
        )
        page.get_by_role("link", name="Webhooks").click()
        page.get_by_label("Address").fill("http://127.0.0.1:9/nobody")
        page.get_by_label("render.queued").uncheck()
        page.get_by_role("button", name="Add", exact=True).click()
        page.get_by_text("http://127.0.0.1:9/nobody", exact=True).wait_for()
        chosen = page.get_by_role("group", name="Events sent to http://127.0.0.1:9/nobody")
        assert not chosen.get_by_label("render.queued").is_checked()
        chosen.get_by_label("render.processing").uncheck()
        page.wait_for_function("() => document.querySelectorAll('.item input:checked').length === 4")
        page.get_by_role("link", name="New").click()
        page.set_input_files("input[type=file]", CLIP)
        page.get_by_role("button", name="Render", exact=True).click()
        page.get_by_role("alert").get_by_text("The film tore.").wait_for()
        page.get_by_role("link", name="Mock").click()
        page.get_by_role("region", name="Requests").get_by_text("POST /v1/upscale").wait_for()
        judge(page, "mock")
        page.get_by_role("region", name="Webhooks sent").get_by_role(
            "cell", name="render.failed", exact=True
        ).first.wait_for()

        page.get_by_role("link", name="New").click()
        page.get_by_text("A video at an address").click()
        mine = httpx.get(f"{told['url']}/v1/renders", headers={"Authorization": f"Bearer {told['key']}"})
        page.get_by_label("Address of the video").fill(mine.json()["renders"][0]["inputFileURL"])
        page.get_by_role("button", name="Fetch", exact=True).click()
        card = page.get_by_role("article")
        card.get_by_text("960 × 544").wait_for()
        card.get_by_text("The same as a request").click()
        assert "-F 'file_url=http" in card.get_by_role("tabpanel").inner_text()
        card.get_by_role("button", name="Try a moment first").click()
        page.wait_for_function("() => document.querySelector('video')?.readyState >= 2")
        card.get_by_role("slider", name="Moment").evaluate(
            "(range) => { range.value = 0.5; range.dispatchEvent(new Event('input')); }"
        )
        page.wait_for_function("() => !document.querySelector('video').seeking")
        assert page.evaluate("() => document.querySelector('video').currentTime") == 0.5
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
