"""Fails when two modules of the server define a class of one name: `python scripts/homonyms.py`.

A name has one meaning in the code. A wire shape in `schemas.py` may have the name of what it shows, as `Render` has;
two wire shapes of one name would be one component of the API's description. Tests and nested classes are left out.
"""

import ast
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("app", "worker", "models")


def classes_by_name() -> dict[tuple[str, bool], list[str]]:
    """Where each name is defined, as `path:line`: by name, and whether it is a wire shape."""
    found: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef):
                    found[node.name, path.name == "schemas.py"].append(
                        f"{path.relative_to(ROOT)}:{node.lineno}"
                    )
    return found


def main() -> int:
    homonyms = {name: places for name, places in classes_by_name().items() if len(places) > 1}
    for (name, _), places in sorted(homonyms.items()):
        sys.stderr.write(f"Several classes are called {name}: {', '.join(places)}\n")
    return 1 if homonyms else 0


if __name__ == "__main__":
    sys.exit(main())
