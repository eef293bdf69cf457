"""Uploads reserve their room on the disk before their bytes flow."""

import shutil
from collections import namedtuple

import pytest

from app.http.spool_space import STEP_BYTES, SpoolSpace
from app.platform.errors import Unavailable

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def space(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(0, 0, 4 * STEP_BYTES))
    return SpoolSpace(tmp_path, keep_free_bytes=STEP_BYTES)


def test_what_others_announced_is_taken(space):
    with space.reserved(2 * STEP_BYTES):
        with pytest.raises(Unavailable), space.reserved(STEP_BYTES + 1):
            pass
        with space.reserved(STEP_BYTES):
            pass
    with space.reserved(3 * STEP_BYTES):
        pass


def test_what_is_written_counts_once(space, monkeypatch):
    with space.reserved(2 * STEP_BYTES) as room:
        room.wrote(2 * STEP_BYTES)
        monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(0, 0, 2 * STEP_BYTES))
        with space.reserved(STEP_BYTES):
            pass


def test_a_body_of_unknown_length_reserves_as_it_grows(space):
    with space.reserved(None) as room:
        room.wrote(STEP_BYTES)
        with space.reserved(3 * STEP_BYTES), pytest.raises(Unavailable):
            room.wrote(1)
