"""Writes requirements.lock: every package that any part of the project needs, as pinned, with the hashes of its files.

    python scripts/lock.py [--torch-index https://download.pytorch.org/whl/cpu]

Versions come from constraints.txt, files and hashes from the package index (all files of a release, so that one file
serves every platform), and each package is marked with the sets that need it: `api`, the extras of pyproject.toml,
`build` for the build backend, and `torch` for torch with its CUDA libraries, whose versions torch itself states.
`torch-cpu` is the build for CPUs of another index; without `--torch-index` it stays as it was.
"""

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
HEADER = """\
# Every package with the hashes of its files, and the sets that need it; written by `python scripts/lock.py`.
# `python scripts/requirements.py SET...` prints those of some sets.
"""
OF_TORCH = re.compile(r"torch|triton|(cuda|nvidia)-.+")
ELSEWHERE = "sys_platform == 'win32'"
TORCH_CPU = "torch-cpu"


def compile_pins(*arguments: str, requirements: Iterable[str] = ()) -> list[str]:
    """The pins that uv resolves to, for every platform and Python version, each with its lines of hashes."""
    command = [
        Path(sys.executable).with_name("uv"),
        "pip",
        "compile",
        "--quiet",
        "--universal",
        "--no-header",
    ]
    lines = "\n".join(requirements)
    done = subprocess.run(
        [*command, "--no-annotate", "--python-version", "3.11", *arguments],
        cwd=ROOT,
        input=lines,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    pins = re.split(r"\n(?=\S)", done.stdout.strip())
    # Packages of this repository have no version there.
    return [pin for pin in pins if "==" in pin and ELSEWHERE not in pin]


def names(pins: Iterable[str]) -> set[str]:
    return {pin.partition("==")[0] for pin in pins}


def locked(pin_set: str) -> list[str]:
    """The pins of a set that exists nowhere but in the file that is there."""
    blocks = LOCK.read_text().split("\n\n") if LOCK.exists() else []
    return [block.partition("\n")[2].strip() for block in blocks if block.startswith(f"# {pin_set}\n")]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write requirements.lock.")
    parser.add_argument("--torch-index", metavar="URL", help="where the build of torch for CPUs is")
    options = parser.parse_args()
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pinned = ("--constraint", "constraints.txt")
    everything = compile_pins(
        *("-", "pyproject.toml", "--all-extras", "--generate-hashes", *pinned),
        requirements=pyproject["build-system"]["requires"],
    )
    sets = {"api": names(compile_pins("pyproject.toml", *pinned))}
    for extra in pyproject["project"]["optional-dependencies"]:
        sets[extra] = names(compile_pins("pyproject.toml", "--extra", extra, *pinned)) - sets["api"]
    sets["build"] = names(compile_pins("-", *pinned, requirements=pyproject["build-system"]["requires"]))

    def sets_of(name: str) -> list[str]:
        return (
            ["torch"]
            if OF_TORCH.fullmatch(name)
            else [one for one, members in sets.items() if name in members]
        )

    (torch,) = (pin.split()[0] for pin in everything if pin.startswith("torch=="))
    torch_cpu = [pin for pin in locked(TORCH_CPU) if pin.startswith(torch)]
    if options.torch_index:
        torch_cpu = compile_pins(
            *("-", "--no-deps", "--generate-hashes", "--default-index", options.torch_index),
            requirements=[torch],
        )
    blocks = [f"# {' '.join(sets_of(pin.partition('==')[0]))}\n{pin}\n" for pin in everything]
    LOCK.write_text("\n".join([HEADER, *blocks, *(f"# {TORCH_CPU}\n{pin}\n" for pin in torch_cpu)]))


if __name__ == "__main__":
    main()
