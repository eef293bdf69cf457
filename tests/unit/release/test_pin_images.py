import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documentation.samples import text_of

ROOT = Path(__file__).parents[3]
FILES = ("docker-compose.yml", "Dockerfile", "Dockerfile.gpu", "deploy/helm/regen-server/values.yaml")
DOCKER = '#!/bin/sh\nfor image; do :; done\nprintf "sha256:%s\\n" "$(printf "%s" "$image" | sha256sum | cut -c1-{})"\n'


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in (*FILES, "scripts/pin_images.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def pin(copy: Path, *, digits: int) -> subprocess.CompletedProcess[str]:
    docker = copy / "docker"
    docker.write_text(DOCKER.format(digits))
    docker.chmod(0o755)
    command = [sys.executable, str(copy / "scripts/pin_images.py")]
    environment = {"PATH": f"{copy}:/usr/bin:/bin"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_every_image_of_others_gets_its_digest_and_a_newer_one_later(copy: Path) -> None:
    before = {name: (copy / name).read_text() for name in FILES}
    for _time in range(2):
        assert pin(copy, digits=64).returncode == 0
        for name in FILES:
            text = (copy / name).read_text()
            assert re.sub(r"@sha256:[0-9a-f]{64}$", "", text, flags=re.MULTILINE) == re.sub(
                r"@sha256:[0-9a-f]{64}$", "", before[name], flags=re.MULTILINE
            )
    pinned = re.findall(r"^ *image: (\S+:\S+)$", (copy / "docker-compose.yml").read_text(), re.MULTILINE)
    assert {image.partition(":")[0] for image in pinned if "@sha256:" not in image} == {"regen-server"}
    assert re.search(
        r"^ARG PYTHON_IMAGE=python:\S+@sha256:\w{64}$", (copy / "Dockerfile").read_text(), re.MULTILINE
    )


def test_the_sample_of_its_page(copy: Path) -> None:
    """docs/releasing.md, with a registry's answers made up: git shows the digests."""
    pin(copy, digits=64)  # for its docker
    for name in FILES:
        shutil.copy(ROOT / name, copy / name)
    own = {"HOME": str(copy), "PATH": f"{copy}:{Path(sys.executable).parent}:/usr/bin:/bin"}
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    for command in (("init", "-q"), ("add", *FILES), (*identity, "commit", "-qm", "Before")):
        subprocess.run(["git", *command], cwd=copy, env=own, check=True)
    text = text_of("docs/releasing.md", "python scripts/pin_images.py")
    done = subprocess.run(
        ["bash", "-euc", text], cwd=copy, env=own, capture_output=True, text=True, check=True
    )
    changed = re.findall(r"^\+\+\+ b/(\S+)$", done.stdout, re.MULTILINE)
    assert changed == sorted(FILES)
    assert len(re.findall(r"^\+.*@sha256:[0-9a-f]{64}$", done.stdout, re.MULTILINE)) >= len(FILES)


def test_what_is_no_digest_changes_nothing(copy: Path) -> None:
    before = {name: (copy / name).read_text() for name in FILES}
    done = pin(copy, digits=8)
    assert done.returncode == 1
    assert "instead of the digest" in done.stderr
    assert {name: (copy / name).read_text() for name in FILES} == before
