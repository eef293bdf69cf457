from app.cli import options_page
from app.renders.options import RenderOptions


def test_every_option_is_on_the_page():
    assert options_page.main(["--check"]) == 0
    for name in RenderOptions.model_json_schema()["properties"]:
        assert f"| `{name}` |" in options_page.PAGE.read_text()


def test_the_check_tells_a_stale_page(monkeypatch, tmp_path):
    stale = tmp_path / "options.md"
    stale.write_text(f"Head\n{options_page.BEGIN}old\n{options_page.END}Foot\n")
    monkeypatch.setattr(options_page, "PAGE", stale)
    assert options_page.main(["--check"]) == 1
    assert options_page.main([]) == 0
    assert options_page.main(["--check"]) == 0
    assert stale.read_text().startswith("Head\n")
    assert stale.read_text().endswith("Foot\n")
