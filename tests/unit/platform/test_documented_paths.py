"""The files that the glossary and the architecture's tables name are there, under these names."""

import re
from pathlib import Path, PurePath

import pytest

ROOT = Path(__file__).parents[3]
NAME = re.compile(r"`([\w*.-]+(?:/[\w*.-]*)*)`")


@pytest.mark.parametrize("page", ["glossary.md", "architecture.md"])
def test_every_path_of_a_table_is_there(page: str) -> None:
    missing, found = [], 0
    for line in (ROOT / "docs" / page).read_text("utf-8").splitlines():
        # A name without its folder is in that of the path before it, or beside that.
        near: list[PurePath] = []
        for name in NAME.findall(line) if line.startswith("|") else ():
            if "/" in name:
                places = [PurePath(), *near]
                if not any(any(ROOT.joinpath(place).glob(name)) for place in places):
                    missing.append(name)
                elif any(ROOT.glob(name)):
                    folder = PurePath(name) if name.endswith("/") else PurePath(name).parent
                    near = [folder, folder.parent]
            elif name.endswith(".py") and near:
                if not any(any(ROOT.joinpath(place).glob(name)) for place in near):
                    missing.append(f"{near[0]}/{name}")
            else:
                continue
            found += 1
    assert missing == [] and found > 10
