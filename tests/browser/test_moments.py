"""Moments of a video that no browser plays, and renders that are asked for again with other options."""

import re

import pytest

from tests.browser.conftest import key_of, url_of
from tests.browser.pictures import draw, frames_shown

# The number of the frame in the picture that is looked through, by its brightness.
FRAME = """(picture) => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 8;
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0, 8, 8);
  const data = context.getImageData(0, 0, 8, 8).data;
  return Math.round((data.filter((_, at) => at % 4 === 0).reduce((sum, one) => sum + one, 0) / 64 - 16.3) / 8.15);
}"""


def wait_for_frame(page, picture, number: int) -> None:
    page.wait_for_function(
        f"(picture) => picture.complete && ({FRAME})(picture) === {number}", arg=picture.element_handle()
    )


def test_a_video_that_no_browser_plays_is_looked_through(server, sign_in, unplayable_clip):
    page = sign_in(url_of(server), key_of(server))
    page.set_input_files("input[type=file]", unplayable_clip)
    card = page.get_by_role("article", name="graded.mkv")
    card.get_by_role("button", name="Try a moment first").click()
    card.get_by_text("This browser cannot play the video.").wait_for()
    picture = card.get_by_role("img", name="The video")
    picture.wait_for()
    wait_for_frame(page, picture, 0)

    moment = card.get_by_role("slider", name="Moment")
    for key, number in (
        ("ArrowRight", 1),
        (".", 2),
        ("PageUp", 24),
        ("ArrowLeft", 23),
        (",", 22),
        ("Home", 0),
    ):
        moment.press(key)
        wait_for_frame(page, picture, number)
    card.get_by_role("button", name="One frame on").click()
    wait_for_frame(page, picture, 1)

    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/frame?" in request.url else None)
    moment.evaluate(
        """(range) => { for (let at = 0; at <= 12; at++) {
          range.value = (at + 0.5) / 25; range.dispatchEvent(new Event("input", { bubbles: true })); } }"""
    )
    wait_for_frame(page, picture, 12)
    assert len(asked) < 4, "moments that the slider passes are not asked for"
    card.get_by_role("button", name="One frame back").click()
    wait_for_frame(page, picture, 11)
    asked.clear()
    card.get_by_role("button", name="One frame on").click()
    wait_for_frame(page, picture, 12)
    assert asked == [], "it was seen before"

    draw(page, picture, (0.25, 0.5), (0.75, 1))
    card.get_by_role("button", name="Show this moment").click()
    card.get_by_role("img", name=re.compile("After: regen-4x at")).wait_for()
    (shown, *_) = server.client.get("/v1/previews").json()["previews"]
    assert shown["atSeconds"] == pytest.approx(12.5 / 25)
    assert shown["crop"] == {"x": 16, "y": 24, "width": 32, "height": 24}

    card.get_by_role("button", name="The server's choice").click()
    card.get_by_role("button", name="Show this moment").click()
    card.get_by_role("button", name="Upscaling").wait_for(state="detached")
    made = server.client.get("/v1/previews").json()["previews"]
    fast, *_ = [one for one in made if one["engine"] == "regen-4x-lite"]
    slow, *_ = [one for one in made if one["engine"] == "regen-4x"]
    assert fast["crop"] == slow["crop"] != shown["crop"], "the part of the slowest"


def test_before_and_after_of_it_stand_on_the_same_frame(server, sign_in, unplayable_clip):
    with unplayable_clip.open("rb") as clip:
        asked = server.client.post("/v1/upscale", files={"file": clip}, data={"start": "0.2"})
    page = sign_in(url_of(server), key_of(server))
    page.goto(f"{url_of(server)}/#/renders/{asked.raise_for_status().json()['render']['id']}")
    page.get_by_text("Where the video stands still you see its frame").wait_for()
    page.get_by_role("img", name="Before").wait_for()
    assert frames_shown(page, seconds=0.2, steps=2) == [[10, 10], [11, 11]]


def test_a_render_is_asked_for_again_with_other_options(server, sign_in, graded_clip):
    options = {"target_fps": "50", "end": "0.4", "engine": "regen-4x", "metadata": '{"scene": "12"}'}
    with graded_clip.open("rb") as clip:
        made = server.client.post("/v1/upscale", files={"file": clip}, data=options).json()["render"]
    page = sign_in(url_of(server), key_of(server), expected=("404",))
    page.goto(f"{url_of(server)}/#/renders/{made['id']}")
    page.get_by_role("link", name="Render with other options").click()
    page.get_by_text("256 × 192, 50 fps, 0.4 s").wait_for()
    assert page.get_by_label("Engine").input_value() == "regen-4x"
    assert page.get_by_label("Metadata").input_value() == "scene: 12"
    assert page.get_by_label("End", exact=True).input_value() == "0.4"

    page.get_by_label("Target rate").fill("12.5")
    page.get_by_text("256 × 192, 12.5 fps, 0.4 s").wait_for()
    page.get_by_role("button", name="Render", exact=True).click()
    page.wait_for_url(lambda url: made["id"] not in url)
    again = server.client.get(f"/v1/renders/{page.url.rpartition('/')[2]}").json()["render"]
    kept = ("fileId", "engine", "end", "metadata")
    assert {name: again[name] for name in kept} == {name: made[name] for name in kept}
    assert again["targetFps"] == 12.5

    page.goto(f"{url_of(server)}/#/renders/QkjXasuzs2TKugHH/again")
    page.get_by_role("link", name="choose the video again").wait_for()
