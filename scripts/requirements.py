"""Prints what the project and the extras that are named depend on, one requirement a line.

So that images can install the dependencies before the source is there: `python scripts/requirements.py worker`.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
unknown = [name for name in sys.argv[1:] if name not in extras]
if unknown:
    sys.exit(f"pyproject.toml has no extra {', '.join(unknown)}; it has {', '.join(extras)}.")
print(*project["dependencies"], *(line for name in sys.argv[1:] for line in extras[name]), sep="\n")
