"""Signed URLs in the hands of programs that people download with."""

import email.message
import email.utils
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.platform.file_names import ascii_name, safe_name

KEY = "renders/a/output-1.mp4"
CONTENT = b"0123456789"
NAMES = [
    *("clip-4x.mp4", "видео-4x.mp4", "видия-4x.mp4", "日本語-4x.mp4", "😀-4x.mp4", "größe (1)-4x.mp4"),
    *('a "quoted"; name-4x.mp4', ".mp4-4x.mp4", "映" * 248 + "-4x.mp4", safe_name("../a\r\nb\x00-4x.mp4")),
]


@pytest.fixture
def sign(opened, storage, make_file) -> Callable[[str], str]:
    """The URL of a stored file for a download name."""
    storage.put_file(KEY, make_file(CONTENT), content_type="video/mp4")
    return lambda name: storage.signed_url(KEY, base_url=opened.base_url, file_name=name, lifetime_seconds=60)


@pytest.mark.parametrize("program", [("curl", "-sSfOJ"), ("wget", "-q", "--content-disposition")])
def test_each_name_is_a_file_of_its_own(opened, sign, program, tmp_path: Path):
    if shutil.which(program[0]) is None:
        pytest.skip(f"There is no {program[0]}.")
    if not opened.is_complete:
        pytest.skip("This S3 server knows no download names.")
    folder = tmp_path / "downloads"
    folder.mkdir()
    for name in NAMES:
        subprocess.run([*program, sign(name)], cwd=folder, check=True)

    saved = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert list(saved.values()) == [CONTENT] * len(NAMES)
    if program[0] == "curl":  # wget takes the true name, and shortens it itself
        assert saved.keys() == {ascii_name(name) for name in NAMES}


def test_a_client_of_rfc_6266_learns_the_true_name(opened, sign):
    if not opened.is_complete:
        pytest.skip("This S3 server knows no download names.")
    for name in NAMES:
        message = email.message.Message()
        message["Content-Disposition"] = httpx.get(sign(name)).headers["Content-Disposition"]
        found = dict(message.get_params(header="Content-Disposition")[1:])
        assert email.utils.collapse_rfc2231_value(found["filename"]) == name


def test_one_byte_tells_what_head_does(opened, sign):
    """S3's signatures cover the method: its servers may refuse HEAD, but not a GET of the first byte."""
    url = sign("clip-4x.mp4")

    first = httpx.get(url, headers={"Range": "bytes=0-0"})

    assert (first.status_code, first.content) == (206, CONTENT[:1])
    assert first.headers["Content-Range"] == f"bytes 0-0/{len(CONTENT)}"
    assert first.headers["Content-Type"] == "video/mp4"
    assert first.headers["ETag"]
    assert httpx.head(url).status_code in ((200, 403) if "Signature=" in url else (200,))
