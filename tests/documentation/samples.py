"""The fenced samples of the pages, and a session in which their commands are run one after the other."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from markdown_it import MarkdownIt

from tests.servers.forked import ForkedProcess
from tests.servers.process import pause_after, wait_until

ROOT = Path(__file__).parents[2]
# All pages of the repository but the generated one, whose samples have tests of their own.
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(path for path in ROOT.glob("docs/**/*.md") if path.name != "reference.md"),
    *sorted(
        path for folder in ("bench", "clients", "deploy") for path in ROOT.glob(f"{folder}/**/README.md")
    ),
    ROOT / "bench" / "RESULTS.md",
    ROOT / "tests" / "media" / "README.md",
]
COMMAND_SECONDS = 120
ENDED = ("completed", "failed")
# What the tests' own command has run, and what starts a process that stays. tests/installation runs the former anew.
DONE_BEFORE = ("scripts/setup", "pip install")
STAYS = ("serve", "mock", "worker")
KEY = re.compile(r"regen_[\w-]{20,}")
# Whether these may be done depends on how far a render is by then.
MAY_BE_REFUSED = re.compile(r"/(cancel|retry|requeue|replay)\b|-X DELETE \S+/renders/")
# The placeholders of the pages, and where an answer shows what stands for them.
PLACEHOLDERS = {
    "FILE_ID": ("file", "id"),
    "RENDER_ID": ("render", "id"),
    "PREVIEW_ID": ("preview", "id"),
    "UPLOAD_ID": ("upload", "id"),
    "WEBHOOK_ID": ("webhook", "id"),
    "USER_ID": ("user", "id"),
    "KEY_ID": ("key", "id"),
}


def run_in_bash(text: str, directory: Path, environment: Mapping[str, str], *, seconds: float) -> str:
    """What bash prints for a sample. Fails if it fails."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout[-4000:]}{done.stderr[-8000:]}"
    return done.stdout


@dataclass(frozen=True)
class Sample:
    """A fenced block: its page, below the repository, its line, language ("" if none is named) and text."""

    page: str
    line: int
    language: str
    text: str


def samples(path: Path) -> Iterator[Sample]:
    """The fenced blocks of a page of the repository."""
    return samples_of(path.read_text(), page=path.relative_to(ROOT).as_posix())


def samples_of(text: str, *, page: str) -> Iterator[Sample]:
    for token in MarkdownIt().parse(text):
        if token.type in ("fence", "code_block"):
            assert token.map is not None
            yield Sample(page, token.map[0] + 1, token.info.strip(), token.content)


def text_of(page: str, begin: str) -> str:
    """The one sample of a page of the repository that begins so."""
    (text,) = [one.text for one in samples(ROOT / page) if one.text.startswith(begin)]
    return text


def commands(text: str) -> Iterator[str]:
    """The commands of a shell's sample: of several lines where a line or a quote goes on."""
    command = ""
    for line in text.splitlines():
        command += line + "\n"
        with contextlib.suppress(ValueError):
            words = shlex.split(command, comments=True)
            if not line.rstrip().endswith("\\"):
                if words:
                    yield command.strip()
                command = ""
    assert not command, f"a command has no end: {command}"


