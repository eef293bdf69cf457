"""Pictures of the console for the documentation; `scripts/screenshots` runs it."""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.browser.conftest import sign_in_link, url_of  # noqa: E402
from tests.e2e.conftest import running_server  # noqa: E402

CLIP = ROOT / "tests/media/bunny-240x136-25fps.mp4"
PICTURES = ROOT / "docs/console"
SIZE = {"width": 1200, "height": 760}
RENDER_SECONDS = 300


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="regen-screenshots-"))
    try:
        with running_server(directory / "data") as server, sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium") or "chromium", args=["--no-sandbox"]
            )
            take_pictures(browser.new_context(viewport=SIZE, locale="en-GB").new_page(), server)
    finally:
        shutil.rmtree(directory)


def take_pictures(page: Any, server: Any) -> None:
    def take(name: str) -> None:
        page.mouse.move(0, 0)
        page.wait_for_timeout(800)
        page.screenshot(path=PICTURES / f"{name}.jpg", type="jpeg", quality=82)
        print(f"docs/console/{name}.jpg")

    page.set_default_timeout(RENDER_SECONDS * 1000)
    page.goto(f"{url_of(server)}/")
    page.get_by_label("API key").wait_for()
    take("sign-in")
    page.goto(sign_in_link(server))
    page.get_by_role("heading", name="New renders").wait_for()
    page.set_input_files("input[type=file]", CLIP)
    page.get_by_text("960 × 544").wait_for()
    take("new")
    page.get_by_role("button", name="Try a moment first").click()
    page.get_by_role("slider", name="Moment").evaluate(
        "(range) => { range.value = 1; range.dispatchEvent(new Event('input', {bubbles: true})); }"
    )
    page.get_by_role("button", name="Show this moment").click()
    # Of all engines, at the same part.
    page.get_by_role("button", name="Upscaling").wait_for(state="detached")
    page.get_by_role("figure").nth(1).scroll_into_view_if_needed()
    take("try-a-moment")
    page.get_by_role("button", name="Render", exact=True).click()
    page.get_by_role("figure", name="Before and after").wait_for()
    page.get_by_role("slider", name="Position").evaluate(
        "(range) => { range.value = 1; range.dispatchEvent(new Event('input', {bubbles: true})); }"
    )
    page.wait_for_timeout(1500)
    take("before-and-after")
    page.goto(f"{url_of(server)}/#/usage")
    page.get_by_role("heading", name="Limits").wait_for()
    take("usage")
    page.goto(f"{url_of(server)}/#/operations")
    page.get_by_role("region", name="Workers").get_by_text("active").wait_for()
    take("operations")


if __name__ == "__main__":
    main()
