"""What is seen in the console: the frames of clips whose frames differ in brightness, and parts drawn on a picture."""

from typing import Any

# The mean of the red channel of each video: the frame's number, in a clip whose frames differ in brightness.
BRIGHTNESS = """() => [...document.querySelectorAll("video, .over img")].map((video) => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 8;
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0, 8, 8);
  const data = context.getImageData(0, 0, 8, 8).data;
  return data.filter((_, at) => at % 4 === 0).reduce((sum, one) => sum + one, 0) / 64;
})"""


# Resolves when no video seeks, no frame is being read, and what is shown is on the screen.
PAINTED = """async () => {
  const isBusy = () => document.querySelector(".over [aria-busy=true]") || [...document.querySelectorAll("video")]
    .some((video) => video.seeking || video.readyState < 2);
  const painted = () => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  do await painted(); while (isBusy());
}"""


def frames_shown(page: Any, *, seconds: float, steps: int) -> list[list[int]]:
    """The numbers of the frames after and before, at that position of the result and at each next frame."""
    page.wait_for_function(
        "() => [...document.querySelectorAll('video')].every((video) => video.readyState >= 2)"
    )
    page.get_by_label("Position").evaluate(
        f"(range) => {{ range.value = {seconds}; range.dispatchEvent(new Event('input')); }}"
    )
    shown = []
    for _step in range(steps):
        page.evaluate(PAINTED)
        shown.append([round((level - 16.3) / 8.15) for level in page.evaluate(BRIGHTNESS)])
        page.get_by_role("button", name="One frame on").click()
    return shown


def draw(page: Any, picture: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draws a rectangle with the mouse, between two points of the picture in shares of its size."""
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    for step, point in enumerate((start, end)):
        page.mouse.move(box["x"] + box["width"] * point[0], box["y"] + box["height"] * point[1])
        page.mouse.down() if step == 0 else page.mouse.up()
