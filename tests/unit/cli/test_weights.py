import os
from pathlib import Path

import pytest
import torch

from models.architectures import SRVGGNetCompact
from models.catalog import ENGINES


@pytest.fixture(autouse=True)
def weights_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("REGEN_WEIGHTS_DIR", str(tmp_path / "weights"))


def test_an_engine_is_added_listed_verified_and_removed(regen, tmp_path):
    path = tmp_path / "own.pth"
    torch.save(SRVGGNetCompact(features=8, convolutions=1).state_dict(), path)
    added = regen("weights", "add", "own-net", path, "--multiplier", "1.5", "--license", "MIT")
    assert added.exit_code == 0, added.output
    assert all(word in added.stdout for word in ("own-net", "x1.5", "MIT", "fp32"))

    listed = regen("weights", "list")
    assert all(word in listed.stdout for word in (*ENGINES, "own-net", "made on first use"))
    assert "own-net: verified" in regen("weights", "verify").stdout

    file = tmp_path / "weights" / "own-net.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    verified = regen("weights", "verify")
    assert verified.exit_code != 0
    assert "damaged" in verified.stderr

    assert regen("weights", "remove", "own-net").exit_code == 0
    assert not file.exists()
    assert regen("weights", "remove", "own-net").exit_code != 0


def test_faults_are_sentences(regen, tmp_path):
    path = tmp_path / "own.pth"
    torch.save([1], path)
    for arguments, sentence in (
        (("add", "own-net", path, "--multiplier", "1"), "no state dict"),
        (("add", "own-net", path, "--multiplier", "-1"), "multiplier"),
        (("add", "regen-4x", path, "--multiplier", "1"), "built in"),
        (("convert", "--source", path), "--engine"),
        (("convert", "--engine", "own-net"), "regen-4x"),
    ):
        answer = regen("weights", *arguments)
        assert answer.exit_code != 0
        assert sentence in answer.stderr


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (os.mkfifo, "is not a file"),
        (Path.mkdir, "is not a file"),
        (lambda path: path.write_bytes(b"no weights"), "is damaged"),
    ],
    ids=["pipe", "folder", "damaged"],
)
def test_a_worker_that_cannot_start_says_why_in_its_log(
    regen, database, tmp_path, monkeypatch, make, sentence
):
    # It needs a real stderr.
    monkeypatch.setattr("faulthandler.dump_traceback_later", lambda *_arguments, **_options: None)
    (tmp_path / "weights").mkdir()
    make(tmp_path / "weights" / "regen-4x-lite.safetensors")
    answer = regen("worker", "--engines", "regen-4x-lite")
    assert answer.exit_code == os.EX_CONFIG
    (entry,) = [line for line in answer.output.splitlines() if "worker_cannot_start" in line]
    assert "error" in entry and sentence in entry
    assert "worker_cannot_start" in regen("workers").stdout
