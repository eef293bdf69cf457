"""Objects in the storage that no row knows."""

from datetime import timedelta

import pytest

from app.cleanup.orphans import FEW, Orphans, find_orphans, remove_orphans
from app.platform.secrets import new_id
from app.platform.storage.keys import input_key
from tests.integration.aged_rows import DAY, AgedRows, ago, leavings


def test_orphans_are_what_no_row_knows(place: AgedRows) -> None:
    kept_file = place.add_file(age=DAY)
    erased_file = place.add_file(age=DAY, removed_at=ago(DAY), erased_at=ago(DAY))
    at_work = place.add_render(kept_file, "processing")
    settled = place.add_render(kept_file, "completed", ended=DAY, cleaned_at=ago(DAY))
    withdrawn = place.add_render(kept_file, "completed", ended=DAY, files_removed_at=ago(DAY))
    place.put(*leavings(at_work), *leavings(withdrawn), "renders/notes", "files/readme/input", "other/thing")
    known = place.keys() - {input_key(erased_file)}
    late = leavings(settled)
    lost = [input_key(new_id()), *leavings(new_id())]
    place.put(*late, *lost)

    assert find_orphans(place.database, place.storage).keys == []  # nothing is a day old
    found = find_orphans(place.database, place.storage, least_age=timedelta(0))
    assert set(found.keys) == {*late, *lost, input_key(erased_file)}
    assert remove_orphans(place.storage, found) == len(found.keys)
    assert place.keys() == known
    assert find_orphans(place.database, place.storage, least_age=timedelta(0)).keys == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_storage_full_of_orphans_is_left_alone_unless_it_is_meant(place: AgedRows) -> None:
    """So it looks to a server with the wrong database."""
    keys = [input_key(new_id()) for _ in range(FEW + 1)]
    place.put(*keys)
    found = find_orphans(place.database, place.storage, least_age=timedelta(0))

    assert remove_orphans(place.storage, found) == 0
    assert place.keys() == set(keys)
    assert remove_orphans(place.storage, found, anyway=True) == len(keys)
    assert place.keys() == set()
    assert not Orphans(keys=keys, known=len(keys)).are_suspect
