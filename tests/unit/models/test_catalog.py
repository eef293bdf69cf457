import subprocess
import sys

import pytest

from models.catalog import DEFAULT_ENGINE, ENGINES, UnknownEngine, get_engine


def test_the_engines_of_the_api_are_there_and_lite_is_the_default():
    assert set(ENGINES) == {"regen-4x", "regen-4x-lite", "regen-4x-anime"}
    assert DEFAULT_ENGINE == "regen-4x-lite"
    assert [engine.id for engine in ENGINES.values() if engine.default] == ["regen-4x-lite"]
    assert {engine.id: engine.cost_multiplier for engine in ENGINES.values()} == {
        "regen-4x": 2,
        "regen-4x-lite": 1,
        "regen-4x-anime": 2,
    }
    assert all(engine.scale == 4 and engine.description for engine in ENGINES.values())


def test_an_unknown_engine_is_a_key_error_that_says_what_there_is():
    with pytest.raises(KeyError) as caught:
        get_engine("regen-8x")
    assert isinstance(caught.value, UnknownEngine)
    assert "regen-8x" in str(caught.value)
    assert "regen-4x-lite" in str(caught.value)


def test_the_catalog_cannot_be_changed_by_its_readers():
    with pytest.raises(TypeError):
        ENGINES["regen-4x"] = get_engine("regen-4x-lite")
    with pytest.raises(AttributeError):
        get_engine("regen-4x").scale = 2


def test_the_catalog_needs_the_standard_library_alone():
    code = (
        "import sys, models.catalog\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "outside = loaded - set(sys.stdlib_module_names) - {'models', '__main__'}\n"
        "print(sorted(outside))"
    )
    # -S: without site-packages, what pip installed cannot be imported at all.
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
