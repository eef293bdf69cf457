"""The recipes of docs/mock.md work as they stand there, in a project that knows nothing of this one."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "mock.md"
OWN_APP = """
import sys

# pytest has the plugin by now, and nothing that it would slow down every project's start with.
assert "pytest_regen" in sys.modules
assert not {"httpx", "fastapi", "sqlalchemy", "app"} & sys.modules.keys(), sorted(sys.modules)

import app


def test_the_projects_own_app_is_its_own(regen_mock):
    assert app.OWN
"""


def test_every_recipe_for_pytest(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "test_recipes.py").write_text("\n\n".join(blocks))
    # As projects have one.
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("OWN = True\n")
    (tmp_path / "test_own_app.py").write_text(OWN_APP)

    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:schemathesis", "-q", "test_own_app.py", "test_recipes.py"],
        cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "clients" / "pytest" / "src")},
    )  # fmt: skip

    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert f"{1 + sum(block.count('def test_') for block in blocks)} passed" in answer.stdout
