"""How Sphinx makes the site of this repository's Markdown files: `scripts/site`."""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from reference import reference_page  # noqa: E402  (its folder is no package)

project = "Regen Server"
root_doc = "docs/index"
# The source is the whole repository, so that links between any two of these files hold.
include_patterns = [
    "docs/*.md",
    "docs/decisions/*.md",
    "clients/*/README.md",
    "bench/RESULTS.md",
    "tests/media/README.md",
    *("CHANGELOG.md", "CONTRIBUTING.md", "README.md", "SECURITY.md"),
]
extensions = ["myst_parser", "sphinx_copybutton", "sphinx_design"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

html_theme = "furo"
html_title = "Regen Server"
html_favicon = "../../app/console/static/icon.svg"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_show_sphinx = False

# Made anew for each site; written only if it changed, since Sphinx then reads it again.
REFERENCE = HERE.parent / "reference.md"
page = reference_page(json.loads((HERE.parent / "openapi.json").read_text()))
if not REFERENCE.is_file() or REFERENCE.read_text() != page:
    REFERENCE.write_text(page)
