"""A cursor is the place that it was made of; whatever else a client sends is refused with a sentence."""

import base64
import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.platform.errors import InvalidRequest
from app.platform.pagination import Cursor

ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


@given(
    created_at=st.datetimes(timezones=st.just(UTC)),
    id=st.text(ALPHABET, min_size=1, max_size=32),
)
def test_every_place_comes_back(created_at, id):
    place = Cursor(created_at=created_at, id=id)
    assert Cursor.parse(str(place)) == place


@given(microseconds=st.integers(-(2**63), 2**63 - 1), tail=st.binary(max_size=20) | st.just(b"abc"))
def test_no_bytes_break_it(microseconds, tail):
    text = base64.urlsafe_b64encode(struct.pack(">q", microseconds) + tail).decode()
    try:
        place = Cursor.parse(text)
    except InvalidRequest as error:
        assert "cursor" in str(error)
        return
    assert place.id.encode() == tail
    assert datetime.min.replace(tzinfo=UTC) <= place.created_at


@pytest.mark.parametrize("text", ["", "=", "====", "a" * 10_000, "\x00", "é", "AAAAAAAAAAA=", "\ud800"])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        Cursor.parse(text)
