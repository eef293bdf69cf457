"""Clients that generators make of docs/openapi.json, each built and used: it uploads a file, renders it by its id at a
fractional rate, polls, and makes a webhook. scripts/test --generators installs the generators.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "programs"
CLIP = ROOT / "tests" / "media" / "bunny-240x136-25fps.mp4"
DESCRIPTION = ROOT / "docs" / "openapi.json"
TOOLS = Path(os.environ.get("REGEN_TEST_GENERATORS", Path(sys.prefix) / "generators"))
NODE = TOOLS / "node_modules" / ".bin"
PYTHON = TOOLS / "python" / "bin"
GO = PYTHON / "go"
# What the generated client for Java needs beside what is in the generator's own archive. Debian: libhttpmime-java.
HTTPMIME = next(
    filter(Path.exists, (TOOLS / "debian/usr/share/java/httpmime.jar", Path("/usr/share/java/httpmime.jar"))),
    None,
)
STEP_SECONDS = 600


def run(*command: object, cwd: Path, **variables: object) -> str:
    """What the command prints. Fails the test with all of its output."""
    environment = os.environ | {name: str(value) for name, value in variables.items()}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=STEP_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-5000:]}\n{done.stderr[-5000:]}"
    return done.stdout


def archive() -> Path:
    """openapi-generator."""
    if shutil.which("java") is None:
        pytest.skip("openapi-generator needs Java.")
    (found,) = TOOLS.glob("python/lib/python*/site-packages/openapi_generator_cli/openapi-generator.jar")
    return found


def openapi_generator(name: str, directory: Path, *options: str) -> None:
    command = ["java", "-jar", archive(), "generate", "-i", DESCRIPTION, "-g", name, "-o", directory]
    # Without tests and pages of its own, which nothing here reads.
    unused = "apiTests=false,modelTests=false,apiDocs=false,modelDocs=false"
    parts = f"apis,models,supportingFiles,{unused}"
    run(*command, "--global-property", parts, *options, cwd=directory.parent)


@pytest.fixture
def asked(regen_mock) -> tuple[str, ...]:
    """The arguments of each program."""
    return regen_mock.url, regen_mock.key, str(CLIP)


@pytest.fixture
def expected(regen_mock) -> str:
    """What each program prints."""
    return f"{CLIP.stat().st_size} completed 24000/1001 http://127.0.0.1:9/hook\n"


def test_openapi_python_client(tmp_path: Path, asked, expected) -> None:
    settings = ROOT / "docs" / "openapi-python-client.yml"
    command = [PYTHON / "openapi-python-client", "generate", "--path", DESCRIPTION, "--config", settings]
    run(
        *command, "--meta", "none", "--fail-on-warning", "--output-path", tmp_path / "generated", cwd=tmp_path
    )
    program = PROGRAMS / "openapi_python_client.py"
    assert run(PYTHON / "python", program, *asked, cwd=tmp_path, PYTHONPATH=tmp_path) == expected


def test_openapi_generator_python(tmp_path: Path, asked, expected) -> None:
    openapi_generator("python", tmp_path / "made")
    program = PROGRAMS / "python.py"
    assert run(PYTHON / "python", program, *asked, cwd=tmp_path, PYTHONPATH=tmp_path / "made") == expected


@pytest.mark.parametrize(
    "name", ["typescript-fetch", "typescript-axios", "orval", "hey-api", "openapi-typescript"]
)
def test_typescript(name: str, tmp_path: Path, asked, expected) -> None:
    if not NODE.exists():
        pytest.skip("There is no npm, which scripts/test --generators fetches these generators with.")
    match name:
        case "orval":
            generated = ["--output", tmp_path / "generated.ts", "--client", "fetch"]
            run(NODE / "orval", "--input", DESCRIPTION, *generated, cwd=TOOLS)
        case "hey-api":
            run(NODE / "openapi-ts", "-i", DESCRIPTION, "-o", tmp_path / "generated", cwd=TOOLS)
        case "openapi-typescript":
            # Otherwise it requires properties of requests that have a default.
            options = ["--default-non-nullable=false", "-o", tmp_path / "generated.d.ts"]
            run(NODE / "openapi-typescript", DESCRIPTION, *options, cwd=TOOLS)
        case _:
            openapi_generator(name, tmp_path / "generated")
    shutil.copy(PROGRAMS / f"{name}.ts", tmp_path / "use.ts")
    (tmp_path / "node_modules").symlink_to(TOOLS / "node_modules")
    (tmp_path / "package.json").write_text('{"private": true, "type": "module"}')
    options = ["--strict", "--noEmit", "--skipLibCheck", "--target", "es2022", "--module", "esnext"]
    options += ["--moduleResolution", "bundler", "--lib", "es2022,dom,dom.iterable", "--types", "node"]
    run(NODE / "tsc", *options, "use.ts", cwd=tmp_path)
    assert run(NODE / "tsx", "use.ts", *asked, cwd=tmp_path) == expected


def test_go(tmp_path: Path, asked, expected) -> None:
    openapi_generator("go", tmp_path / "made")
    module = tmp_path / "made" / "go.mod"
    # The client itself builds with older ones than it asks for.
    module.write_text(re.sub(r"^go .*$", "go 1.19", module.read_text(), flags=re.MULTILINE))
    (tmp_path / "made" / "use").mkdir()
    shutil.copy(PROGRAMS / "main.go", tmp_path / "made" / "use")
    (tmp_path / "cache").mkdir()
    own = {"GOTOOLCHAIN": "local", "GOCACHE": tmp_path / "cache", "GOPATH": tmp_path / "go", "GOPROXY": "off"}
    assert run(GO, "run", "./use", *asked, cwd=tmp_path / "made", **own) == expected


def test_java(tmp_path: Path, asked, expected) -> None:
    if shutil.which("javac") is None or HTTPMIME is None:
        pytest.skip("There is no Java compiler, or no httpmime: on Debian, default-jdk and libhttpmime-java.")
    options = ["--library", "native", "--additional-properties", "openApiNullable=false"]
    openapi_generator("java", tmp_path / "made", *options)
    sources = tmp_path / "made" / "src" / "main" / "java"
    shutil.copy(PROGRAMS / "Use.java", sources)
    files = sorted(sources.rglob("*.java"))
    for file in files:  # of Java itself, rather than of one more archive
        text = file.read_text().replace("javax.annotation.Generated", "javax.annotation.processing.Generated")
        file.write_text(text)
    path = f"{archive()}:{HTTPMIME}"
    run("javac", "-nowarn", "-cp", path, "-d", tmp_path / "classes", *files, cwd=tmp_path)
    assert run("java", "-cp", f"{tmp_path}/classes:{path}", "Use", *asked, cwd=tmp_path) == expected
