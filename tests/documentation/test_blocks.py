"""Every fenced block of the pages has a test that runs it, or that holds it against what it shows."""

import ast
import json
from functools import cache

import jsonschema

from tests.documentation.elsewhere import TESTS, claims_on
from tests.documentation.samples import PAGES, ROOT, samples

EVERY = [sample for path in PAGES for sample in samples(path)]
# What test_samples.py runs, unless the table names another test.
RUN = ("sh", "python")


def test_the_pages_are_all_that_there_are() -> None:
    """But for what says where files come from, and the generated one."""
    folders = (
        "app",
        "bench",
        "clients",
        "deploy",
        "docs",
        "migrations",
        "models",
        "scripts",
        "tests",
        "worker",
    )
    there = {*ROOT.glob("*.md"), *(path for name in folders for path in (ROOT / name).rglob("*.md"))}
    without = {
        path.relative_to(ROOT).as_posix()
        for path in there - set(PAGES)
        if "node_modules" not in path.parts and any(samples(path))
    }
    assert without <= {"docs/reference.md"}
    assert len(EVERY) > 100


def test_every_block_is_run_or_judged() -> None:
    """One of another language needs a test, and a place in elsewhere.py."""
    claims = {f"{one.page}:{one.line} ({one.language!r})": claims_on(one) for one in EVERY}
    assert {block: tests for block, tests in claims.items() if len(tests) > 1} == {}
    assert [
        block
        for (block, tests), one in zip(claims.items(), EVERY, strict=True)
        if not tests and one.language not in RUN
    ] == []


def test_every_test_and_every_block_of_the_table_is_there() -> None:
    for (page, language, begin), test in TESTS.items():
        assert any(
            (one.page, one.language) == (page, language) and one.text.startswith(begin) for one in EVERY
        ), (page, language, begin)
        file, _, name = test.partition("::")
        assert (ROOT / file).is_file(), file
        assert not name or name in functions_of(file), test


@cache
def functions_of(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


# What the answers of the pages in JSON are, by the property that they begin with.
SHAPES = {
    "render": "RenderBody",
    "errors": "ErrorsBody",
    "estimate": "EstimateBody",
    "usage": "UsageBody",
    "preview": "PreviewBody",
    "quality": "QualityBody",
    "stabiliseEffect": "FilterEffectBody",
}


def test_answers_in_json_are_as_the_description_has_them() -> None:
    components = json.loads((ROOT / "docs/openapi.json").read_text())["components"]
    shown = []
    for sample in EVERY:
        if sample.language == "json" and not sample.text.startswith('{"timestamp"'):
            text = sample.text.strip()
            # Of some the page shows one property.
            is_part = text.startswith('"')
            answer = json.loads(f"{{{text}}}" if is_part else text)
            (name,) = list(answer)[:1]
            body, shape = answer[name] if is_part else answer, components["schemas"][SHAPES[name]]
            jsonschema.validate(body, {**shape, "components": components})
            assert body.keys() <= shape["properties"].keys()
            shown.append(name)
    assert set(shown) == SHAPES.keys()
