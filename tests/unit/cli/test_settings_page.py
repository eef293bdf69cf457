import pytest

from app.platform import settings_page
from app.platform.settings import Settings


def test_every_setting_is_on_the_page():
    page = settings_page.settings_page()
    for name, field in Settings.model_fields.items():
        assert f"| `REGEN_{name.upper()}` |" in page
        assert field.description in page


@pytest.mark.parametrize(
    "row",
    [
        "| `REGEN_MAX_UPLOAD_BYTES` | 2 GiB (2147483648) |",
        "| `REGEN_SEGMENT_SECONDS` | 4 s |",
        "| `REGEN_DATA_DIR` | `~/.regen` |",
        "| `REGEN_STAND_IN_NETWORK` | off |",
        "| `REGEN_RATE_LIMIT` | unset |",
        "| `REGEN_MAX_DURATION_SECONDS` | 4 h (14400 s) |",
    ],
)
def test_defaults_are_written_for_people(row):
    assert row in settings_page.settings_page()


def test_the_check_tells_a_stale_page_from_a_fresh_one(monkeypatch, tmp_path):
    monkeypatch.setattr(settings_page, "PAGE", tmp_path / "settings.md")
    assert settings_page.main(["--check"]) == 1
    assert settings_page.main([]) == 0
    assert settings_page.main(["--check"]) == 0
    with settings_page.PAGE.open("a") as page:
        page.write("more\n")
    assert settings_page.main(["--check"]) == 1
