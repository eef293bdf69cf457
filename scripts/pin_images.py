"""Writes the digests of other projects' images behind their tags: `python scripts/pin_images.py`.

In docker-compose.yml, the Dockerfiles and the chart's values. Asks the registries through `docker buildx`, so it needs
Docker and a network; a digest that is there is written anew. An image without a digest in its registry ends it with
what docker said, and leaves the files as they are.
"""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = ("docker-compose.yml", "Dockerfile", "Dockerfile.gpu", "deploy/helm/regen-server/values.yaml")
IMAGE = re.compile(
    r"^(?P<before> *image: |ARG PYTHON_IMAGE=)(?P<tagged>(?!regen-server:)[\w./-]+:[\w.-]+)(?:@sha256:\w+)?$",
    re.MULTILINE,
)


def digest(image: str) -> str:
    command = ["docker", "buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}", image]
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.strip()
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", said):
        raise SystemExit(f"docker said {said!r} instead of the digest of {image}.")
    return said


def main() -> None:
    texts = {ROOT / name: (ROOT / name).read_text() for name in FILES}
    images = {match["tagged"] for text in texts.values() for match in IMAGE.finditer(text)}
    digests = {image: digest(image) for image in sorted(images)}
    for path, text in texts.items():
        path.write_text(
            IMAGE.sub(lambda match: f"{match['before']}{match['tagged']}@{digests[match['tagged']]}", text)
        )
    for image, found in digests.items():
        print(f"{image}@{found}")


if __name__ == "__main__":
    main()
