import json
import os
import stat

from app.serving.ready_file import remove_ready_file, write_ready_file


def test_the_ready_file_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "ready.json"
    write_ready_file(path, url="http://127.0.0.1:1", key="secret")
    assert json.loads(path.read_text()) == {"url": "http://127.0.0.1:1", "pid": os.getpid(), "key": "secret"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_without_a_new_key_the_ready_file_has_none(tmp_path):
    write_ready_file(tmp_path / "ready", url="http://127.0.0.1:1", key=None)
    assert set(json.loads((tmp_path / "ready").read_text())) == {"url", "pid"}


def test_only_our_own_ready_file_is_removed(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    write_ready_file(ours, url="http://127.0.0.1:1", key=None)
    theirs.write_text(json.dumps({"pid": os.getpid() + 1}))
    for path in (ours, theirs, tmp_path / "absent"):
        remove_ready_file(path)
    assert list(tmp_path.iterdir()) == [theirs]
