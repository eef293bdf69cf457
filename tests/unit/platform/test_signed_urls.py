"""A signed URL opens what it was made for; any other is refused."""

from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.platform.errors import Forbidden, NotFound
from app.platform.storage.local import LocalStorage

KEY = "users/abc/files/def/input"
NOW = 1_700_000_000.0
TEXT = st.text(max_size=30)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> LocalStorage:
    root: Path = tmp_path_factory.mktemp("storage")
    return LocalStorage(root=root, url_key=b"k" * 32, clock=lambda: NOW)


def query_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True, strict_parsing=True))


def sign(storage: LocalStorage, *, name: str = "clip.mp4", lifetime_seconds: int = 60) -> dict[str, str]:
    return query_of(
        storage.signed_url(KEY, base_url="https://x", file_name=name, lifetime_seconds=lifetime_seconds)
    )


def sign_part(storage: LocalStorage) -> dict[str, str]:
    return query_of(
        storage.signed_part_url(KEY, "m1", number=2, size_bytes=12, base_url="https://x", lifetime_seconds=60)
    )


@given(name=TEXT, lifetime=st.integers(1, 10**6))
def test_any_name_comes_back(storage, name, lifetime):
    assert storage.open_signed(KEY, sign(storage, name=name, lifetime_seconds=lifetime)) == name


@given(lifetime=st.integers(-(10**6), 0))
def test_an_old_one_is_refused(storage, lifetime):
    with pytest.raises(Forbidden, match="expired"):
        storage.open_signed(KEY, sign(storage, lifetime_seconds=lifetime))


CHANGES = TEXT | st.sampled_from(["0", "-1", "9" * 400, "Infinity", "NaN", "\ud800", "1e9", "٣"])


@given(field=st.sampled_from(["expires", "name", "signature", "key"]), value=CHANGES | st.none())
def test_one_with_a_field_changed_is_refused(storage, field, value):
    query = sign(storage)
    assume(query.get(field, KEY) != value)
    key = KEY if field != "key" else value or ""
    changed = {name: text for name, text in {**query, field: value}.items() if text is not None}
    with pytest.raises(NotFound):
        storage.open_signed(key, changed)


@given(field=st.sampled_from(["expires", "size", "signature", "id", "number"]), value=CHANGES)
def test_a_parts_url_with_a_field_changed_is_refused(storage, field, value):
    query = sign_part(storage)
    given_id, number = (value if field == name else right for name, right in (("id", "m1"), ("number", "2")))
    assume({**query, "id": "m1", "number": "2"}[field] != value)
    with pytest.raises(NotFound):
        storage.open_signed_part(given_id, number, {**query, field: value})


@given(query=st.dictionaries(st.sampled_from(["expires", "name", "size", "signature", "x"]), CHANGES))
def test_no_query_breaks_it(storage, query):
    with pytest.raises(NotFound):
        storage.open_signed(KEY, query)
    with pytest.raises(NotFound):
        storage.open_signed_part("m1", "2", query)


def test_a_file_and_a_part_have_different_signatures(storage: LocalStorage) -> None:
    part = sign_part(storage)
    assert storage.open_signed_part("m1", "2", part).size_bytes == 12
    with pytest.raises(NotFound):
        storage.open_signed("m1", {**part, "name": "2"})
