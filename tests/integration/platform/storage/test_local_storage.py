"""What is particular to files in a directory."""

import errno
import os
import shutil
import time
from pathlib import Path

import pytest

from app.platform.errors import Forbidden, NotFound, StorageError
from app.platform.storage.local import LocalStorage


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(root=tmp_path / "storage", url_key=b"secret")


def files(storage: LocalStorage) -> list[str]:
    return sorted(str(path.relative_to(storage.root)) for path in storage.root.rglob("*") if path.is_file())


@pytest.fixture
def no_renames_between(monkeypatch: pytest.MonkeyPatch, make_file):
    """As if what `make_file` makes lay on another file system."""
    replace, link = Path.replace, os.link

    def is_outside(path) -> bool:
        return Path(path).name.startswith("made-")

    def cautious_replace(self: Path, target):
        if is_outside(self):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return replace(self, target)

    def cautious_link(source, target, **options):
        if is_outside(target):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return link(source, target, **options)

    monkeypatch.setattr(Path, "replace", cautious_replace)
    monkeypatch.setattr(os, "link", cautious_link)


def test_putting_moves_the_file(storage, make_file):
    path = make_file(b"x")
    inode = path.stat().st_ino

    storage.put_file("a/b", path, content_type="video/mp4")

    assert not path.exists()
    assert (storage.root / "a" / "b").stat().st_ino == inode


def test_fetching_copies_nothing(storage, make_file, tmp_path):
    storage.put_file("a", make_file(b"x"), content_type="video/mp4")

    storage.fetch("a", tmp_path / "fetched")

    assert (tmp_path / "fetched").samefile(storage.root / "a")


def test_from_and_to_another_file_system(storage, make_file, no_renames_between):
    path = make_file(b"content")
    storage.put_file("a/b", path, content_type="video/mp4")
    fetched = path.with_name("made-fetched")
    storage.fetch("a/b", fetched)

    assert not path.exists()
    assert fetched.read_bytes() == b"content"
    assert files(storage) == ["a/.b.type", "a/b"]


def test_a_failure_half_way_leaves_the_old_object(storage, make_file, monkeypatch):
    storage.put_file("a", make_file(b"old"), content_type="video/mp4")
    path = make_file(b"new")

    def fail(self, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", fail)
        with pytest.raises(StorageError) as error:
            storage.put_file("a", path, content_type="video/mp4")

    assert "No space left" in (error.value.detail or "")
    assert "No space left" not in str(error.value)
    assert b"".join(storage.read("a")) == b"old"
    assert path.read_bytes() == b"new"
    assert files(storage) == [".a.type", "a"]


def test_deleting_leaves_no_directories(storage, make_file):
    storage.put_file("a/b/c", make_file(b"x"), content_type="video/mp4")
    storage.put_file("a/d", make_file(b"x"), content_type="video/mp4")

    storage.delete("a/b/c")

    assert not (storage.root / "a" / "b").exists()
    assert files(storage) == ["a/.d.type", "a/d"]


def test_what_a_crash_left_is_removed_after_a_day(storage, tmp_path):
    incoming = storage.root / ".incoming"
    for name, age_hours in (("old", 25), ("young", 23)):
        (incoming / name).touch()
        moment = time.time() - age_hours * 3600
        os.utime(incoming / name, (moment, moment))

    LocalStorage(root=storage.root, url_key=b"secret")

    assert files(storage) == [".incoming/young"]


def test_a_check_fails_without_the_directory(storage):
    shutil.rmtree(storage.root)

    with pytest.raises(StorageError, match=r"cannot be written\."):
        storage.check()


def test_a_root_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(StorageError):
        LocalStorage(root=tmp_path / "file" / "storage", url_key=b"secret")


def test_urls_expire_by_the_clock(tmp_path):
    now = 1_000_000.0
    storage = LocalStorage(root=tmp_path / "storage", url_key=b"secret", clock=lambda: now)
    url = storage.signed_url("a", base_url="https://x", file_name="ä b", lifetime_seconds=10)
    query = dict(pair.split("=") for pair in url.partition("?")[2].split("&")) | {"name": "ä b"}

    assert url.startswith("https://x/storage/a?expires=1000010&name=%C3%A4%20b&signature=")
    assert storage.open_signed("a", query) == "ä b"
    now = 1_000_009.9
    assert storage.open_signed("a", query) == "ä b"
    now = 1_000_010.0
    with pytest.raises(Forbidden, match="expired"):
        storage.open_signed("a", query)
    with pytest.raises(NotFound):
        storage.open_signed("a", query | {"expires": "1000020"})
    with pytest.raises(NotFound):
        storage.open_signed("b", query)
