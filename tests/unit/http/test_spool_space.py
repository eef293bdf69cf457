"""Uploads reserve their room on the disk before their bytes flow."""

import os
import shutil
from collections import namedtuple

import pytest

from app.http.neighbours import Neighbours, forget
from app.http.spool_space import FORM_BYTES, STEP_BYTES, Share, SpoolSpace
from app.platform.errors import LimitExceeded, Unavailable
from app.platform.settings import Settings

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


def test_a_users_uploads_on_their_way_count_as_announced_or_written_until_they_end(space):
    share = Share(user_id="ann", most_bytes=10 * FORM_BYTES)
    too_much = "exceed the 10,485,760 bytes that your storage limit leaves"
    with space.reserved(6 * FORM_BYTES, share=share) as announced:
        announced.wrote(6 * FORM_BYTES)
        with pytest.raises(LimitExceeded, match=too_much), space.reserved(6 * FORM_BYTES, share=share):
            pass
        with space.reserved(6 * FORM_BYTES, share=Share(user_id="bob", most_bytes=6 * FORM_BYTES)):
            pass
        with space.reserved(None, share=share) as unknown:
            unknown.wrote(5 * FORM_BYTES)  # of which one may be the form's
            with pytest.raises(LimitExceeded, match=too_much):
                unknown.wrote(1)
        with space.reserved(5 * FORM_BYTES, share=share):
            pass
    with space.reserved(11 * FORM_BYTES, share=share):
        pass


def test_a_users_received_uploads_count_exactly_and_a_repeated_request_once(space):
    def examined(size_bytes: int, *, user_id: str = "ann", key: str | None = None):
        return space.examined(size_bytes, share=Share(user_id=user_id, most_bytes=10), key=key)

    with (
        examined(4),
        examined(4, key="once"),
        space.reserved(1000, share=Share(user_id="ann", most_bytes=10)),
    ):
        with examined(4, key="once"), examined(2), examined(10, user_id="bob"):
            pass
        with pytest.raises(LimitExceeded, match="exceed the 10 bytes"), examined(3):
            pass
    with examined(10):
        pass


def test_processes_of_one_server_count_together_until_one_dies(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(0, 0, 4 * STEP_BYTES))
    settings = Settings(data_dir=tmp_path, api_processes=2)

    def process():
        return SpoolSpace(tmp_path, keep_free_bytes=STEP_BYTES, neighbours=Neighbours.of(settings, "spool"))

    first, second = process(), process()
    share = Share(user_id="ann", most_bytes=10 * FORM_BYTES)
    with first.reserved(6 * FORM_BYTES, share=share), pytest.raises(LimitExceeded):
        second.reserve(6 * FORM_BYTES, share=share)
    with first.examined(6, share=Share(user_id="ann", most_bytes=10), key="once"):
        with second.examined(6, share=Share(user_id="ann", most_bytes=10), key="once"):
            pass
        with (
            pytest.raises(LimitExceeded),
            second.examined(6, share=Share(user_id="ann", most_bytes=10), key=None),
        ):
            pass
    room = first.reserve(3 * STEP_BYTES)
    with pytest.raises(Unavailable):
        second.reserve(1)
    # What is written is no longer free anyway.
    room.wrote(2 * STEP_BYTES)
    second.reserve(2 * STEP_BYTES).release()
    forget(settings, os.getpid())
    second.reserve(3 * STEP_BYTES).release()


def test_a_neighbour_that_stands_still_is_not_waited_for(tmp_path):
    settings = Settings(data_dir=tmp_path, api_processes=2)
    one, other = Neighbours.of(settings, "spool"), Neighbours.of(settings, "spool")
    with one.exclusively():
        one.tell({"left": 1})
        with other.exclusively() as found:
            assert found == [{"left": 1}]
