"""The Dockerfiles, as far as no container engine is needed; and the package that they install."""

import fnmatch
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.containers.compose import DOCKERFILES, ROOT, Stage, stages, tool

FINAL = (("Dockerfile", "api"), ("Dockerfile", "worker"), ("Dockerfile.gpu", "gpu"))


def test_hadolint_finds_nothing() -> None:
    found = subprocess.run(
        [tool("hadolint"), *DOCKERFILES], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_bases_are_exact_versions(dockerfile: str) -> None:
    known = stages(dockerfile)
    for stage in known.values():
        assert stage.base in known or re.fullmatch(
            r"python:\d+\.\d+\.\d+-slim-\w+(@sha256:\w{64})?", stage.base
        ), stage.base


@pytest.mark.parametrize(("dockerfile", "target"), FINAL)
def test_final_stages(dockerfile: str, target: str) -> None:
    stage = stages(dockerfile)[target]
    assert stage.base == "base", "not from a stage with build tools or caches"
    assert stage.all("USER") == ["10001:10001"]
    assert "--uid 10001" in stages(dockerfile)["base"].all("RUN")[0]
    assert stage.all("VOLUME") == ["/data"]
    assert stage.all("STOPSIGNAL") == ["SIGTERM"]
    assert stage.all("ENTRYPOINT") == ['["/usr/bin/tini", "--"]']
    assert len(stage.all("HEALTHCHECK")) == 1
    instructions = [name for name, _ in stage.instructions]
    assert instructions.index("USER") > max(n for n, name in enumerate(instructions) if name == "RUN")
    assert "COPY . " not in str(stage.instructions)


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_label_states_the_version(dockerfile: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    stated = re.findall(r"^ARG VERSION=(.+)$", (ROOT / dockerfile).read_text(), re.MULTILINE)
    assert stated and set(stated) == {version}


def test_both_files_prepare_the_same_base() -> None:
    first, second = (stages(dockerfile)["base"] for dockerfile in DOCKERFILES)
    assert first == second


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_what_is_copied_exists_and_reaches_the_builder(dockerfile: str) -> None:
    for path in copied_from_here(stages(dockerfile).values()):
        assert (ROOT / path).exists(), path
        assert reaches_the_builder(path), f".dockerignore leaves out {path}"


def test_nothing_else_reaches_the_builder() -> None:
    for path in (".env", ".git", ".venv", "secrets/regen_secret_key", "tests/conftest.py", "demo/x.mp4"):
        assert not reaches_the_builder(path), path
    copied = {path for dockerfile in DOCKERFILES for path in copied_from_here(stages(dockerfile).values())}
    allowed = {line[1:] for line in ignore_rules() if line.startswith("!")}
    assert {rule for rule in allowed for path in copied if f"{path}/".startswith(f"{rule}/")} == allowed


def test_packages_are_installed_by_their_hashes() -> None:
    """But torch of an index for CPUs, as long as no hash of it is known: its file has them where they are."""
    installed = [
        " ".join(words.split())
        for dockerfile in DOCKERFILES
        for stage in stages(dockerfile).values()
        for run in stage.all("RUN")
        for words in re.findall(r"pip (?:--python \S+ )?install (.+?)(?:&&|$)", run)
    ]
    by_hash = [words for words in installed if "--require-hashes" in words]
    others = {words for words in installed if "--require-hashes" not in words}
    assert len(by_hash) == 6
    assert others == {
        '--no-deps --index-url "$TORCH_INDEX" --requirement torch.txt',
        "--no-cache-dir --no-index --no-deps /wheels/*.whl",
    }


@pytest.mark.parametrize(
    ("dockerfile", "stage", "sets"),
    [
        ("Dockerfile", "api-dependencies", "api"),
        ("Dockerfile", "worker-dependencies", "worker"),
        ("Dockerfile", "worker-dependencies", "torch-cpu"),
        ("Dockerfile", "package", "build"),
        ("Dockerfile", "site", "docs"),
        ("Dockerfile.gpu", "dependencies", "api worker torch"),
        ("Dockerfile.gpu", "package", "build"),
    ],
)
def test_sets_of_packages_in_images(dockerfile: str, stage: str, sets: str) -> None:
    runs = " ".join(stages(dockerfile)[stage].all("RUN"))
    assert sets in re.findall(r"requirements\.py (.+?) >", runs)


def test_the_package_works_without_the_source(tmp_path: Path) -> None:
    """What the stage `package` builds from what it copies holds everything: migrations and their template too."""
    context, wheels, site = tmp_path / "context", tmp_path / "wheels", tmp_path / "site"
    context.mkdir()
    package = stages("Dockerfile")["package"]
    for path in copied_from_here([package, stages("Dockerfile")["api-dependencies"]]):
        source, target = ROOT / path, context / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy(source, target)
    (step,) = [run for run in package.all("RUN") if re.match(r"pip .*\bwheel ", run)]
    arguments = step.split(" wheel ")[1].replace("/wheels", str(wheels)).split()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", *arguments], cwd=context, check=True, capture_output=True)
    subprocess.run(
        [
            *pip,
            "install",
            "--no-index",
            "--no-deps",
            "--no-compile",
            "--target",
            str(site),
            *wheels.glob("*.whl"),
        ],
        check=True,
        capture_output=True,
    )
    for path in [
        *ROOT.glob("migrations/**/*.py"),
        ROOT / "migrations/script.py.mako",
        *ROOT.glob("app/**/*.py"),
    ]:
        assert (site / path.relative_to(ROOT)).is_file(), path
    assert (site / "regen_client" / "py.typed").is_file()
    if shutil.which("gcc") is not None:
        assert list((site / "worker" / "inference" / "cpu").glob("_kernels*.so"))
        (launcher,) = (site / "app" / "platform" / "media").glob("_launcher*.so")
        assert subprocess.check_output([launcher, "--", "/bin/echo", "started"]) == b"started\n"

    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(site), "REGEN_DATA_DIR": str(tmp_path / "data")}
    (tmp_path / "data").mkdir()
    program = (
        "import app.cli, sys; print(app.__file__); sys.argv = ['regen', 'db', 'upgrade']; app.cli.main()"
    )
    upgraded = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert upgraded.returncode == 0, upgraded.stderr
    assert upgraded.stdout.startswith(str(site)), "the installed package, not this source"
    assert (tmp_path / "data" / "regen.db").stat().st_size > 0


def copied_from_here(of: Iterable[Stage]) -> list[str]:
    """What the stages copy out of the build context, in order."""
    paths: list[str] = []
    for stage in of:
        for argument in stage.all("COPY"):
            if not argument.startswith("--from="):
                paths.extend(argument.split()[:-1])
    return list(dict.fromkeys(paths))


def ignore_rules() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def reaches_the_builder(path: str) -> bool:
    """As .dockerignore decides it: the last rule that fits the path or a folder above it."""
    reaches = True
    for rule in ignore_rules():
        pattern = rule.removeprefix("!")
        parts = path.split("/")
        above = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        name_rule = pattern.removeprefix("**/")
        fits = any(
            fnmatch.fnmatchcase(part.rpartition("/")[2], name_rule)
            if name_rule != pattern
            else part.count("/") == pattern.count("/") and fnmatch.fnmatchcase(part, pattern)
            for part in above
        )
        if fits:
            reaches = rule.startswith("!")
    return reaches
