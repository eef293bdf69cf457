"""What all tests share: the servers that several folders start, their logging, and which tests are slow."""

import gc
import json
import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import settings
from pytest_regen import FIRST_MOMENT, KEPT_SETTINGS

from tests import compiled_statements
from tests.servers import forked

# What is collected lives to the end: to look through it for garbage again and again takes seconds.
gc.disable()

# How long an example takes says something about the machine, not about the code. What examples find, one of the first
# nearly always does; the weekly run looks for the rest.
settings.register_profile("suite", deadline=None, max_examples=40)
settings.register_profile("thorough", deadline=None, max_examples=200)
settings.load_profile("thorough" if os.environ.get("REGEN_TEST_THOROUGH") else "suite")

compiled_statements.share()

pytest_plugins: list[str] = [
    "tests.servers.broker",
    "tests.servers.postgres",
    "tests.servers.s3",
]

TESTS = Path(__file__).parent
# `scripts/test --fast` leaves out what is marked `slow`: whole folders and files, what needs one of these fixtures,
# tests on the second kind of database, and what is marked where it stands. Those whose files take longest come first.
SLOW_PATHS = tuple(
    f"{TESTS}/{path}"
    for path in (
        "integration/api/test_schemathesis.py",
        "browser/",
        "integration/mock/test_recipes.py",
        "integration/worker/",
        "e2e/",
        "containers/",
        "integration/cli/",
        "integration/video/",
        "gpu/",
    )
)
SLOW_FIXTURES = frozenset({"postgres_server", "s3_server", "weights_directory"})


# Folders whose tests take minutes and tools of their own: only the option of the same name runs them, --images for one.
OWN_TIERS = {
    "images": "builds the images",
    "generators": "generates clients",
    "installation": "installs packages and clones",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    for tier, does in OWN_TIERS.items():
        parser.addoption(f"--{tier}", action="store_true", help=f"also what {does} and uses them")


def pytest_configure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        forked.use_shared_fork_server()
    elif config.getoption("numprocesses", None) and config.getoption("markexpr") != "not slow":
        forked.share_fork_server()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Whole folders of slow tests are not imported where slow tests are left out: it takes seconds, in each process."""
    left_out = config.getoption("markexpr") == "not slow" and f"{collection_path}/".startswith(SLOW_PATHS)
    return left_out or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for tier, does in OWN_TIERS.items():
            if str(item.path).startswith(f"{TESTS}/{tier}/"):
                item.add_marker(tier)
                item.add_marker(pytest.mark.timeout(5400))
                if not config.getoption(f"--{tier}"):
                    item.add_marker(pytest.mark.skip(reason=f"{does}: scripts/test --{tier}"))
        if str(item.path).startswith(SLOW_PATHS) or (isinstance(item, pytest.Function) and _is_slow(item)):
            item.add_marker(pytest.mark.slow)
    _put_slow_files_first(items)


def _put_slow_files_first(items: list[pytest.Item]) -> None:
    """Sort by file, in the order in which scripts/test hands files to processes: those that begin last are short, so
    that no process works alone in the end, and tests that wait for servers are beside others that wait.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}

    def place(item: pytest.Item) -> tuple[bool, int]:
        path = str(item.path)
        listed = (number for number, slow_path in enumerate(SLOW_PATHS) if path.startswith(slow_path))
        return item.path not in slow, next(listed, len(SLOW_PATHS))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    gc.freeze()
    # Python's own 700 look for garbage so often that it is a tenth of a test's processor time.
    gc.set_threshold(20_000)
    gc.enable()


def _is_slow(test: pytest.Function) -> bool:
    parameters = test.callspec.params.values() if hasattr(test, "callspec") else ()
    return bool(SLOW_FIXTURES.intersection(test.fixturenames)) or any(
        isinstance(value, str) and value == "postgresql" for value in parameters
    )


_configure = structlog.configure


def _configure_without_keeping(*arguments: Any, **options: Any) -> None:
    _configure(*arguments, **(options | {"cache_logger_on_first_use": False}))


# A logger that keeps its set-up would have that of the first test that used it, for ever.
structlog.configure = _configure_without_keeping


# The mocks that other projects' tests start are this tree's, whatever `regen` is installed.
_THIS_TREE = f"import sys; sys.path.insert(0, {str(TESTS.parent)!r}); from regen_server import main; main()"
os.environ.setdefault("PYTEST_REGEN_COMMAND", shlex.join([sys.executable, "-c", _THIS_TREE]))


@pytest.fixture(scope="session")
def shared_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of all processes of this run: what one has made in it, the others find. They make it at once, too, so
    what is not there yet appears in one step.
    """
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


# Of one file, as all servers that tests share: one that idles until the run ends takes 2 % of a core for minutes.
@pytest.fixture(scope="module")
def regen_mock_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address and the key of a mock as pytest-regen starts it, but forked; pages of any origin may use it. How
    pytest-regen itself does that, tests of projects that have it installed show.
    """
    directory = tmp_path_factory.mktemp("regen-mock")
    ready_file = directory / "ready.json"
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in KEPT_SETTINGS or not name.startswith("REGEN_")
    }
    server = forked.ForkedServerProcess(
        ["mock", "--port", "0", "--ready-file", ready_file, "--seed", "0", "--clock", FIRST_MOMENT],
        log=directory / "log",
        environment=environment | {"REGEN_CORS_ORIGINS": "*"},
    )
    try:
        server.wait_until(ready_file.exists, seconds=60, what="the mock is ready")
        ready = json.loads(ready_file.read_text())
        yield ready["url"], ready["key"]
    finally:
        server.stop()


@pytest.fixture(scope="session")
def weights_directory(shared_directory: Path) -> Path:
    """The engines' weights, converted once in a run."""
    from models.catalog import ENGINES
    from models.weights import ensure_weights

    directory = shared_directory / "converted-weights"
    for engine_id in ENGINES:
        ensure_weights(engine_id, directory)
    return directory


@pytest.fixture(autouse=True)
def logging_of_its_own() -> Iterator[None]:
    """What one test sets up for logging, mostly by a command that it runs in this process, is not the next one's."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks


@pytest.fixture
def heeded_interrupts() -> Iterator[None]:
    """SIGINT as on a terminal: a shell ignores it for what it begins in the background, and so would all children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
