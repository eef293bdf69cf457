"""requirements.lock says the same as constraints.txt and pyproject.toml, and lacks nothing that a package needs."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
TORCH = "torch"
# Of this repository.
OWN = ("regen-server", "regen-client")


def printed(*sets: str) -> list[tuple[Requirement, list[str]]]:
    """What scripts/requirements.py prints of these sets: pins, and the hashes of each."""
    command = [sys.executable, str(ROOT / "scripts/requirements.py"), *sets]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    pins = re.split(r"\n(?=\S)", lines.strip())
    return [(Requirement(pin.split("\\")[0]), re.findall(r"--hash=(\S+)", pin)) for pin in pins]


def versions(pins: list[Requirement]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for pin in pins:
        found.setdefault(pin.name, set()).add(str(pin.specifier))
    return found


def test_constraints_and_lock_name_the_same_versions() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    constraints = [Requirement(line) for line in lines if line and not line.startswith("#")]
    locked = [pin for pin, _ in printed("api", "build", TORCH, *EXTRAS)]
    of_torch = {pin.name for pin, _ in printed(TORCH)} - {TORCH}
    assert versions([pin for pin in locked if pin.name not in of_torch]) == versions(constraints)


def test_every_package_has_hashes() -> None:
    for pin, hashes in printed("api", "build", TORCH, *EXTRAS):
        assert len(list(pin.specifier)) == 1 and str(pin.specifier).startswith("=="), pin
        assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes), pin


def test_the_build_of_torch_for_cpus_is_its_version_alone_until_its_hashes_are_locked() -> None:
    (torch,) = (pin for pin, _ in printed(TORCH) if pin.name == TORCH)
    is_locked = "# torch-cpu\n" in (ROOT / "requirements.lock").read_text()
    for cpu, hashes in printed("torch-cpu"):
        (pin,) = cpu.specifier
        assert torch.specifier.contains(pin.version), "of its own label, as 2.13.0+cpu is"
        assert bool(hashes) == is_locked


def test_a_set_that_is_not_there_is_refused() -> None:
    command = [sys.executable, str(ROOT / "scripts/requirements.py")]
    for sets in ([], ["api", "workers"]):
        done = subprocess.run([*command, *sets], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "torch-cpu, tracing, worker" in done.stderr


def is_for_here(requirement: Requirement, extras: Iterable[str] = ()) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def wanted(name: str, extras: set[str]) -> list[Requirement]:
    """What a package needs here with these extras; nothing of one that is not installed."""
    try:
        lines = requires(name) or []
    except PackageNotFoundError:
        return []
    return [one for one in map(Requirement, lines) if is_for_here(one, extras)]


@pytest.mark.parametrize(
    ("sets", "own"),
    [
        (["api"], PYPROJECT["project"]["dependencies"]),
        (["build"], PYPROJECT["build-system"]["requires"]),
        *((["api", TORCH, extra], lines) for extra, lines in EXTRAS.items()),
    ],
    ids=lambda value: value[-1] if len(value) < 4 else "",
)
def test_a_set_holds_all_that_its_packages_need(sets: list[str], own: list[str]) -> None:
    """As far as the packages are installed here, with their metadata for this platform."""
    locked = {canonicalize_name(pin.name): pin for pin, _ in printed(*sets)}
    todo = [one for one in map(Requirement, own) if one.name not in OWN and is_for_here(one)]
    seen: set[tuple[str, str]] = set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        assert name in locked, f"{name} is not locked for {sets[-1]}"
        (pin,) = locked[name].specifier
        assert requirement.specifier.contains(pin.version, prereleases=True), (requirement, pin)
        if (key := (name, ",".join(sorted(requirement.extras)))) not in seen:
            seen.add(key)
            todo += wanted(requirement.name, requirement.extras)


def test_the_apis_packages_are_without_torch() -> None:
    assert not {pin.name for pin, _ in printed("api")} & {pin.name for pin, _ in printed("worker", TORCH)}