@dataclass
class Session:
    """A terminal: a directory, the environment of its commands, and what stands for the placeholders of the pages."""

    directory: Path
    environment: dict[str, str]
    replaced: dict[str, str] = field(default_factory=dict)
    processes: list[ForkedProcess] = field(default_factory=list)
    logs: list[Path] = field(default_factory=list)

    def run(self, command: str) -> str:
        """What it prints. Fails if it fails, or if a server answers with an error that the command does not expect."""
        if command.startswith(DONE_BEFORE):
            return ""
        command = self.filled_in(command)
        words = shlex.split(command, comments=True)
        if words[0] == "regen" and "&&" in words:
            return "".join(self.run(part) for part in command.split("&&"))
        if value := re.fullmatch(r"([A-Z]+)=(\$\(.*\))", command, re.DOTALL):
            self.environment[value[1]] = self.run(f"echo {value[2]}").strip()
            return ""
        assigned, words = _assignments(words)
        if not words or words[0] == "export":
            self.environment |= assigned | _assignments(words[1:])[0]
            return ""
        if Path(words[0]).name == "regen" and "|" not in words:
            words = [each for word in words for each in self._files(word) or [word]]
            return self._regen(words[1:], assigned)
        output = self.output_of(command)
        self._learn(command, output)
        return output

    def output_of(self, command: str) -> str:
        """What bash prints for it. Fails if it fails."""
        return self._output(["bash", "-euc", command])

    def run_python(self, text: str) -> None:
        """A sample in Python, in a process of its own."""
        self._output([sys.executable, "-c", self.filled_in(text)])

    def close(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.send_signal(signal.SIGKILL)

    def _files(self, pattern: str) -> list[str]:
        """The files in the directory that a pattern of the shell names."""
        there = self.directory.glob(pattern) if pattern.startswith("*.") else ()
        return sorted(path.name for path in there)

    def _output(self, command: list[str]) -> str:
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stderr}"
        return done.stdout

    def _regen(self, arguments: list[str], assigned: Mapping[str, str]) -> str:
        log = self.directory / f".log-{len(self.logs)}"
        log.touch()
        self.logs.append(log)
        stays = arguments[0] in STAYS
        ready = self.directory / f".ready-{len(self.logs)}"
        if stays and arguments[0] != "worker":
            arguments = [*arguments, "--port", "0", "--ready-file", str(ready)]
        process = ForkedProcess(
            arguments, log=log, environment=self.environment | assigned, directory=self.directory
        )
        if not stays:
            try:
                status = process.wait(COMMAND_SECONDS)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                raise
            assert status == 0, f"regen {shlex.join(arguments)}: {status}\n{log.read_text()}"
        else:
            self.processes.append(process)
            if arguments[0] != "worker":
                wait_until(ready.is_file, seconds=60, what=lambda: f"it is ready\n{log.read_text()}")
                told = json.loads(ready.read_text())
                address = "http://127.0.0.1:8001" if "8001" in arguments else "http://127.0.0.1:8000"
                self.replaced |= {address: told["url"], "https://regen.example.com": told["url"]}
                self.replaced |= {"http://api.internal:8000": told["url"]}
        text = log.read_text()
        if "mock" not in arguments and (keys := KEY.findall(text)):
            self.replaced["regen_..."] = keys[-1]
        return text

    def filled_in(self, text: str) -> str:
        """The text with what stands for its placeholders."""
        for name in sorted(self.replaced, key=len, reverse=True):
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", lambda _, name=name: self.replaced[name], text)
        return text

    def completed(self, render_id: str) -> dict[str, Any]:
        """The render of that id, once it is."""
        url, key = self.environment["URL"], self.environment["KEY"]
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}) as client:
            began = time.monotonic()
            while True:
                render: dict[str, Any] = client.get(f"/v1/renders/{render_id}").json()["render"]
                if render["status"] in ENDED:
                    assert render["status"] == "completed", render
                    return render
                waited = time.monotonic() - began
                assert waited < COMMAND_SECONDS, render
                time.sleep(pause_after(waited))

    def _learn(self, command: str, output: str) -> None:
        """Ids out of a JSON answer, and an ETag out of headers, for the commands that follow."""
        if tag := re.search(r'^etag: "?([^"\r\n]+)', output, re.MULTILINE | re.IGNORECASE):
            self.replaced["ETAG"] = tag[1]
        try:
            answer = json.loads(output)
        except ValueError:
            return
        if "errors" in answer:
            assert MAY_BE_REFUSED.search(command), f"{command}\n{output}"
            return
        if parts := answer.get("upload", {}).get("parts"):
            self.replaced["PART_URL"] = parts[0]["url"]
        for name, (kind, value) in PLACEHOLDERS.items():
            if value in answer.get(kind, {}):
                self.replaced[name] = answer[kind][value]


def _assignments(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """The variables that a command begins with, and the rest of it."""
    assigned: dict[str, str] = {}
    for number, word in enumerate(words):
        name, sign, value = word.partition("=")
        if not sign or not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
            return assigned, words[number:]
        assigned[name] = value
    return assigned, []


def new_session(directory: Path, **settings: str) -> Session:
    """In an empty directory with a film, as a new user of this machine."""
    directory.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REGEN_")}
    environment |= {
        "HOME": str(directory),
        "XDG_CONFIG_HOME": str(directory / "config"),
        "REGEN_DATA_DIR": str(directory / "data"),
        "REGEN_STAND_IN_NETWORK": "true",
        **settings,
    }
    return Session(directory, environment)
